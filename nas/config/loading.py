"""From a file and overrides to a `Config`, with one line for whatever is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latency.default_workloads import workloads_for
from latency.devices import find_profile
from latency.yaml_source import parse_yaml
from nas.config.messages import describe
from nas.config.model import Config
from nas.config.sections import LanguageTaskConfig
from search_spaces.errors import UserError

CONFIG_FILE = "config.yaml"
"""The resolved configuration in a run directory."""
DEFAULT_DEVICE: str = Config.model_fields["device"].default
DEFAULT_CONTEXT: int = LanguageTaskConfig.model_fields["context"].default


def load_config(
    path: Path | str, overrides: Sequence[str] = (), device: str | None = None
) -> Config:
    """Load a configuration.

    Relative paths in it (`output`, `task.data`) start at the current directory. Where `path` is a
    run directory, its own configuration is loaded and `output` is that directory, wherever it
    has been moved to.

    Args:
        path: A YAML file, or a run directory.
        overrides: Dotted keys with YAML values, such as `training.steps=100`; later ones win.
        device: Device that is used in place of the file's: workloads that nothing names are
            those of its profile.

    Raises:
        UserError: The file is missing or not valid; the message is one line that names the file,
            the key, the value and what to do.
    """
    file = Path(path)
    in_run_directory = file.is_dir()
    if in_run_directory:
        file = file / CONFIG_FILE
    data = _read(file)
    if in_run_directory:
        data["output"] = str(path)
    keys = [_override(data, override) for override in overrides]
    if data.get("workloads") is None and (found := _of_device(data, device)):
        data["workloads"] = found
    return validate(data, str(file), keys)


def _of_device(data: Mapping[str, Any], device: str | None) -> dict[str, dict[str, int]]:
    """The workloads that a run's device has for it; mistakes in `data` are told later."""
    task, name = data.get("task"), device or data.get("device", DEFAULT_DEVICE)
    profile = find_profile(name) if isinstance(name, str) else None
    if profile is None or not isinstance(task, Mapping):
        return {}
    context = None
    if task.get("kind") == "language-modelling":
        context = task.get("context", DEFAULT_CONTEXT)
        context = context if isinstance(context, int) else DEFAULT_CONTEXT
    return workloads_for(profile.workloads, context=context, device=profile.name)


def validate(data: Mapping[str, Any], source: str, overridden: Sequence[str] = ()) -> Config:
    """Turn plain data into a `Config`.

    Args:
        data: What a YAML file holds.
        source: Where it comes from, for messages.
        overridden: Dotted keys that come from the command line instead.

    Raises:
        UserError: Something is wrong, in one line.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise UserError(describe(error, data, source, overridden)) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = (
            "that folder is not a run directory; give a YAML file or a run directory"
            if file.name == CONFIG_FILE and file.parent.is_dir() and file.parent != Path()
            else f"write one with: nas init digits --output {file}"
            if file.suffix in (".yaml", ".yml")
            else "give a YAML file, or the directory of an earlier run"
        )
        raise UserError(f"{file} does not exist; {hint}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; give a YAML file or a run directory") from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; give a readable file") from None
    data = parse_yaml(text, str(file))
    if data is None:
        raise UserError(f"{file} is empty; write one with: nas init digits --output NEW.yaml")
    if not isinstance(data, dict):
        raise UserError(f"{file} holds no keys; it must look like `nas init digits --output -`")
    for key in data:
        if not isinstance(key, str):
            raise UserError(f"{file}: the key {key} is not text; see `nas init digits --output -`")
    return data


def _override(data: dict[str, Any], override: str) -> str:
    """Put an override in its place in `data`, and return its dotted key."""
    key, equals, value = override.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(f"{override} is not an override; write KEY=VALUE, as training.steps=100")
    section = data
    for depth, part in enumerate(parts[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
        below = section[part]
        if not isinstance(below, dict):
            raise UserError(
                f"command line: {key}: {'.'.join(parts[:depth])} is {below!r} and has no keys; "
                "see `nas init digits --output -`"
            )
        section = below
    section[parts[-1]] = parse_yaml(value, f"command line: {key}")
    return key
