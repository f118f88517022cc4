"""Images: batches are pure, splits disjoint, and the loader says what it cannot read."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.tasks import SPLITS, build_task
from nas.tasks.augment import Augmentation
from nas.tasks.image_data import digits as digits_data
from nas.tasks.images import ImageClassification
from nas.tasks.partition import apportion
from nas.tasks.streams import stream
from search_spaces.errors import UserError

OFF = {"shift": 0, "rotate_degrees": 0, "scale": 0}


@pytest.fixture(scope="module")
def digits() -> ImageClassification:
    torch.set_num_threads(1)
    return ImageClassification(batch_size=32)


def write(path: Path, value: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 255, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        write(tmp_path / "data" / "cat" / f"{number}.png", number)
        write(tmp_path / "data" / "dog" / "nested" / f"{number}.jpg", 100 + number)
    (tmp_path / "data" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "data" / "cat" / ".hidden.png").write_text("not an image")
    (tmp_path / "data" / ".cache").mkdir()
    return tmp_path / "data"


def load(folder: Path, **parameters: object) -> ImageClassification:
    task = build_task("image-classification", data=str(folder), **({"channels": 3} | parameters))
    assert isinstance(task, ImageClassification)
    return task


def pixels(task: ImageClassification, name: str) -> set[bytes]:
    return {image.numpy().tobytes() for images, _ in task.split(name) for image in images}


def test_digits_shapes_and_types(digits: ImageClassification) -> None:
    images, labels = digits.batch(0)
    assert images.shape == (32, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.shape == (32,)
    assert labels.dtype == torch.int64
    assert digits.num_classes == 10
    assert digits.steps_per_epoch == -(-digits.record["counts"]["train"] // 32)


def test_batch_is_a_pure_function_of_seed_and_step(digits: ImageClassification) -> None:
    images, labels = digits.batch(7)
    images.zero_()
    images, labels = digits.batch(7)
    for step in (0, 300, 8, 41, 6):
        digits.batch(step)
    list(digits.split("test"))
    torch.rand(3)
    np.random.default_rng(0).random(3)
    again = digits.batch(7)
    other = ImageClassification(batch_size=32).batch(7)
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    assert torch.equal(images, other[0])
    assert torch.equal(labels, other[1])


def test_batch_does_not_depend_on_the_number_of_threads(digits: ImageClassification) -> None:
    one = digits.batch(3)[0]
    torch.set_num_threads(2)
    try:
        assert torch.equal(one, digits.batch(3)[0])
    finally:
        torch.set_num_threads(1)


def test_seeds_differ_in_order_and_share_a_split_seed(digits: ImageClassification) -> None:
    other = ImageClassification(batch_size=32, seed=1, split_seed=0)
    assert other.record == digits.record
    assert not torch.equal(other.batch(0)[1], digits.batch(0)[1])
    assert ImageClassification(seed=1).record["index_sha256"] != digits.record["index_sha256"]


def test_splits_are_disjoint_stratified_and_recorded(digits: ImageClassification) -> None:
    counts = digits.record["counts"]
    assert sum(counts.values()) == 1797
    for name, fraction in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        by_class = np.array(digits.record["counts_by_class"][name])
        assert by_class.sum() == counts[name]
        total = sum(np.array(digits.record["counts_by_class"][other]) for other in SPLITS)
        assert np.all(np.abs(by_class - fraction * total) <= 1)
        assert len(pixels(digits, name)) == counts[name]  # no two digits are the same
    assert not pixels(digits, "train") & pixels(digits, "validation")
    assert not pixels(digits, "train") & pixels(digits, "test")
    assert not pixels(digits, "validation") & pixels(digits, "test")
    assert json.loads(json.dumps(digits.record)) == digits.record


def test_training_batches_hold_train_only_and_each_image_once_an_epoch() -> None:
    task = ImageClassification(augment=OFF, batch_size=100)
    seen = [image.numpy().tobytes() for step in range(22) for image in task.batch(step)[0]]
    train = pixels(task, "train")
    assert set(seen) == train
    for start, end in pairwise(range(0, len(seen), len(train))):
        assert set(seen[start:end]) == train
    labels = {
        image.numpy().tobytes(): int(label) for image, label in zip(*task.batch(5), strict=True)
    }
    for images, targets in task.split("train"):
        for image, target in zip(images, targets, strict=True):
            assert labels.get(image.numpy().tobytes(), int(target)) == int(target)


def test_a_batch_may_be_larger_than_the_training_split(folder: Path) -> None:
    task = load(folder, batch_size=50)
    assert task.batch(2)[0].shape == (50, 3, 8, 8)
    assert task.steps_per_epoch == 1


def test_normalisation_is_that_of_the_training_split(digits: ImageClassification) -> None:
    images = torch.cat([images for images, _ in digits.split("train")])
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std(correction=0)) == pytest.approx(1, abs=1e-5)
    recipe = digits.record["normalisation"]
    raw = (images[0] * recipe["std"][0] + recipe["mean"][0]) * recipe["full_scale"]
    assert torch.allclose(raw, raw.round(), atol=1e-4)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    built_in, original = digits_data(image_size=8, channels=1), load_digits()
    assert np.array_equal(built_in.images[:, 0], original.images)
    assert np.array_equal(built_in.labels, original.target)
    assert built_in.classes == tuple(str(name) for name in original.target_names)


def test_augmentation_off_changes_nothing_and_whole_shifts_are_exact() -> None:
    images = torch.rand(4, 3, 7, 7)
    off = Augmentation.from_mapping(OFF)
    assert torch.allclose(off.warp(images, stream(0, "augment")), images, atol=1e-6)
    assert off.cut(images, stream(0, "augment")) is images
    shift = Augmentation.from_mapping(OFF | {"shift": 1})

    class Right:
        def uniform(self, *_: float, size: tuple[int, int]) -> np.ndarray:
            draws = np.zeros(size)
            draws[2] = -1
            return draws

    moved = shift.warp(images, Right())  # type: ignore[arg-type]
    assert torch.allclose(moved[..., 1:], images[..., :-1], atol=1e-6)
    assert torch.allclose(moved[..., 0], torch.zeros(4, 3, 7), atol=1e-6)
    edge = Augmentation.from_mapping(OFF | {"shift": 1, "fill": "edge"})
    assert torch.allclose(edge.warp(images, Right())[..., 0], images[..., 0], atol=1e-6)  # type: ignore[arg-type]


def test_flip_mirrors_about_half_and_cutout_removes_a_square() -> None:
    images = torch.rand(400, 1, 6, 6) + 0.1
    flipped = Augmentation.from_mapping(OFF | {"flip": True}).warp(images, stream(0, "augment"))
    mirrored = torch.isclose(flipped, images.flip(-1), atol=1e-5).flatten(1).all(1)
    kept = torch.isclose(flipped, images, atol=1e-5).flatten(1).all(1)
    assert torch.all(mirrored ^ kept)
    assert 140 < int(mirrored.sum()) < 260
    cut = Augmentation.from_mapping({"cutout": 2}).cut(images, stream(0, "augment"))
    holes = (cut == 0).sum(dim=(1, 2, 3))
    assert set(holes.tolist()) <= {1, 2, 4}
    assert int(holes.max()) == 4
    assert torch.equal(cut[cut != 0], images[cut != 0])


def test_rotation_keeps_the_centre_and_a_quarter_turn_is_exact() -> None:
    images = torch.rand(1, 1, 5, 5)

    class Quarter:
        def uniform(self, *_: float, size: tuple[int, int]) -> np.ndarray:
            draws = np.zeros(size)
            draws[0] = 1
            return draws

    turned = Augmentation(rotate_degrees=90, shift=0, scale=0).warp(images, Quarter())  # type: ignore[arg-type]
    assert torch.allclose(turned, images.rot90(1, (2, 3)), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 500), st.lists(st.floats(0.01, 1), min_size=1, max_size=3))
def test_apportion_uses_all_and_forgets_none(count: int, shares: list[float]) -> None:
    parts = apportion(count, shares)
    assert sum(parts) == count
    assert min(parts) >= 1


def test_folder_is_read_resized_and_sorted(folder: Path) -> None:
    task = load(folder, image_size=4)
    assert task.record["classes"] == ["cat", "dog"]
    assert task.record["counts"] == {"train": 12, "validation": 4, "test": 4}
    assert task.record["ignored_files"] == 1
    images, labels = next(task.split("test"))
    assert images.shape == (4, 3, 4, 4)
    assert labels.tolist() == [0, 0, 1, 1]
    assert load(folder, image_size=4).record == task.record
    grey = load(folder, image_size=6, channels=1)
    assert next(grey.split("test"))[0].shape == (4, 1, 6, 6)


def test_folder_pixels_are_those_of_the_file(folder: Path) -> None:
    task = load(folder, image_size=6, split=(0.8, 0.1, 0.1))
    recipe = task.record["normalisation"]
    scale = torch.tensor(recipe["std"])[:, None, None]
    mean = torch.tensor(recipe["mean"])[:, None, None]
    known = set()
    for path in sorted((folder / "cat").glob("[0-9].png")):
        image = Image.open(path).resize((6, 6), Image.Resampling.BILINEAR)
        known.add(np.asarray(image).transpose(2, 0, 1).tobytes())
    images, labels = next(task.split("train"))
    raw = ((images * scale + mean) * 255).round().byte()
    assert {image.numpy().tobytes() for image in raw[labels == 0]} <= known


@pytest.mark.parametrize("name", ["val", "validation"])
def test_splits_of_the_folder_are_honoured(tmp_path: Path, name: str) -> None:
    for split, count in (("train", 5), (name, 2), ("test", 3)):
        for number in range(count):
            for kind in ("a", "b"):
                value = hash((split, kind)) % 1000 + number
                write(tmp_path / split / kind / f"{number}.png", value)
    task = load(tmp_path)
    assert task.record["counts"] == {"train": 10, "validation": 4, "test": 6}
    assert task.record["given_by_data"] == ["train", "validation", "test"]


def test_a_missing_split_is_drawn_from_train(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(8):
            for kind in ("a", "b"):
                write(tmp_path / split / kind / f"{number}.png", number)
    task = load(tmp_path)
    assert task.record["counts"] == {"train": 12, "validation": 4, "test": 16}
    assert task.record["images_also_in_train"]["test"] > 0  # the copies do not go unnoticed


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for kind in ("train", "test"):
        for number in range(5):
            write(tmp_path / kind / f"{number}.png", number)
    assert load(tmp_path).record["classes"] == ["test", "train"]


def test_modes_that_pillow_would_spoil(tmp_path: Path) -> None:
    deep = np.full((8, 8), 0x8000, dtype=np.uint16)
    for kind in ("a", "b"):
        for number in range(3):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(deep).save(tmp_path / kind / f"{number}.png")
    assert load(tmp_path, channels=1).record["normalisation"]["mean"] == [128 / 255]
    write(tmp_path / "a" / "palette.gif", 3, mode="P")
    write(tmp_path / "a" / "la.png", 3, mode="LA")
    load(tmp_path, channels=1)
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "a" / "float.tiff")
    with pytest.raises(UserError, match=r"float\.tiff cannot be read \(pixels of 32 bits"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data": "nowhere"}, "task.data nowhere does not exist; name a folder"),
        ({"image_size": 16}, "image_size 16 and task.channels 1 do not fit the digits"),
        ({"channels": 2}, r"task.channels 2 is not 1 \(grey\) or 3"),
        ({"batch_size": 0}, "task.batch_size 0 is not a whole number of 1 or more"),
        ({"batch_size": 2.5}, "task.batch_size 2.5 is not a whole number"),
        ({"seed": -1}, "task.seed -1 is not a whole number of 0 or more"),
        ({"split": (0.5, 0.5)}, "task.split has 2 fractions, not 3; give three"),
        ({"split": (0.7, 0.4, -0.1)}, "task.split gives -0.1 to test, which is not between"),
        ({"split": (0.5, 0.2, 0.2)}, "task.split sums to 0.9, not 1; give three"),
        ({"augment": {"shear": 1}}, "task.augment.shear is not known; choose from cutout"),
        ({"augment": {"scale": 2}}, "task.augment.scale 2 is not between 0 and 0.9"),
        ({"augment": {"shift": -1}}, "task.augment.shift -1 is not between 0 and inf"),
        ({"augment": {"shift": "far"}}, "task.augment.shift 'far' is not of type int or float"),
        ({"augment": {"flip": 1}}, "task.augment.flip 1 is not of type bool"),
        ({"augment": {"fill": "red"}}, "task.augment.fill 'red' is not one of zero, edge"),
        ({"colour": 1}, "task.colour is not a parameter of image-classification; it takes data"),
    ],
)
def test_bad_parameters_are_one_clear_line(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_task("image-classification", **parameters)
    assert "\n" not in str(caught.value)


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match="'speech' is not one of image-classification, language"):
        build_task("speech")


def test_bad_folders_are_one_clear_line(folder: Path) -> None:
    def message(**parameters: object) -> str:
        with pytest.raises(UserError) as caught:
            load(folder, **parameters)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (folder / "bird").mkdir()
    assert f"class folder {folder / 'bird'} holds no images (.bmp" in message()
    write(folder / "bird" / "1.png", 1)
    write(folder / "bird" / "2.png", 2)
    assert "class 'bird' has 2 images to split, but train, validation, test need 3" in message()
    (folder / "bird" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert f"image {folder / 'bird' / '3.png'} cannot be read (" in message()
    whole = (folder / "bird" / "1.png").read_bytes()
    (folder / "bird" / "3.png").write_bytes(whole[: len(whole) // 2])
    assert f"image {folder / 'bird' / '3.png'} cannot be read (" in message()
    (folder / "bird" / "3.png").write_bytes(b"")
    assert f"image {folder / 'bird' / '3.png'} cannot be read (" in message()
    assert "above the limit of 8 GiB; lower task.image_size" in message(image_size=20000)


def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 0 class folders, and at least 2 are needed"):
        load(tmp_path)
    write(tmp_path / "cat" / "1.png", 1)
    with pytest.raises(UserError, match="has 1 class folders, and at least 2 are needed"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"1\.png is not a folder; name a folder of images"):
        load(tmp_path / "cat" / "1.png")


def test_bad_splits_of_a_folder(tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        for kind in ("a", "b"):
            write(tmp_path / split / kind / "1.png", 1)
    with pytest.raises(UserError, match="has both validation and val for the validation split"):
        load(tmp_path)
    (tmp_path / "val").rename(tmp_path / "extra")
    with pytest.raises(UserError, match="has train and also extra, which is neither validation"):
        load(tmp_path)
    (tmp_path / "extra").rename(tmp_path / "test")
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "c")
    with pytest.raises(UserError, match=r"class folder .*c has no counterpart in .*train"):
        load(tmp_path)
    (tmp_path / "test" / "c" / "1.png").unlink()
    (tmp_path / "test" / "c").rmdir()
    with pytest.raises(UserError, match="holds 1 images, and a split needs at least 2"):
        load(tmp_path)


def test_a_share_of_a_split_is_always_the_same_part_of_it(digits: ImageClassification) -> None:
    every = torch.cat([images for images, _ in digits.split("validation")])
    labels = torch.cat([labels for _, labels in digits.split("validation")])
    some = torch.cat([images for images, _ in digits.split("validation", 0.25)])
    part = torch.cat([labels for _, labels in digits.split("validation", 0.25)])
    assert len(some) == round(0.25 * len(every)) == len(part)
    places = [int((every == one).flatten(1).all(dim=1).nonzero()[0, 0]) for one in some]
    assert set(np.diff(places)) <= {3, 4, 5}
    assert torch.equal(labels[places], part)
    assert torch.equal(some, torch.cat([x for x, _ in digits.split("validation", 0.25)]))

    def forward(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10]

    assert digits.metrics(forward, "validation", 1.0) == digits.metrics(forward, "validation")
    quarter = digits.metrics(forward, "validation", 0.25)
    assert quarter["n"] == len(some)
    nats = -torch.log_softmax(some.flatten(1)[:, :10].double(), 1).gather(1, part[:, None])
    assert quarter["cross_entropy"] == pytest.approx(float(nats.mean()), rel=1e-6)
    with pytest.raises(UserError, match=r"are 1, fewer than 2; raise search\.fidelities"):
        digits.metrics(forward, "validation", 1 / len(every))
