"""Images from a folder with a sub-folder for each class, or from three such folders."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.deploy.classify import read_image
from nas.tasks.image_data import ImageData
from nas.tasks.task import SplitName
from search_spaces.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SPLIT_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
_LAYOUT = "lay it out as <folder>/<class>/<image>.png"
_LIMIT_BYTES = 8 << 30  # all images are held in memory


def read_folder(root: Path, *, image_size: int, channels: int) -> ImageData:
    """Read `root/<class>/**/<image>`, or the same below `root/train`, `val(idation)`, `test`.

    Images are turned upright (EXIF), converted to grey or RGB (transparency is dropped) and resized
    to a square, bilinear with antialiasing; the aspect is not kept. Names that begin with a dot are
    skipped, as are files whose suffix is not in `SUFFIXES`. Classes and files are sorted by name.

    Args:
        root: The folder. It counts as split by the user when `root/train` holds folders only.
        image_size: Side of the result, pixels.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: A folder is missing or empty, fewer than two classes, an unreadable image.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"task.data {root} {what}; name a folder of images ({_LAYOUT}), or digits")
    places = _split_folders(root)
    classes = tuple(path.name for path in _folders(places.get("train", root)))
    if len(classes) < 2:
        raise UserError(
            f"image folder {places.get('train', root)} has {len(classes)} class folders, and at "
            f"least 2 are needed; {_LAYOUT}"
        )
    files: list[tuple[Path, int]] = []
    given: dict[SplitName, NDArray[np.int64]] = {}
    ignored = 0
    unsplit: list[tuple[SplitName | None, Path]] = [(None, root)]
    for name, place in places.items() or unsplit:
        start = len(files)
        for folder in _folders(place):
            if folder.name not in classes:
                raise UserError(
                    f"class folder {folder} has no counterpart in {places['train']}; add one with "
                    "training images, or remove it"
                )
            images, others = _image_files(folder)
            ignored += others
            files += [(path, classes.index(folder.name)) for path in images]
        if name is not None:
            given[name] = np.arange(start, len(files))
            if len(given[name]) < 2:
                raise UserError(
                    f"image folder {place} holds {len(given[name])} images, and a split needs at "
                    f"least 2; {_LAYOUT}, or remove it to have {name} drawn from train"
                )
    size = len(files) * channels * image_size**2
    if size > _LIMIT_BYTES:
        raise UserError(
            f"task.data {root} takes {size / 2**30:.1f} GiB at task.image_size {image_size}, above "
            f"the limit of {_LIMIT_BYTES >> 30} GiB; lower task.image_size or use fewer images"
        )
    pixels = np.empty((len(files), channels, image_size, image_size), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata that is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, (path, _) in enumerate(files):
            pixels[index] = _read(path, image_size=image_size, channels=channels)
    return ImageData(
        images=pixels,
        labels=np.array([label for _, label in files], dtype=np.int64),
        classes=classes,
        full_scale=255,
        given=given,
        ignored_files=ignored,
    )


def _folders(path: Path) -> list[Path]:
    found = (entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    return sorted(found, key=lambda entry: entry.name)


def _split_folders(root: Path) -> dict[SplitName, Path]:
    train = root / "train"
    # A class may be called "train": it then holds images, where a split holds class folders.
    if not train.is_dir() or not _folders(train) or _is_image_folder(train):
        return {}
    places: dict[SplitName, Path] = {}
    for split, names in _SPLIT_FOLDERS.items():
        present = [root / name for name in names if (root / name).is_dir()]
        if len(present) > 1:
            raise UserError(
                f"image folder {root} has both {' and '.join(path.name for path in present)} for "
                "the validation split; keep one of them"
            )
        if present:
            places[split] = present[0]
    others = [path.name for path in _folders(root) if path not in places.values()]
    if others:
        raise UserError(
            f"image folder {root} has train and also {others[0]}, which is neither validation nor "
            "test; move it into a split, or remove it"
        )
    return places


def _is_image_folder(path: Path) -> bool:
    return any(entry.suffix.lower() in SUFFIXES for entry in path.iterdir() if entry.is_file())


def _image_files(folder: Path) -> tuple[list[Path], int]:
    """Return the images below a class folder, sorted, and the number of other files."""
    files = [
        path
        for path in sorted(folder.rglob("*"), key=lambda path: path.parts)
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(
            f"class folder {folder} holds no images ({', '.join(SUFFIXES)}); add some, or remove it"
        )
    return images, len(files) - len(images)


def _read(path: Path, *, image_size: int, channels: int) -> NDArray[np.uint8]:
    """Return one image, uint8 `(channels, image_size, image_size)`."""
    try:
        return read_image(path, image_size=image_size, channels=channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    except Image.DecompressionBombWarning as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"image {path} cannot be read ({reason}); replace or remove it")
