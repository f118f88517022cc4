"""What is wrong with a configuration, in one line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nas.config.model import FAMILIES, Config
from nas.config.sections import (
    AugmentConfig,
    ClusterConfig,
    DecoderSpaceConfig,
    ImageTaskConfig,
    LanguageTaskConfig,
    LatencyConfig,
    SearchConfig,
    TrainingConfig,
    VisionSpaceConfig,
    WorkloadConfig,
)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list, such as [1, 2]",
    "list_type": "a list, such as [1, 2]",
    "model_attributes_type": "a section of keys",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "union_tag_not_found": "a section with its kind",
    "too_short": "at least {min_length} long",
    "string_too_short": "some text",
    "too_long": "at most {max_length} long",
    "missing": "there",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:.10g}",
    "literal_error": "one of {expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "string_pattern_mismatch": "a plain name of letters, digits and underscores",
}
_TAGS = {*FAMILIES, *FAMILIES.values()}


def describe(
    error: ValidationError, data: Mapping[str, Any], source: str, overridden: Sequence[str]
) -> str:
    """Say in one line what is wrong first: an unknown key before all else.

    Args:
        error: What pydantic found.
        data: What it was given.
        source: The file, for the message.
        overridden: Dotted keys that were given on the command line instead.
    """
    problems = error.errors(include_url=False)
    problems.sort(
        key=lambda problem: (problem["loc"] != ("task",), problem["type"] != "extra_forbidden")
    )
    problem = problems[0]
    key = _dotted(problem["loc"])
    line = _sentence(problem, key, data)
    more = len(problems) - 1
    # Without a known kind of task nothing else can be checked: the rest follows from it.
    if more and key != "task":
        line += f" (and {more} more {'problem' if more == 1 else 'problems'})"
    where = "command line" if any(_related(key, name) for name in overridden) else source
    if not key and overridden:
        where = f"{source} with the command line"
    return " ".join(f"{where}: {line}".split())


def _related(key: str, overridden: str) -> bool:
    """Whether a key lies in what an override gave, or the other way round."""
    inner, outer = (key, overridden) if len(key) >= len(overridden) else (overridden, key)
    return bool(outer) and inner.startswith(outer) and inner[len(outer) :][:1] in ("", ".", "[")


def known_keys(data: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return every dotted key that a configuration of this kind of task may have.

    Args:
        data: A configuration, right or wrong; its `task.kind` decides.
    """
    task = data.get("task")
    kind = task.get("kind") if isinstance(task, Mapping) else None
    language = kind == "language-modelling"
    keys = dict(_fields("", Config))
    keys.update(_fields("task.", LanguageTaskConfig if language else ImageTaskConfig))
    keys.update(_fields("space.", DecoderSpaceConfig if language else VisionSpaceConfig))
    if not language:
        keys.update(_fields("task.augment.", AugmentConfig))
    keys.update(_fields("training.", TrainingConfig))
    keys.update(_fields("latency.", LatencyConfig))
    keys.update(_fields("search.", SearchConfig))
    keys.update(_fields("cluster.", ClusterConfig))
    workloads = data.get("workloads")
    for name in workloads if isinstance(workloads, Mapping) else ():
        keys.update(_fields(f"workloads.{name}.", WorkloadConfig))
    return keys


def _fields(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field


def _dotted(location: Sequence[int | str]) -> str:
    """Write a location as people do: no union tags, and indices in brackets."""
    text = ""
    for position, part in enumerate(location):
        if (position == 1 and part in _TAGS and location[0] in ("task", "space")) or (
            part == "[key]"
        ):
            continue
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _sentence(problem: ErrorDetails, key: str, data: Mapping[str, Any]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key} is not a known key; {_suggestion(key, known_keys(data))}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key += "." + str(context["discriminator"]).strip("'")
        if kind == "union_tag_not_found" and isinstance(problem["input"], Mapping):
            tags = FAMILIES if key.startswith("task") else FAMILIES.values()
            return f"{key} is missing; it must be one of {', '.join(tags)}"
    if kind == "missing":
        field = known_keys(data).get(key)
        return f"{key} is missing; add it: {field.description if field else 'a value is needed'}"
    if kind == "value_error":
        message = str(context["error"])
        return f"{key} is {shown(problem['input'])}: it {message}" if key else message
    value = context.get("tag", problem["input"])
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**context).replace("'", "")
        if kind == "string_type" and isinstance(value, (bool, int, float)):
            expected += f', so put it in quotes: "{value}"'
        return f"{key} is {shown(value)}; it must be {expected}"
    return f"{key} is {shown(value)}: {problem['msg']}"


def _suggestion(key: str, known: Mapping[str, FieldInfo]) -> str:
    """Name the nearest known key: beside it, then of its last name anywhere, then all beside."""
    section, _, name = key.rpartition(".")
    prefix = f"{section}." if section else ""
    beside = [
        other.removeprefix(prefix)
        for other in known
        if other.startswith(prefix) and "." not in other.removeprefix(prefix)
    ]
    near = difflib.get_close_matches(name, beside, n=1, cutoff=0.7)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    if not elsewhere:
        others = [other for other in known if other != section]  # which it is in already
        elsewhere = difflib.get_close_matches(key, others, n=1, cutoff=0.85)
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    if beside:
        return f"known here: {', '.join(beside)}"
    return "`nas init` writes a configuration with all keys"


def shown(value: Any) -> str:
    """Show a value as YAML would, short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
