"""Load and check the stage files of a run directory.

Any file may be missing, as in a run that is not finished: its part of `RunData` is then None or
empty. Nothing is ever written here.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from nas.run_directory import short
from reports.stages import Device, Front, Importance, RunData, Search, Supernet, Table, TrainingStep
from search_spaces.errors import UserError

SCHEMA = 1

_T = TypeVar("_T")


def load_run(directory: Path, device_suffix: str = "") -> RunData:
    """Read the stage files of one device.

    Args:
        directory: A run directory.
        device_suffix: "" for the first device of the directory, else the name in `front.NAME.json`.

    Raises:
        UserError: No stage has left anything for this device yet, or a file is no JSON, has another
            schema or lacks a key.
    """
    tail = f".{device_suffix}.json" if device_suffix else ".json"
    front_path = directory / f"front{tail}"
    front = _load(front_path, Front)
    search_path = directory / f"search{tail}"
    if not search_path.exists():
        search_path = directory / f"search-unfinished{tail}"
    search = _load(search_path, Search)
    table = _load(directory / f"table{tail}", Table)
    training = tuple(_training(directory / "training.jsonl"))
    if search is not None:
        _check_search(search_path, search)
    config_path = directory / "config.yaml"
    config_text = _text(config_path)
    config = _yaml(config_path, config_text)
    if front is None:
        if search is None and table is None and (device_suffix or not training):
            raise UserError(
                f"{short(front_path)} does not exist, nor does what an earlier stage leaves; start "
                "with nas run"
            )
        name = device_suffix or str(config.get("device") or "")
        front = Front(
            device=table.device if table else Device(name=name),
            objectives=search.objectives if search else [],
            subnets=[],
            exported=False,
        )
    _check_lengths(front_path, front)
    return RunData(
        front=front,
        search=search,
        table=table,
        supernet=_load(directory / "supernet.json", Supernet),
        training=training,
        environment=_json(directory / "environment.json"),
        splits=_json(directory / "splits.json"),
        config_text=config_text,
        config=config,
    )


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{short(path)}: cannot be read ({error}); restore or delete it") from None


def _json(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        return None
    try:
        # NaN and infinity, which JSON does not have, are values that are not known
        value = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{short(path)}: not JSON ({error}); delete it and run its stage again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{short(path)}: holds no JSON object; delete it and run its stage again")
    return value


def _load(path: Path, kind: type[_T]) -> _T | None:
    value = _json(path)
    if value is None:
        return None
    if value.get("schema") != SCHEMA:
        raise UserError(
            f"{short(path)}: schema {value.get('schema')!r} is not {SCHEMA}; "
            "use the version of elastic-nas that wrote it, or run its stage again"
        )
    try:
        checked: _T = _adapter(cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{short(path)}: {where}: {first['msg']}; run its stage again") from None
    return checked


def _check_lengths(path: Path, front: Front) -> None:
    for subnet in front.subnets:
        if subnet.values and len(subnet.values) != len(front.objectives):
            raise UserError(
                f"{short(path)}: subnet {subnet.name} has {len(subnet.values)} values for "
                f"{len(front.objectives)} objectives; run the export stage again"
            )


def _check_search(path: Path, search: Search) -> None:
    for point in (*search.evaluated, *search.references):
        if len(point.values) != len(search.objectives):
            raise UserError(
                f"{short(path)}: an architecture has {len(point.values)} values for "
                f"{len(search.objectives)} objectives; run the search again"
            )
    count = len(search.evaluated)
    for index in (*search.front, *search.selected):
        if not 0 <= index < count:
            raise UserError(
                f"{short(path)}: front index {index} is not below {count}; search again"
            )
    if search.importance is not None:
        _check_importance(path, search.importance)


def _check_importance(path: Path, found: Importance) -> None:
    for kind, genes in found.kinds.items():
        for shares in found.objectives.values():
            there = kind in shares.kinds and set(genes) <= set(shares.genes)
            if not (there and set(genes) <= set(found.choices)):
                raise UserError(
                    f"{short(path)}: importance lacks a gene of {kind}; run the search again"
                )


def _yaml(path: Path, text: str | None) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text or "")
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{short(path)}: not YAML ({reason}); restore it or delete it") from None
    return value if isinstance(value, dict) else {}


def _training(path: Path) -> Iterator[TrainingStep]:
    """The last line of each step, in order; lines torn by a kill while writing are left out."""
    steps: dict[int, TrainingStep] = {}
    for line in (_text(path) or "").splitlines():
        try:
            step = _adapter(TrainingStep).validate_json(line)
        except ValidationError:
            continue
        steps[step.step] = step
    yield from (steps[number] for number in sorted(steps))
