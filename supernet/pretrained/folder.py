"""A folder that `save_pretrained` wrote: which files are read of it, and what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from search_spaces.errors import UserError

CONFIG: Final = "config.json"
IMAGES: Final = "preprocessor_config.json"
TOKENIZER: Final = "tokenizer.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class PretrainedFolder:
    """The files of a checkpoint. Tensors are read when they are asked for."""

    path: Path
    """The folder."""
    config: Mapping[str, Any]
    """What `config.json` holds."""

    @classmethod
    def open(cls, path: Path) -> PretrainedFolder:
        """Read `config.json`.

        Raises:
            UserError: It is no folder, or there is no such file in it.
        """
        if not path.is_dir():
            raise UserError(
                f"training.pretrained {path} is not a folder; give one that save_pretrained wrote, "
                "with config.json and model.safetensors (nothing is downloaded)"
            )
        return cls(path=path, config=_read_json(path / CONFIG))

    @property
    def source(self) -> Path:
        """The file that settings come from, for messages."""
        return self.path / CONFIG

    @property
    def tokenizer(self) -> Path | None:
        """Its tokenizer, if there is one."""
        path = self.path / TOKENIZER
        return path if path.is_file() else None

    @cached_property
    def images(self) -> Mapping[str, Any] | None:
        """What `preprocessor_config.json` holds, if there is one."""
        path = self.path / IMAGES
        return _read_json(path) if path.is_file() else None

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files with the weights: one, or those that an index names.

        Raises:
            UserError: There are none, or pickles only; or the index is damaged.
        """
        index = self.path / INDEX
        if (self.path / WEIGHTS).is_file():
            return (self.path / WEIGHTS,)
        if index.is_file():
            names = _read_json(index).get("weight_map")
            plain = isinstance(names, dict) and all(
                isinstance(name, str) and name == Path(name).name and name not in ("", ".", "..")
                for name in names.values()
            )
            if not plain or not names:
                raise UserError(
                    f"{index} does not map tensors to files of its folder; {_SAVE_AGAIN}"
                )
            return tuple(self.path / name for name in sorted(set(names.values())))
        for name in PICKLES:
            if (self.path / name).is_file():
                raise UserError(
                    f"{self.path} has its weights in {name}, a pickle, which may run code and is "
                    "never loaded; save it again as safetensors, with "
                    "save_pretrained(FOLDER, safe_serialization=True)"
                )
        raise UserError(f"{self.path} has neither {WEIGHTS} nor {INDEX}; {_SAVE_AGAIN}")

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over settings and weights: all that the supernet starts from."""
        digest = hashlib.sha256()
        for path in (self.source, self.path / IMAGES, *self.files):
            if not path.is_file() and path.name == IMAGES:
                continue
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}; {_SAVE_AGAIN}") from None
            digest.update(f"{path.name} {content}\n".encode())
        return digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, on the CPU, in fp32.

        Raises:
            UserError: A file is missing or damaged, or a tensor has another type or is not finite.
        """
        found: dict[str, Tensor] = {}
        for path in self.files:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        tensor = file.get_tensor(name)
                        if tensor.dtype not in FLOATS:
                            raise UserError(
                                f"tensor {name!r} in {path} is of type "
                                f"{str(tensor.dtype).removeprefix('torch.')}; float32, float16 "
                                "and bfloat16 are read, so save it in one of these"
                            )
                        if not tensor.isfinite().all():
                            raise UserError(
                                f"tensor {name!r} in {path} holds NaN or infinity, which nothing "
                                "can be tuned from; take a checkpoint from before it diverged"
                            )
                        # Copied, or a view of the mapped file would change when the file does.
                        found[name] = tensor.to(torch.float32, copy=True)
            except (OSError, SafetensorError) as error:
                missing = "" if path.is_file() else "missing, "
                raise UserError(
                    f"{path} is {missing}damaged or not a safetensors file ({error}); {_SAVE_AGAIN}"
                ) from error
        return found


_SAVE_AGAIN: Final = "copy it again, or write the folder again with save_pretrained"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; give a folder that save_pretrained wrote"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {_SAVE_AGAIN}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested too deep
        raise UserError(f"{path} is not valid JSON ({error}); {_SAVE_AGAIN}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a JSON object; {_SAVE_AGAIN}")
    return found
