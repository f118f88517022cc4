"""What names a model file: a digest of its bytes.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def model_sha256(path: Path) -> str:
    """SHA-256 of a model, 64 hex digits.

    Of a folder (an `.mlpackage` is one): of the names and digests of its files, in order.

    Raises:
        OSError: It is not readable.
    """
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path).as_posix()} {model_sha256(file)}\n".encode())
    return digest.hexdigest()
