"""What lies beside an exported model so that it can be used: a script that runs it, a tokenizer."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nas.atomic import write_text
from nas.tasks import Task

SCRIPTS = {"image-classification": "classify", "language-modelling": "generate"}
"""Of `nas.deploy`, by kind of task."""


def write_companions(task: Task, folder: Path, stem: str | None = None) -> dict[str, str]:
    """Write the files that an export needs beside it.

    Args:
        task: What the model was trained for.
        folder: Where the model lies.
        stem: Name of the model, when the files are for it alone; None for one set that all models
            of a folder share.

    Returns:
        Entries for the JSON of a model: `script`, and `tokenizer_file` where there is one.
    """
    script = SCRIPTS[task.kind]
    written = {"script": f"{stem}_{script}.py" if stem else f"{script}.py"}
    text = (files("nas") / "deploy" / f"{script}.py").read_text(encoding="utf-8")
    write_text(folder / written["script"], text)
    if task.tokenizer_json is not None:
        written["tokenizer_file"] = f"{stem}.tokenizer.json" if stem else "tokenizer.json"
        write_text(folder / written["tokenizer_file"], task.tokenizer_json)
    return written
