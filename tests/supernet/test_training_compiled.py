import pytest
import torch

from search_spaces import VisionTransformerSpace
from supernet.compilation import CompiledEnds
from supernet.families import build_supernet
from supernet.gradients import SharedGradients
from supernet.sandwich import sandwich, sandwich_step


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler uses what it deprecates
def test_the_ends_are_compiled_once_and_train_as_eager_ones_do() -> None:
    space = VisionTransformerSpace(
        image_size=4,
        patch_size=2,
        channels=1,
        num_classes=3,
        head_dim=2,
        embed=(4, 6, 8),
        depth=(1, 2),
        heads=(1, 2),
        ffn=(4, 8),
    )
    torch.manual_seed(0)
    model = build_supernet(space)
    gradients = SharedGradients(model.parameters())
    optimizer = torch.optim.SGD(gradients.parameters, lr=0.0)
    inputs, targets = torch.randn(4, 1, 4, 4), torch.randint(3, (4,))
    compiled = CompiledEnds(model, space)
    torch._dynamo.utils.counters.clear()
    for step in range(12):
        architectures = sandwich(space, seed=0, step=step)
        eager = sandwich_step(model, gradients, optimizer, inputs, targets, architectures)
        expected = gradients.buffer.clone()
        result = sandwich_step(compiled, gradients, optimizer, inputs, targets, architectures)
        assert result.losses == pytest.approx(eager.losses, rel=1e-4)
        torch.testing.assert_close(gradients.buffer, expected, rtol=1e-3, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
