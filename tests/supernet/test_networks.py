"""Law 1 for both families: a subnet inside the supernet is the module extracted from it."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import DecoderSpace, VisionTransformerSpace
from supernet import sharing
from supernet.families import build_supernet
from supernet.gradients import SharedGradients
from supernet.sharing import REMEMBERED

torch.set_num_threads(1)

VISION = {
    "image_size": 6,
    "patch_size": 2,
    "channels": 2,
    "num_classes": 5,
    "head_dim": 3,
    "embed": (5, 8, 12),
    "depth": (1, 2, 3, 4),
    "heads": (1, 2, 4),
    "ffn": (3, 8, 14),
}
TEXT = {
    "vocabulary": 19,
    "context": 12,
    "head_dim": 4,
    "embed": (5, 8, 12),
    "depth": (1, 2, 3),
    "heads": (2, 4, 8),
    "ffn": (3, 8, 14),
}
SPACES = {
    "cls": VisionTransformerSpace(**VISION, pooling="cls"),
    "mean": VisionTransformerSpace(**VISION, pooling="mean", drop_order=(0, 2, 1, 3)),
    "full heads": DecoderSpace(**TEXT, group=1),
    "grouped heads": DecoderSpace(**TEXT, group=2, drop_order=(0, 2, 1)),
    # Large, so that a layer that has not heard of it gives something else
    "cls, epsilon": VisionTransformerSpace(**VISION, norm_epsilon=2.0),
    "heads, epsilon and base": DecoderSpace(**TEXT, norm_epsilon=2.0, rotary_base=7.0),
}
NAMES = pytest.mark.parametrize("name", SPACES)
TEXTS = pytest.mark.parametrize("name", ["full heads", "grouped heads"])
# Without gradients a subnet runs as a plain module on shared weights, with them as elastic layers.
MODES = pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
_SUPERNETS = {}


@pytest.fixture(autouse=True, scope="module")
def build_at_once():
    """Let a subnet run as a plain module from its first call on, if it may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "WORTH_BUILDING", 1)
        yield


def supernet(name, fresh=False):
    """A supernet whose every weight and bias is a random number, in evaluation mode."""
    if name not in _SUPERNETS or fresh:
        model = build_supernet(SPACES[name])
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        model.eval()
        if fresh:
            return model
        _SUPERNETS[name] = model
    return _SUPERNETS[name]


def inputs(space, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    if space.family == "decoder":
        return torch.randint(space.vocabulary, (2, 9), generator=generator)
    shape = (3, space.channels, space.image_size, space.image_size)
    return torch.randn(shape, generator=generator).to(dtype)


def architectures(space):
    genes = st.tuples(*(st.integers(0, n - 1) for n in space.cardinalities.tolist()))
    return genes.map(space.decode)


def logits(plain, x):
    found = plain(x)
    return found if isinstance(found, torch.Tensor) else found[0]


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@NAMES
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_subnet_is_the_module_extracted_from_it(name, data):
    space, model = SPACES[name], supernet(name)
    arch = data.draw(architectures(space))
    x = inputs(space)
    plain = model.extract(arch)
    assert not plain.training
    with torch.no_grad():
        expected = logits(plain, x)
        close(model(x, arch), expected)
        close(model(x, arch), expected)  # as remembered
    close(model(x, arch), expected)  # with gradients
    with torch.inference_mode():
        close(model(x, arch), expected)
    assert expected.abs().max() > 1e-3


def neighbours(space):
    """The largest and the smallest with one gene changed, every choice of every gene."""
    for end in (space.largest, space.smallest):
        genes = space.encode(end)
        for column, count in enumerate(space.cardinalities.tolist()):
            for index in range(count):
                moved = genes.copy()
                moved[column] = index
                yield space.decode(moved)


@NAMES
@MODES
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_every_elastic_dimension(name, mode, train):
    space, model = SPACES[name], supernet(name, fresh=True).train(train)
    x = inputs(space)
    outputs = {}
    for arch in set(neighbours(space)):
        with mode():
            outputs[arch] = model(x, arch).detach()
        with torch.no_grad():
            close(outputs[arch], logits(model.extract(arch), x))
    # No two of them compute the same: every gene that counts matters.
    flat = torch.stack([out.flatten() for out in outputs.values()])
    distances = torch.cdist(flat, flat) + 10 * torch.eye(len(flat))
    assert distances.min() > 1e-3


@NAMES
def test_in_double_precision(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    x = inputs(space)
    with torch.no_grad():
        single = {arch: model(x, arch) for arch in space.uniform(4)}
    model.double()
    x = inputs(space, dtype=torch.float64)
    for arch, before in single.items():
        with torch.no_grad():
            found = model(x, arch)
            expected = logits(model.extract(arch), x)
        assert found.dtype == torch.float64
        close(found, before.double(), 1e-4)
        close(found, expected, 1e-12)


@NAMES
@MODES
def test_under_autocast(name, mode):
    space, model = SPACES[name], supernet(name)
    x = inputs(space)
    with mode(), torch.autocast("cpu", torch.bfloat16):
        for arch in space.uniform(4):
            for _ in range(2):
                close(model(x, arch), logits(model.extract(arch), x))


# What a prefix is, without asking the code that makes it.


@NAMES
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_heads_ffn_and_depth_are_what_remains_when_the_rest_is_silent(name, data):
    """Zero what the dropped part writes to the residual stream: the largest gives the same."""
    space, model = SPACES[name], supernet(name, fresh=True)
    arch = data.draw(architectures(space))
    arch = space.architecture({**space.largest, **arch, "embed": max(space.choices["embed"])})
    subnet = space.subnet(arch)
    x = inputs(space)
    found = model(x, arch)
    with torch.no_grad():
        kept = {layer.index: layer for layer in subnet.layers}
        for index in range(space.max_depth):
            out, down = model.attention[index].out, model.ffn[index].down
            layer = kept.get(index)
            out.weight[:, layer.heads * space.head_dim if layer else 0 :] = 0
            down.weight[:, layer.ffn if layer else 0 :] = 0
            if layer is None and out.bias is not None:
                out.bias.zero_()
                down.bias.zero_()
        close(model(x, space.largest), found)


@NAMES
def test_extracted_weights_are_leading_parts_of_the_right_layers(name):
    space, model = SPACES[name], supernet(name)
    arch = space.uniform(4)[1]
    subnet = space.subnet(arch)
    plain = model.extract(arch)
    indices = [layer.index for layer in subnet.layers]
    assert indices != list(range(space.max_depth))
    for place, layer in enumerate(subnet.layers):
        rows = layer.kv_heads * (space.group + 2) * space.head_dim
        found, source = plain.attention[place].qkv.weight, model.attention[layer.index].qkv.weight
        assert torch.equal(found, source[:rows, : subnet.embed])
        found, source = plain.ffn[place].up.weight, model.ffn[layer.index].up.weight
        assert torch.equal(found, source[: layer.ffn, : subnet.embed])
        found, source = plain.ffn[place].norm.weight, model.ffn[layer.index].norm.weight
        assert torch.equal(found, source[: subnet.embed])
    assert torch.equal(plain.head.linear.weight, model.head.linear.weight[:, : subnet.embed])
    cost = space.cost(arch)
    assert sum(parameter.numel() for parameter in plain.parameters()) == cost.parameters


# State: none but the weights.


@NAMES
def test_interleaved_architectures_do_not_disturb_each_other(name):
    space, model = SPACES[name], supernet(name)
    several = list(space.uniform(4))
    x, y = inputs(space), inputs(space, seed=1)
    alone = {}
    for arch in several:
        with torch.no_grad():
            alone[arch] = model.extract(arch)
            alone[arch] = (logits(alone[arch], x), logits(alone[arch], y))
    for order in (several, several[::-1], several[::2] + several[1::2]):
        for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
            for arch in order:
                with mode():
                    close(model(x, arch), alone[arch][0])
                    close(model(y, arch), alone[arch][1])
    with torch.no_grad():
        first = model(x, several[0])
        model(x, several[-1])
        assert torch.equal(model(x, several[0]), first)


def add_noise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)


def load_other_weights(model):
    model.load_state_dict({n: t * 0.5 + 0.01 for n, t in model.state_dict().items()})


def assign_other_weights(model):
    state = {n: t * 0.5 + 0.01 for n, t in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def train_a_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(inputs(model.space), model.space.largest).square().mean().backward()
    optimizer.step()
    model.zero_grad()


def replace_one_at_a_time(model):
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter.detach() + 0.1))


def replace_vectors(model):
    """Biases and norms, but no matrix."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data = parameter.data + 0.1


def cast_and_back(model):
    model.double().float()
    add_noise(model)


def replace_one(model):
    model.head.linear.weight = torch.nn.Parameter(model.head.linear.weight.detach() + 0.1)


CHANGES = (
    add_noise,
    cast_and_back,
    replace_one,
    load_other_weights,
    assign_other_weights,
    train_a_step,
    replace_one_at_a_time,
    replace_vectors,
)


@NAMES
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES)
def test_remembered_subnets_follow_the_weights(name, change, mode):
    space, model = SPACES[name], supernet(name, fresh=True)
    x = inputs(space)
    several = space.uniform(3)
    with mode():
        before = {arch: model(x, arch) for arch in several}
    change(model)
    for arch in several:
        with mode():
            found = model(x, arch)
            close(found, logits(model.extract(arch), x))
            assert not torch.equal(found, before[arch])
        close(found, model(x, arch))  # with gradients


@NAMES
def test_a_deep_copy_lives_alone(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    x = inputs(space)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            before = model(x, space.smallest)
        other = copy.deepcopy(model)
        add_noise(other)
        with mode():
            assert torch.equal(model(x, space.smallest), before)
            changed = other(x, space.smallest)
            close(changed, logits(other.extract(space.smallest), x))
        assert not torch.equal(changed, before)


@NAMES
def test_an_extracted_module_keeps_its_weights(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    x = inputs(space)
    plain = model.extract(space.smallest)
    pointers = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert not pointers & {p.untyped_storage().data_ptr() for p in plain.parameters()}
    with torch.no_grad():
        before = logits(plain, x)
    add_noise(model)
    with torch.no_grad():
        assert torch.equal(logits(plain, x), before)


@NAMES
def test_extracted_modules_hold_nothing_elastic(name):
    for arch in SPACES[name].uniform(3):
        for module in supernet(name).extract(arch).modules():
            kinds = type(module).__mro__
            assert not any("lastic" in kind.__module__ + kind.__qualname__ for kind in kinds)


@NAMES
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_is_extracted_can_be_trained(name, mode):
    space, model = SPACES[name], supernet(name)
    with mode():
        plain = model.extract(space.smallest)
    logits(plain, inputs(space)).sum().backward()
    for parameter in plain.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad.shape == parameter.shape


@NAMES
def test_extraction_draws_no_random_numbers(name):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    supernet(name).extract(SPACES[name].largest)
    assert torch.equal(torch.rand(3), expected)


@NAMES
def test_shared_modules_have_no_memory_of_their_own_and_no_gradients(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    names = set(model.state_dict())
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    with torch.inference_mode():
        plain = model.shared(space.smallest)
    assert model.shared(space.smallest) is plain
    assert type(plain) is type(model.extract(space.smallest))
    for parameter in plain.parameters():
        assert parameter.untyped_storage().data_ptr() in storages
        assert not parameter.requires_grad
    assert set(model.state_dict()) == names
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in plain.parameters())


@NAMES
def test_few_shared_modules_are_remembered(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    several = list(dict.fromkeys(neighbours(space)))[: REMEMBERED + 1]
    assert len(several) == REMEMBERED + 1
    first = model.shared(several[0])
    for arch in several[1:-1]:
        model.shared(arch)
    assert model.shared(several[0]) is first
    second = model.shared(several[1])
    model.shared(several[-1])  # one too many: forgets the one not used for longest
    model.shared(several[2])
    assert model.shared(several[0]) is first
    assert model.shared(several[1]) is second
    assert len(model._remembered._modules) == REMEMBERED


@NAMES
def test_a_plain_module_is_built_when_it_pays(name, monkeypatch):
    monkeypatch.setattr(sharing, "WORTH_BUILDING", 3)
    space, model = SPACES[name], supernet(name, fresh=True)
    x = inputs(space)
    with torch.no_grad():
        for count in (0, 0, 1, 1):
            close(model(x, space.smallest), logits(model.extract(space.smallest), x))
            assert len(model._remembered._modules) == count


@NAMES
def test_weights_that_moved_are_let_go(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    for arch in space.uniform(3):
        model.shared(arch)
    model.double()
    model.shared(space.smallest)
    assert len(model._remembered._modules) == 1


@NAMES
def test_weights_from_outside(name):
    """As `torch.func.functional_call` puts them in: tensors that are no parameters."""
    space, model = SPACES[name], supernet(name, fresh=True)
    x, arch = inputs(space), space.smallest
    others = {n: t.detach() * 0.5 + 0.01 for n, t in model.named_parameters()}
    with torch.no_grad():
        before = model(x, arch)
        found = torch.func.functional_call(model, others, (x, arch))
        assert torch.equal(model(x, arch), before)
        model.load_state_dict(others, strict=False)
        close(model(x, arch), found)


@TEXTS
def test_remembered_subnets_follow_the_buffers(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    x, arch = inputs(space), space.largest
    with torch.no_grad():
        before = model(x, arch)
        model.stem.rotary.cos = model.stem.rotary.cos * 0.5
        found = model(x, arch)
    assert not torch.equal(found, before)
    close(found, model(x, arch))


@NAMES
def test_a_saved_supernet_remembers_nothing(name):
    space, model = SPACES[name], supernet(name, fresh=True)
    model.shared(space.smallest)
    again = pickle.loads(pickle.dumps(model))
    assert not again._remembered._modules
    with torch.no_grad():
        close(again(inputs(space), space.smallest), model(inputs(space), space.smallest))


@NAMES
def test_networks_say_what_their_parts_do(name):
    """The list of parts, run one after the other, is the module."""
    space, model = SPACES[name], supernet(name)
    for arch in space.uniform(3):
        plain = model.extract(arch)
        network = plain.network()
        x = inputs(space)
        feeds = {network.inputs[0].name: x}
        for port in network.inputs[1:]:
            batch, heads, _, width = port.shape
            assert batch == "batch"
            feeds[port.name] = torch.zeros(len(x), heads, 0, width)
        values = network.run(feeds)
        with torch.no_grad():
            expected = model.outputs(arch, *feeds.values())
        assert len(expected) == len(network.outputs)
        for port, tensor in zip(network.outputs, expected, strict=True):
            close(values[port.name], tensor)
            sizes = {"batch": len(x), "sequence": x.shape[1], "total": x.shape[1]}
            shape = [sizes[size] if isinstance(size, str) else size for size in port.shape]
            assert list(values[port.name].shape) == shape


# Gradients.


@NAMES
@pytest.mark.parametrize("shared", [False, True], ids=["autograd", "shared"])
def test_gradients_touch_the_subnets_own_part_only(name, shared):
    space, model = SPACES[name], supernet(name, fresh=True)
    gradients = SharedGradients(model.parameters()) if shared else None
    x = inputs(space)
    for arch in space.uniform(4):
        plain = model.extract(arch)
        logits(plain, x).square().mean().backward()
        if gradients is None:
            model.zero_grad(set_to_none=True)
            model(x, arch).square().mean().backward()
        else:
            gradients.clear()
            with gradients.collect():
                loss = model(x, arch).square().mean()
            loss.backward()
        layers = [layer.index for layer in space.subnet(arch).layers]
        own = {}
        for place, parameter in plain.named_parameters():
            owner, *rest = place.split(".")
            if rest[0].isdigit():
                rest[0] = str(layers[int(rest[0])])
            own[".".join([owner, *rest])] = parameter.grad
        for place, parameter in model.named_parameters():
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            expected = torch.zeros_like(parameter)
            if place in own:
                part = tuple(slice(0, size) for size in own[place].shape)
                expected[part] = own[place]
                assert own[place].abs().max() > 0
            close(found, expected)


# Decoding with a key/value cache.


@TEXTS
@MODES
@pytest.mark.parametrize("chunks", [(1,) * 9, (5, 1, 1, 2), (8, 1), (9,)], ids=str)
def test_decoding_piece_by_piece_is_the_full_forward(name, mode, chunks):
    space, model = SPACES[name], supernet(name)
    tokens = inputs(space)
    for arch in space.uniform(3):
        plain = model.extract(arch)
        with mode():
            full = model(tokens, arch)
            assert full.shape == (2, 9, space.vocabulary)
            for step in (lambda x, past, arch=arch: model.decode(x, arch, past), plain_step(plain)):
                past, pieces = (), []
                for piece in tokens.split(chunks, dim=1):
                    out, *past = step(piece, tuple(past))
                    pieces.append(out)
                close(torch.cat(pieces, dim=1), full)
            _, *whole = plain(tokens)
        assert len(past) == len(whole) == 2 * arch["depth"]
        for layer, cached in zip(
            [layer for layer in space.subnet(arch).layers for _ in range(2)], past, strict=True
        ):
            assert cached.shape == (2, layer.kv_heads, 9, space.head_dim)
        for found, expected in zip(past, whole, strict=True):
            close(found, expected)


def plain_step(plain):
    return lambda tokens, past: plain(tokens, *past)


@TEXTS
@MODES
def test_an_empty_cache_is_no_cache(name, mode):
    space, model = SPACES[name], supernet(name)
    tokens = inputs(space)
    arch = space.largest
    empty = [
        torch.zeros(2, layer.kv_heads, 0, space.head_dim)
        for layer in space.subnet(arch).layers
        for _ in range(2)
    ]
    with mode():
        close(model.decode(tokens, arch, empty)[0], model(tokens, arch))
        close(model.extract(arch)(tokens, *empty)[0], model(tokens, arch))


@TEXTS
@MODES
def test_a_token_does_not_see_what_comes_after_it(name, mode):
    space, model = SPACES[name], supernet(name)
    tokens = inputs(space)
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % space.vocabulary
    with mode():
        for arch in space.uniform(3):
            found, expected = model(changed, arch), model(tokens, arch)
            close(found[:, :5], expected[:, :5])
            assert (found[:, 5:] - expected[:, 5:]).abs().max() > 1e-3


@TEXTS
def test_the_whole_context_can_be_used_and_no_more(name):
    space, model = SPACES[name], supernet(name)
    tokens = torch.zeros(1, space.context, dtype=torch.int64)
    with torch.no_grad():
        assert model(tokens, space.smallest).shape == (1, space.context, space.vocabulary)
        with pytest.raises((ValueError, RuntimeError)):
            model(torch.zeros(1, space.context + 2, dtype=torch.int64), space.smallest)


def test_grouped_heads_share_their_keys():
    space = SPACES["grouped heads"]
    _, key, *_ = supernet("grouped heads").extract(space.largest)(inputs(space))
    assert key.shape[1] == max(space.choices["heads.0"]) // 2


# Exporters.


@NAMES
@pytest.mark.slow
def test_extracted_modules_are_exported_with_a_free_batch(name):
    space, model = SPACES[name], supernet(name)
    x = inputs(space)
    for arch in space.uniform(4)[2:3]:
        plain = model.extract(arch)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(plain, (x,), dynamic_shapes=({0: batch},))
        more = torch.cat([x, x, x[:1]])
        with torch.no_grad():
            close(logits(program.module(), more), model(more, arch))


def test_no_supernet_of_an_unknown_space():
    with pytest.raises(TypeError, match="no supernet for int"):
        build_supernet(3)


def test_every_normalisation_has_the_epsilon_of_the_space():
    for name in ("cls, epsilon", "heads, epsilon and base"):
        model = supernet(name)
        for module in (model, model.extract(SPACES[name].largest)):
            norms = [part for part in module.modules() if hasattr(part, "eps")]
            assert len(norms) == 2 * SPACES[name].max_depth + 1
            assert {norm.eps for norm in norms} == {2.0}


def test_the_base_of_positions_is_that_of_the_space():
    space = SPACES["heads, epsilon and base"]
    rotary = supernet("heads, epsilon and base").stem.rotary
    frequencies = 7.0 ** (-torch.arange(0, space.head_dim, 2) / space.head_dim)
    torch.testing.assert_close(rotary.cos[3], (3 * frequencies).cos())
