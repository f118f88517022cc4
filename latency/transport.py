"""Ways to a device: a program there, and bytes to and from it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from typing import Protocol


class LinkError(Exception):
    """The link to a device failed; another try may succeed."""


class Channel(Protocol):
    """A running program on a device: its stdin, its stdout and its end."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data` to the program's stdin.

        Raises:
            LinkError: The program or the link is gone, or did not take it in time.
        """

    def receive(self, timeout_s: float) -> bytes:
        """What the program wrote to its stdout; empty at its end.

        Raises:
            LinkError: The link is gone, or nothing came in time.
        """

    def end(self) -> tuple[int | None, str]:
        """Exit code of a program that has ended (None if unknown), and its last line on stderr."""

    def close(self, *, orderly: bool = True) -> None:
        """Give up the link: the program sees the end of its stdin. A second call does nothing.

        Args:
            orderly: Whether to give the program a moment to end; a broken link is dropped.
        """


class Transport(Protocol):
    """A device that programs can be started on: this host, one behind SSH, a worker of Ray."""

    @property
    def name(self) -> str:
        """What to call the device in messages."""

    def open(self, program: str) -> Channel:
        """Run a program, the text of a Python script, with the device's interpreter.

        Raises:
            LinkError: The device cannot be reached now.
            UserError: It can never be reached like this: unknown host key, refused user.
        """


class LocalTransport:
    """Another interpreter of this host: a virtual environment with its own runtime, say."""

    name = "this host"

    def __init__(self, python: str) -> None:
        """Name the interpreter; starts nothing."""
        self.python = os.path.expanduser(python)  # noqa: PTH111 - a bare name is looked up in PATH

    def open(self, program: str) -> Channel:
        """See `Transport`; an interpreter that does not exist ends with exit code 127."""
        return _LocalChannel([self.python, "-c", program])


class _LocalChannel:
    def __init__(self, command: list[str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(FileNotFoundError, PermissionError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )

    def send(self, data: bytes, timeout_s: float) -> None:
        if self._process is None or self._process.stdin is None:
            return  # `receive` tells
        rest = memoryview(data)
        try:
            while rest:
                if not select.select([], [self._process.stdin], [], timeout_s)[1]:
                    raise LinkError(f"the agent took nothing for {timeout_s:g} s")
                # A pipe that is ready takes at least PIPE_BUF bytes at once
                rest = rest[os.write(self._process.stdin.fileno(), rest[: select.PIPE_BUF]) :]
        except OSError as error:
            raise LinkError(f"the agent is gone: {error.strerror}") from None

    def receive(self, timeout_s: float) -> bytes:
        if self._process is None or self._process.stdout is None:
            return b""
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise LinkError(f"not a word for {timeout_s:g} s")
        return os.read(self._process.stdout.fileno(), 1 << 18)

    def end(self) -> tuple[int | None, str]:
        if self._process is None:
            return 127, "no such interpreter"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return self._process.returncode, lines[-1] if lines else ""

    def close(self, *, orderly: bool = True) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            if self._process.stdout is not None:
                self._process.stdout.close()
            try:
                self._process.wait(5.0 if orderly else 0.5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stderr.close()
