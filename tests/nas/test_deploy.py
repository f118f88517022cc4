"""The scripts beside an export give what the subnet gives inside the supernet."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latency.export import write_network
from latency.graphs import GraphLibrary
from latency.onnxruntime_session import WITHOUT_VNNI, local_config, session_config
from nas.deploy.classify import Classifier, read_image
from nas.deploy.generate import Generator
from nas.stages.companions import write_companions
from nas.tasks import build_task
from search_spaces import DecoderSpace, VisionTransformerSpace
from supernet.families import build_supernet

RUNTIME = {
    "provider": "CPUExecutionProvider",
    "intra_op_num_threads": 1,
    "session_config": session_config(spinning=False),
    "session_config_without_vnni": WITHOUT_VNNI,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return GraphLibrary(tmp_path_factory.mktemp("parts"))


def exported(folder, space, task, library):
    """Export the largest subnet with random weights and all that lies beside it."""
    torch.manual_seed(0)
    model = build_supernet(space).eval()
    network = model.extract(space.largest).network()
    write_network(network, folder / "s00.onnx", library=library, facts={})
    inputs = [{"name": port.name, "shape": list(port.shape)} for port in network.inputs]
    how = {"runtime": RUNTIME, "inputs": inputs, "task": task.record}
    (folder / "s00.json").write_text(json.dumps({**how, **write_companions(task, folder)}))
    return model


def runs_as_measured(session):
    """Whether a session has the options that it was measured with on this processor."""
    options, given = session.get_session_options(), {}
    for name in (*RUNTIME["session_config"], *WITHOUT_VNNI):
        with suppress(RuntimeError):  # that it was not given
            given[name] = options.get_session_config_entry(name)
    return given == local_config(spinning=False)


def processor_with(flags):
    """In place of `Path.read_bytes`: the system says so of its processor."""
    read = Path.read_bytes
    return lambda path: flags.encode() if str(path) == "/proc/cpuinfo" else read(path)


def run(folder, *arguments):
    """A script in an interpreter that finds nothing of this project."""
    command = [sys.executable, "-I", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "eel"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (11, 13, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_fed_as_in_training(tmp_path, library, photos, channels, monkeypatch):
    task = build_task("image-classification", data=str(photos), image_size=8, channels=channels)
    space = VisionTransformerSpace(
        embed=[8],
        depth=[2],
        heads=[2],
        ffn=[8],
        head_dim=4,
        patch_size=4,
        image_size=8,
        channels=channels,
        num_classes=task.num_classes,
    )
    model = exported(tmp_path, space, task, library)
    files = sorted(photos.rglob("*.png"))
    for flags in ("avx2", "avx2 avx_vnni"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", processor_with(flags))
            patch.setattr("latency.host_facts.cpuinfo", flags.strip)
            assert runs_as_measured(Classifier(tmp_path / "s00.onnx").session)
    classify = Classifier(tmp_path / "s00.onnx")
    assert runs_as_measured(classify.session)
    logits = classify.logits(
        np.stack([read_image(file, image_size=8, channels=channels) for file in files])
    )
    # The task has the same images, shuffled into its splits.
    expected = []
    with torch.no_grad():
        for split in ("train", "validation", "test"):
            expected += [model(images, space.largest).numpy() for images, _ in task.split(split)]
    expected = np.concatenate(expected)
    assert len(expected) == len(logits)
    distances = np.abs(logits[:, None] - expected[None]).max(axis=2)
    assert sorted(distances.argmin(axis=1)) == list(range(len(files)))
    assert distances.min(axis=1).max() < 1e-4

    shares = classify(files[0])
    assert list(shares) == [task.record["classes"][i] for i in np.argsort(-logits[0])]
    assert sum(shares.values()) == pytest.approx(1)
    (tmp_path / "bad.png").write_text("no image")
    done = run(tmp_path, "classify.py", "s00.onnx", "bad.png")
    assert done.stderr.startswith("classify.py: bad.png cannot be read: ")
    assert len(done.stderr.splitlines()) == 1
    done = run(tmp_path, "classify.py", "s00.onnx", str(files[0]))
    best = next(iter(shares))
    assert done.stdout.startswith(f"{files[0]}: {best} {100 * shares[best]:.1f} %"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_text_is_continued_as_without_a_cache(tmp_path, library, tokenizer):
    words = np.random.default_rng(0).choice(["net ", "größe ", "token ", "and\n"], size=900)
    (tmp_path / "text.txt").write_text("".join(words), encoding="utf-8")
    task = build_task(
        "language-modelling",
        data=str(tmp_path / "text.txt"),
        tokenizer=tokenizer,
        vocabulary=None if tokenizer == "bytes" else 264,
        context=24,
        evaluation_tokens=64,
    )
    space = DecoderSpace(
        embed=[8],
        depth=[3],
        heads=[4],
        ffn=[8],
        head_dim=4,
        group=2,
        vocabulary=task.num_classes,
        context=24,
    )
    model = exported(tmp_path, space, task, library)
    generate = Generator(tmp_path / "s00.onnx")
    assert runs_as_measured(generate.session)
    tokens = generate.encode("größe net")
    (expected,) = task.tokenizer.encode(["größe net".encode()])
    assert tokens == expected.tolist()
    assert generate.decode(tokens) == "größe net"
    start = len(tokens)
    with torch.no_grad():
        while len(tokens) < 24:
            tokens.append(int(model(torch.tensor([tokens]), space.largest)[0, -1].argmax()))
    written = generate("größe net", tokens=100, temperature=0)
    assert written == generate.decode(tokens[start:])
    assert generate("größe net", tokens=3, temperature=0) == generate.decode(
        tokens[start : start + 3]
    )
    assert generate("größe net", seed=1) == generate("größe net", seed=1)
    done = run(tmp_path, "generate.py", "s00.onnx", "größe net", "5")
    assert done.stdout.startswith("größe net"), done.stderr


@pytest.mark.parametrize("script", ["classify.py", "generate.py"])
def test_a_mistake_is_told_in_one_line(tmp_path, photos, script):
    task = build_task("image-classification", data=str(photos), image_size=8, channels=1)
    write_companions(task, tmp_path)
    text = build_task("language-modelling", data="stdlib", max_bytes=100_000, context=8)
    assert write_companions(text, tmp_path) == {"script": "generate.py"}
    for arguments in ((), ("nosuch.onnx", "x")):
        done = run(tmp_path, script, *arguments)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "nosuch.json" in done.stderr if arguments else "usage" in done.stderr
