"""Texts for language models: Python's standard library, or text files of the user's own."""

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas.tasks.partition import by_size
from nas.tasks.task import SPLITS, SplitName
from search_spaces.errors import UserError

SUFFIXES = (".md", ".py", ".rst", ".txt")
"""What is read from a folder. A file that is named itself may be called anything."""

# Tests are not what the library is, installed packages differ between machines, and generated
# tables (code pages, help texts) are neither source nor, being alike, fair to split by file.
_NOT_STDLIB_FOLDERS = {
    "__pycache__", "dist-packages", "encodings", "idle_test", "pydoc_data", "site-packages",
    "test", "tests",
}  # fmt: skip
_NOT_STDLIB_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")

Unit = Literal["file", "part of a file"]


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text, valid UTF-8."""

    name: str
    """Path below the corpus, with forward slashes; of a part, followed by its byte range."""
    data: bytes


def read_corpus(data: str, *, max_bytes: int | None = None) -> tuple[Document, ...]:
    """Read the texts of `data`, sorted by name; empty ones and copies of others are left out.

    Args:
        data: "stdlib" for the sources of the running Python's standard library; else a text file,
            or a folder whose files in `SUFFIXES` are read, at any depth, hidden ones excepted.
        max_bytes: Take at most this many bytes: documents in an order given by the sha256 of
            their names, so that the sample is spread over the corpus, the last one cut short.

    Raises:
        UserError: Nothing there to read, or a text that is not UTF-8.
    """
    if data == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        paths = _python_sources(root)
    else:
        root = Path(data).expanduser()
        if root.is_dir():
            paths = [path for path in _walk(root, set()) if path.suffix.lower() in SUFFIXES]
        elif root.is_file():
            root, paths = root.parent, [root]
        else:
            raise UserError(
                f"task.data {root} does not exist; name a text file, a folder of text files, "
                "or stdlib"
            )
    if not paths:
        raise UserError(
            f"task.data {root} holds no text files ({', '.join(SUFFIXES)}); add some, or name "
            "one file"
        )
    documents, seen = [], set()
    for path in paths:
        text = _read(path)
        key = hashlib.sha256(text).digest()
        if text and key not in seen:
            seen.add(key)
            documents.append(Document(name=path.relative_to(root).as_posix(), data=text))
    if not documents:
        raise UserError(f"task.data {data} holds no text, only empty files; add some text")
    if max_bytes is not None:
        documents = _limit(documents, max_bytes)
    return tuple(sorted(documents, key=lambda document: document.name))


def split_documents(
    documents: Sequence[Document], fractions: Mapping[SplitName, float], *, seed: int
) -> tuple[dict[SplitName, tuple[Document, ...]], Unit]:
    """Split texts so that no document is in two splits, if there are enough documents for it.

    Where whole documents leave a split less than half its share (a single file always does), every
    document is cut into three contiguous parts instead: train, validation, test.

    Args:
        documents: At least one.
        fractions: Fraction of the bytes of each split.
        seed: Seed of the deal; cutting uses none.

    Returns:
        Documents of each split, and the unit that was split.
    """
    total = sum(len(document.data) for document in documents)
    dealt = by_size([len(document.data) for document in documents], fractions, seed=seed)
    parts = {name: tuple(documents[i] for i in dealt[name]) for name in SPLITS}
    if all(
        sum(len(document.data) for document in parts[name]) >= fractions[name] * total / 2
        for name in SPLITS
    ):
        return parts, "file"
    cut = [_cut(document, [fractions[name] for name in SPLITS]) for document in documents]
    return {
        name: tuple(pieces[i] for pieces in cut if pieces[i].data) for i, name in enumerate(SPLITS)
    }, "part of a file"


def corpus_digest(documents: Iterable[Document]) -> str:
    """Return the sha256 of names and texts, as 64 hex digits."""
    sha = hashlib.sha256()
    for document in documents:
        sha.update(f"{document.name}\0{len(document.data)}\0".encode())
        sha.update(document.data)
    return sha.hexdigest()


def _walk(root: Path, without: set[str]) -> list[Path]:
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name[0] != "." and name not in without]
        found += [Path(folder, name) for name in files if name[0] != "."]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _python_sources(root: Path) -> list[Path]:
    return [
        path
        for path in _walk(root, _NOT_STDLIB_FOLDERS)
        if path.suffix == ".py" and not path.name.startswith(_NOT_STDLIB_FILES)
    ]


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes()
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"text file {path} is not UTF-8 at byte offset {error.start} "
            f"(0x{error.object[error.start]:02x}); convert it to UTF-8 or remove it"
        ) from error
    except OSError as error:
        raise UserError(f"text file {path} cannot be read ({error.strerror}); check it") from error
    return text


def _limit(documents: list[Document], max_bytes: int) -> list[Document]:
    taken, left = [], max_bytes
    for document in sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest()):
        end = _boundary(document.data, left)
        if end < len(document.data):
            if end:
                name = f"{document.name}[0:{end}]"
                taken.append(Document(name=name, data=document.data[:end]))
            break
        taken.append(document)
        left -= end
    return taken


def _cut(document: Document, fractions: Sequence[float]) -> list[Document]:
    text, start, share, parts = document.data, 0, 0.0, []
    for fraction in fractions:
        share += fraction
        end = _boundary(text, round(share * len(text)))
        name = f"{document.name}[{start}:{end}]"
        parts.append(Document(name=name, data=text[start:end]))
        start = end
    return parts


def _boundary(text: bytes, position: int) -> int:
    """Return the last position up to `position` where no UTF-8 character is cut."""
    if position >= len(text):
        return len(text)
    while position > 0 and text[position] & 0xC0 == 0x80:
        position -= 1
    return position
