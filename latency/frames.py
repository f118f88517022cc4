"""Frames on a link: what arrives is what was sent, or an error.

A frame is a header (magic, protocol version, kind, length, digest) and a body of JSON or of raw
bytes. Garbage, a torn frame and a flipped bit are detected and never taken for a message.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any, Union

VERSION = 1
"""Raised with every change of frames or messages: both ends are of one version."""
MAX_BYTES = 64 * 1024**2
"""Largest body. A session of 9 models is about 0.3 MB of JSON."""
CHUNK_BYTES = 256 * 1024
"""Body of one frame of a file on its way."""
MAX_PREAMBLE_BYTES = 64 * 1024
"""What a login shell may print (a banner, say) before the first frame."""

_MAGIC = b"eNAS"
_HEADER = struct.Struct(">4sBcI16s")

Frame = Union[dict[str, Any], bytes]


class FrameError(Exception):
    """The bytes are no frames; the link is of no use any more."""


def pack(message: Mapping[str, Any] | bytes) -> bytes:
    """A message, JSON-able or raw, as a frame.

    Raises:
        ValueError: It is larger than `MAX_BYTES`.
    """
    raw = isinstance(message, bytes)
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    if len(body) > MAX_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is over the limit of {MAX_BYTES}")
    kind = b"B" if raw else b"J"
    return _HEADER.pack(_MAGIC, VERSION, kind, len(body), _digest(kind, body)) + body


class FrameReader:
    """Takes bytes in pieces of any size and gives whole frames."""

    def __init__(self, *, preamble: bool = False) -> None:
        """Start on an empty buffer.

        Args:
            preamble: Whether to skip what stands before the first frame.
        """
        self._buffer = bytearray()
        self._preamble = preamble

    def feed(self, data: bytes) -> None:
        """Append what arrived."""
        self._buffer += data

    def next(self) -> Frame | None:
        """The next frame: a dict for JSON, bytes for raw; None while it is not whole.

        Raises:
            FrameError: The bytes are no frame of this version, or were changed on their way.
        """
        if self._preamble and not self._skip():
            return None
        buffer = self._buffer
        if bytes(buffer[: len(_MAGIC)]) != _MAGIC[: len(buffer)]:
            raise FrameError(f"garbage in place of a frame: {bytes(buffer[:40])!r}")
        if len(buffer) < _HEADER.size:
            return None
        _, version, kind, length, digest = _HEADER.unpack_from(buffer)
        if version != VERSION:
            raise FrameError(f"the other end speaks version {version}, this one {VERSION}")
        if length > MAX_BYTES:
            raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_BYTES}")
        end = _HEADER.size + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[_HEADER.size : end])
        if _digest(kind, body) != digest:
            raise FrameError("a frame was changed on its way")
        del buffer[:end]
        if kind == b"B":
            return body
        message = json.loads(body)
        if not isinstance(message, dict):
            raise FrameError(f"a message is not an object: {body[:40]!r}")
        return message

    def _skip(self) -> bool:
        """Drop what stands before the first frame; whether that frame has begun."""
        start = self._buffer.find(_MAGIC)
        if start < 0 and len(self._buffer) > MAX_PREAMBLE_BYTES:
            raise FrameError(
                f"{len(self._buffer)} bytes and no frame: {bytes(self._buffer[:40])!r}"
            )
        if start < 0:
            return False
        del self._buffer[:start]
        self._preamble = False
        return True


def _digest(kind: bytes, body: bytes) -> bytes:
    return hashlib.sha256(kind + body).digest()[:16]
