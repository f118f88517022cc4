"""Checkpoints: tensors as safetensors, all else as JSON, never a pickle; written atomically.

A finished supernet is two files, `supernet.safetensors` and `supernet.json`. The JSON is written
last and holds the hash of the tensors and the space, so that a pair that does not belong together
is noticed.
A training that goes on later is one file, with its JSON in the header of the safetensors file.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from search_spaces.errors import UserError

SCHEMA: Final = 1
"""Version of both formats; a reader refuses a later one."""

_HEADER_KEY: Final = "json"


def save_supernet(path: Path, model: nn.Module, info: Mapping[str, Any]) -> str:
    """Write the weights of `model` to `path` and what is known about them to the JSON beside it.

    Args:
        path: The safetensors file; the JSON has the same name with the suffix `.json`.
        model: The supernet; its `.space` gives `family` and `space` of the JSON.
        info: Further entries, such as `sanity`, `warnings` and `training`.

    Returns:
        The content hash (64 hex digits) over tensors and space, which names the supernet elsewhere.

    Raises:
        UserError: A file cannot be written; what was there before is still there.
    """
    tensors = named_tensors(model)
    space = model.space.to_json()  # type: ignore[operator, union-attr]
    digest = content_hash(tensors, space)
    record = {
        **info,
        "schema": SCHEMA,
        "family": model.space.family,  # type: ignore[union-attr]
        "space": space,
        "hash": digest,
    }
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    _replace(path, lambda temporary: save_file(tensors, temporary, {"hash": digest}))
    _replace(path.with_suffix(".json"), lambda temporary: temporary.write_text(text, "utf-8"))
    return digest


def load_supernet(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a supernet that `save_supernet` wrote, and check that it is whole.

    Args:
        path: The safetensors file.

    Returns:
        Tensors by name, on the CPU, and the JSON as it was written (`info` and `schema`, `family`,
        `space`, `hash`). `load_weights` gives the tensors to a model.

    Raises:
        UserError: A file is missing, damaged, of a later schema, or the two do not belong together.
    """
    json_path = path.with_suffix(".json")
    info = _read_json(json_path)
    for key in ("hash", "space", "family"):
        if key not in info:
            raise UserError(f"{json_path} has no entry {key!r}; {_AGAIN}")
    tensors, _ = _read_safetensors(path)
    found = content_hash(tensors, info["space"])
    if found != info["hash"]:
        raise UserError(
            f"{path} and {json_path} do not belong together: the content hash is {found[:16]}, "
            f"{str(info['hash'])[:16]} was written; {_AGAIN}"
        )
    return tensors, info


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Copy `tensors` into `model`, which must have exactly these names and shapes.

    Args:
        model: Takes the values, on the device and in the dtype that it has.
        tensors: By name, as `load_supernet` gives them.
        source: The file that they come from, for messages.

    Raises:
        UserError: A tensor is missing, unknown, or of another shape. The model is then unchanged.
    """
    targets = named_tensors(model)
    hint = "open it with the configuration that it was trained with, or train again"
    if missing := sorted(targets.keys() - tensors.keys()):
        raise UserError(f"{source} has no tensor {missing[0]!r} ({len(missing)} missing); {hint}")
    if unknown := sorted(tensors.keys() - targets.keys()):
        raise UserError(
            f"{source} has a tensor {unknown[0]!r} that the model lacks ({len(unknown)} such); "
            f"{hint}"
        )
    for name, target in targets.items():
        if tensors[name].shape != target.shape:
            raise UserError(
                f"tensor {name!r} in {source} has shape {tuple(tensors[name].shape)}, "
                f"the model wants {tuple(target.shape)}; {hint}"
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def save_training(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write the state of a training as one safetensors file.

    Args:
        path: The file; replaced in one move.
        tensors: By name, on any device; every name once.
        info: JSON values, kept in the header.

    Raises:
        UserError: The file cannot be written; what was there before is still there.
    """
    header = {_HEADER_KEY: json.dumps({**info, "schema": SCHEMA}, allow_nan=False)}
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    _replace(path, lambda temporary: save_file(contiguous, temporary, header))


def load_training(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_training` wrote: tensors on the CPU, and the JSON.

    Raises:
        UserError: The file is missing, damaged, or not a training checkpoint.
    """
    tensors, header = _read_safetensors(path)
    if _HEADER_KEY not in header:
        raise UserError(f"{path} is not a training checkpoint; delete it to start again")
    return tensors, _parse_json(header[_HEADER_KEY], path)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of `model`, a shared one under its first name only."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def content_hash(tensors: Mapping[str, Tensor], space: Mapping[str, Any]) -> str:
    """sha256 (hex) over the space's JSON and, by name, dtypes, shapes and bytes of the tensors."""
    digest = hashlib.sha256(json.dumps(space, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


_AGAIN: Final = "restore it from a copy, or delete both files and train again"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, and put it on stable storage in the place of `path`."""
    # Always the same name: what a killed process left is overwritten, and does not pile up.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors writes files that nobody else may read
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename itself, not only the content, must survive a crash
        finally:
            os.close(directory)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {path}: {error}; free space or choose another output directory "
            "(what was saved before is unchanged)"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; train first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            # Cloned, because a view of the mapped file would change when the file does.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is damaged or not a safetensors file ({error}); "
            "restore it from a copy, or delete it and train again"
        ) from error
    return tensors, header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; train first, or check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; {_AGAIN}") from error
    return _parse_json(text, path)


def _parse_json(text: str, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {_AGAIN}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} must hold a JSON object; {_AGAIN}")
    schema = record.get("schema")
    if schema != SCHEMA:
        raise UserError(
            f"{path} has schema {schema!r}, this version reads {SCHEMA}; update elastic-nas"
        )
    return record
