"""Writing a file whole or not at all."""

import os
from pathlib import Path

from latency.database import storage_errors


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        UserError: The disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".tmp")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
