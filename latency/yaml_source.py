"""YAML with the two habits that configurations need: no key twice, and 1e-3 is a number."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import yaml

from search_spaces.errors import UserError


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses what YAML would settle in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key, str):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key} is there twice, first in line {seen[key]}; keep one",
                    key_node.start_mark,
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Lists in one line, sections in many."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def represent_scalar(self, tag: str, value: Any, style: str | None = None) -> yaml.ScalarNode:
        # Only double quotes keep every character: the others fold rare line breaks.
        if isinstance(value, str) and not value.isprintable():
            style = '"'
        return super().represent_scalar(tag, value, style)


# YAML 1.1 reads 1e-3 as text, since it wants a point; everybody else reads a number. The dumper
# knows it too, so that it quotes a name such as 1e3.
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML.

    Args:
        text: One YAML document.
        source: Where it comes from, for messages.

    Raises:
        UserError: A syntax error or a key that occurs twice, with its line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark is not None else source
        raise UserError(f"{where}: {_one_line(error.problem or 'not valid YAML')}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{source} is not valid YAML: {_one_line(reason)}") from None


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Write YAML that people like to read and `parse_yaml` reads back equal."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())
