"""Importance: what the largest subnet owes to its parts, and an order that leaves it as it is."""

import pytest
import torch

from search_spaces import DecoderSpace, VisionTransformerSpace
from supernet.families import build_supernet
from supernet.pretrained import Importance, measure_importance, reorder

torch.set_num_threads(1)
WIDTHS = {"embed": (6, 12), "depth": (1, 3), "ffn": (5, 10)}
SPACES = {
    "vit": VisionTransformerSpace(
        image_size=4, patch_size=2, channels=2, num_classes=3, head_dim=4, heads=(1, 3), **WIDTHS
    ),
    "mean": VisionTransformerSpace(
        image_size=4,
        patch_size=2,
        channels=2,
        num_classes=3,
        pooling="mean",
        head_dim=4,
        heads=(1, 3),
        **WIDTHS,
    ),
    "decoder": DecoderSpace(vocabulary=11, context=8, head_dim=4, group=2, heads=(2, 6), **WIDTHS),
    "one key": DecoderSpace(vocabulary=11, context=8, head_dim=4, group=2, heads=(2,), **WIDTHS),
}
NAMES = pytest.mark.parametrize("name", SPACES)


def supernet(name):
    model = build_supernet(SPACES[name])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def batch(name, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if SPACES[name].family == "decoder":
        crops = torch.randint(11, (6, 9), generator=generator)
        return crops[:, :-1], crops[:, 1:]
    images = torch.randn(6, 2, 4, 4, generator=generator)
    return images, torch.randint(3, (6,), generator=generator)


@NAMES
def test_the_largest_subnet_stays_and_smaller_ones_change(name):
    model = supernet(name)
    space, (inputs, _) = model.space, batch(name)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        largest, smallest = (model(inputs, a) for a in (space.largest, space.smallest))
    importance = measure_importance(model, [batch(name), batch(name, 1)])
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    reorder(model, importance)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs, space.largest), largest, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            model.extract(space.largest)(inputs)[0]
            if space.family == "decoder"
            else model.extract(space.largest)(inputs),
            largest,
            rtol=1e-5,
            atol=1e-5,
        )
        assert not torch.allclose(model(inputs, space.smallest), smallest, atol=1e-3)
    # What was measured is now in order.
    again = measure_importance(model, [batch(name), batch(name, 1)])
    for scores in (again.embed, *again.heads, *again.ffn):
        torch.testing.assert_close(scores, scores.sort(descending=True)[0], rtol=1e-4, atol=1e-5)


@NAMES
def test_shapes(name):
    space = SPACES[name]
    importance = measure_importance(supernet(name), [batch(name)])
    layers = space.subnet(space.largest).layers
    assert importance.embed.shape == (12,)
    assert [scores.shape for scores in importance.heads] == [(la.kv_heads,) for la in layers]
    assert [scores.shape for scores in importance.ffn] == [(la.ffn,) for la in layers]
    assert min(importance.embed) > 0


@NAMES
def test_what_does_nothing_comes_last(name):
    """A neuron, a head and a channel whose weights are zero."""
    model = supernet(name)
    with torch.no_grad():
        model.ffn[1].down.weight[:, 0] = 0
        width = (
            model.attention[2].out.in_features
            // SPACES[name].subnet(SPACES[name].largest).layers[2].kv_heads
        )
        model.attention[2].out.weight[:, :width] = 0
    importance = measure_importance(model, [batch(name)])
    assert importance.ffn[1][0] == 0
    assert importance.heads[2][0] == 0
    assert (importance.ffn[1] == 0).sum() == 1
    reorder(model, importance)
    assert not model.ffn[1].down.weight[:, -1].any()
    assert not model.attention[2].out.weight[:, -width:].any()


def test_a_score_is_the_first_order_change_of_the_loss():
    """Activation times gradient of each token, against finite differences."""
    model = supernet("vit").double()
    images, labels = (tensor[:1] for tensor in batch("vit"))
    images = images.double()
    importance = measure_importance(model, [(images, labels)])

    def loss(scale, token):
        def scaled(_, inputs):
            x = inputs[0].clone()
            x[:, token, 3] *= scale
            return (x, *inputs[1:])

        handle = model.ffn[1].down.register_forward_pre_hook(scaled)
        logits = model(images, model.space.largest).detach()  # with gradients, so elastic layers
        handle.remove()
        return torch.nn.functional.cross_entropy(logits, labels)

    step = 1e-6
    slopes = [
        (loss(1 + step, token) - loss(1 - step, token)).item() / (2 * step)
        for token in range(model.space.tokens)
    ]
    assert importance.ffn[1][3] == pytest.approx(sum(map(abs, slopes)), rel=1e-5)


def test_equal_scores_keep_their_order():
    model = supernet("vit")
    before = {name: value.clone() for name, value in model.named_parameters()}
    importance = Importance(
        embed=torch.ones(12), heads=(torch.ones(3),) * 3, ffn=(torch.ones(10),) * 3
    )
    reorder(model, importance)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
