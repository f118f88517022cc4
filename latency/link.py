"""The near end of the link to an agent: one request, one reply, or an error."""

from __future__ import annotations

import hashlib
import time
from textwrap import shorten
from typing import Any, Self

from latency.bundle import BOOTSTRAP, NOT_WRITABLE, TOO_OLD, greeting
from latency.frames import CHUNK_BYTES, Frame, FrameError, FrameReader, pack
from latency.transport import Channel, LinkError, Transport
from search_spaces.errors import UserError

NO_INTERPRETER = (126, 127)
"""Exit codes of a shell that cannot run a command."""
LAST_WORDS = 200
"""Characters of what an agent that ended is quoted with."""


class Link:
    """An agent on a device, ready for requests."""

    def __init__(self, channel: Channel, name: str, silence_s: float) -> None:
        """Wrap a channel; see `connect`."""
        self._channel = channel
        self._name = name
        self._silence_s = silence_s
        self._reader = FrameReader(preamble=True)
        self._requests = 0

    @classmethod
    def connect(cls, transport: Transport, *, folder: str, silence_s: float) -> Self:
        """Copy the agent over and start it.

        Args:
            transport: The device.
            folder: Where the agent and its cache lie there.
            silence_s: Without a word for so long, the link counts as cut.

        Raises:
            LinkError: The device cannot be reached or does not answer.
            UserError: It never will: host key, user, interpreter or folder.
        """
        link = cls(transport.open(BOOTSTRAP), transport.name, silence_s)
        try:
            link._send(greeting(folder))
            link._receive()
        except BaseException:
            link.close(orderly=False)
            raise
        return link

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask the agent for something; see `latency.agent.Agent` for what there is.

        Raises:
            LinkError: The link failed; whether the agent did it is not known.
            UserError: The agent says what has to be done first.
        """
        return self._reply(self._request(do, **arguments))

    def put(self, sha256: str, content: bytes) -> None:
        """Send a file; the agent keeps it if its SHA-256 is `sha256`.

        Raises:
            LinkError: The link failed.
            UserError: The device has no space left.
        """
        number = self._request("put", sha256=sha256, size=len(content))
        for start in range(0, len(content), CHUNK_BYTES):
            self._send(pack(content[start : start + CHUNK_BYTES]))
        self._reply(number)

    def get(self, sha256: str) -> bytes:
        """Fetch a file that the agent keeps.

        Raises:
            LinkError: The link failed, or it is another file.
            UserError: It is not there.
        """
        left = self.call("get", sha256=sha256)["size"]
        content = bytearray()
        while len(content) < left:
            frame = self._frame()
            if not isinstance(frame, bytes):
                raise LinkError("a reply in the middle of a file")
            content += frame
        if hashlib.sha256(content).hexdigest() != sha256:
            raise LinkError(f"file {sha256[:12]} was changed on its way")
        return bytes(content)

    def close(self, *, orderly: bool = True) -> None:
        """End the link; the agent leaves, and finishes a session that it has begun.

        Args:
            orderly: False drops a link that is broken, without waiting for the agent.
        """
        self._channel.close(orderly=orderly)

    def _request(self, do: str, **arguments: Any) -> int:
        self._requests += 1
        self._send(pack({"id": self._requests, "do": do, **arguments}))
        return self._requests

    def _reply(self, number: int) -> dict[str, Any]:
        while (reply := self._receive()).get("alive"):
            self._check(reply, number)
        self._check(reply, number)
        if "refused" in reply:
            raise UserError(f"{self._name}: {reply['refused']}")
        if "failed" in reply:
            raise LinkError(f"the agent failed: {reply['failed']}")
        return reply

    def _check(self, reply: dict[str, Any], number: int) -> None:
        if reply.get("id") != number:
            raise LinkError(f"a reply to request {reply.get('id')} in place of {number}")

    def _send(self, data: bytes) -> None:
        self._channel.send(data, self._silence_s)

    def _receive(self) -> dict[str, Any]:
        frame = self._frame()
        if isinstance(frame, bytes):
            raise LinkError("raw bytes in place of a reply")
        return frame

    def _frame(self) -> Frame:
        limit = time.monotonic() + self._silence_s
        try:
            while (frame := self._reader.next()) is None:
                left_s = limit - time.monotonic()
                if left_s <= 0:
                    raise LinkError(f"no whole frame for {self._silence_s:g} s")
                data = self._channel.receive(left_s)
                if not data:
                    self._ended()
                self._reader.feed(data)
        except FrameError as error:
            raise LinkError(str(error)) from None
        return frame

    def _ended(self) -> None:
        """Say why the agent is gone.

        Raises:
            LinkError: Another try may succeed.
            UserError: None will.
        """
        code, words = self._channel.end()
        words = shorten(words, LAST_WORDS, placeholder="...")
        if code in NO_INTERPRETER:
            raise UserError(
                f"{self._name} has no such Python ({words}); install Python 3.9 or newer there, "
                "or set python in the device profile"
            )
        if code in (TOO_OLD, NOT_WRITABLE):
            mend = "python" if code == TOO_OLD else "folder"
            raise UserError(f"{self._name}: {words}; set {mend} in the device profile")
        known = "" if code is None else f" with exit code {code}"
        raise LinkError(": ".join(filter(None, [f"the agent ended{known}", words])))
