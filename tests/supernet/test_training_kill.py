"""SIGKILL at random moments, resumed each time: the same weights, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path

import torch

from search_spaces import VisionTransformerSpace
from supernet.checkpoint import content_hash, load_training, named_tensors
from supernet.families import build_supernet
from supernet.training import Trainer

torch.set_num_threads(1)
widths = dict(
    image_size=4, patch_size=2, channels=1, num_classes=3, head_dim=2,
    embed=(4, 8), depth=(1, 2), heads=(1, 2), ffn=(4, 8),
)
space = VisionTransformerSpace(**widths)
policies = VisionTransformerSpace(**widths, precision=("fp32", "w8a8", "w4"))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(4, 1, 4, 4, generator=generator)
    return images, torch.randint(3, (4,), generator=generator)


def train(path, result, steps=15):
    torch.manual_seed(0)
    model = build_supernet(space)
    Trainer(
        model, batch, steps=steps, warmup_steps=4, learning_rate=1e-2, ema=0.9, precision="fp32",
        checkpoint_path=path, checkpoint_every_s=0.01, policies=policies, policy_steps=10,
    ).run()
    result.write_text(content_hash(named_tensors(model), {}))


def child(path, result):
    pid = os.fork()
    if pid == 0:
        train(path, result)
        os._exit(0)
    return pid


folder = Path(sys.argv[1])
# The first training in a process imports for seconds; here, not in each child.
train(folder / "first.safetensors", folder / "first", steps=5)
alone = folder / "alone"
start = time.monotonic()
os.waitpid(child(folder / "alone.safetensors", alone), 0)
alone_s = time.monotonic() - start
path, result = folder / "killed.safetensors", folder / "killed"
rng = random.Random(0)
kills, resumed_at = 0, set()
deadline = time.monotonic() + 60
while not result.exists() and time.monotonic() < deadline:
    pid = child(path, result)
    # The first two cannot get to the end; later ones, on a machine that got slower, shall.
    time.sleep(rng.uniform(0.0, 0.4 * alone_s + 0.02 * kills))
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and not result.exists():
        kills += 1
        if path.exists():
            resumed_at.add(load_training(path)[1]["step"])
left = sorted(file.name for file in folder.iterdir() if file.name.endswith(".tmp"))
print(alone.read_text(), result.read_text(), kills, len(resumed_at), len(left))
"""


@pytest.mark.slow
def test_killed_at_random_moments_ends_bit_identical(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone, killed, kills, resumed_at, left = done.stdout.split()
    assert alone == killed
    assert int(kills) >= 2
    assert int(resumed_at) >= 1
    assert int(left) <= 1  # what a killed process left is used again, and does not pile up
