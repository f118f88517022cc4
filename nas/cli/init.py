"""`nas init`: a commented configuration to start from."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

from nas.atomic import write_text
from nas.cli.streams import print_text
from nas.cli.template_values import with_values
from search_spaces.errors import UserError


def init(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write a template.

    Raises:
        UserError: The file exists, or cannot be written, or the checkpoint cannot be used.
    """
    text = template(arguments.task)
    if arguments.pretrained is not None:
        # Here, since it imports torch, which the templates alone do not need.
        from nas.cli.from_pretrained import pretrained_values

        text = with_values(text, pretrained_values(arguments.task, arguments.pretrained))
    if arguments.output == "-":
        if arguments.json:
            return {"task": arguments.task, "yaml": text}
        print_text(text.rstrip("\n"))
        return {}
    path = Path(arguments.output or f"{arguments.task}.yaml")
    if path.exists():
        raise UserError(f"{path} exists and is kept; name another file with --output")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    # Its comments name the file that it is.
    write_text(path, text.replace(f"nas run {arguments.task}.yaml", f"nas run {path}"))
    return {"configuration": str(path), "next": f"nas run {path}"}


def template(task: str) -> str:
    """Return the commented YAML of a task.

    Args:
        task: One of `nas.cli.commands.TEMPLATES`.
    """
    return (files("nas") / "templates" / f"{task}.yaml").read_text(encoding="utf-8")
