"""A device behind SSH. Needs the `remote` extra (asyncssh), imported at the first connection.

Only hosts whose key is known are talked to. Nothing is put into a command line but a checked
interpreter and a constant: all else goes through stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from latency.transport import Channel, LinkError
from search_spaces.errors import UserError

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")
_Running = tuple["asyncssh.SSHClientConnection", "asyncssh.SSHClientProcess[bytes]"]

CONNECT_S = 15.0
"""Longest time of a connection to come about."""
CLOSE_S = 2.0
"""Longest time of an orderly end; then the connection is dropped."""


class SshTransport:
    """Programs on another host, each over a connection of its own."""

    def __init__(
        self,
        host: str,
        *,
        port: int = 22,
        user: str | None = None,
        identity: str | None = None,
        known_hosts: str | None = None,
        python: str = "python3",
    ) -> None:
        """Describe the host; connects to nothing.

        Args:
            host: Name, address or an alias of `~/.ssh/config`.
            port: TCP port of its sshd.
            user: Who to log in as; None takes `~/.ssh/config`'s or the name here.
            identity: File of the private key; None takes the agent's and the usual ones.
            known_hosts: File of known host keys; None takes `~/.ssh/known_hosts`.
            python: Interpreter there, a name or a path; `~/` is the home there.

        Raises:
            UserError: `python` has characters that mean something to a shell.
        """
        if not re.fullmatch(r"(~/)?[A-Za-z0-9_./+][A-Za-z0-9_./+-]*", python):
            raise UserError(
                f"python {python!r} has characters that a shell may interpret; use a path of "
                "letters, digits and _ . / + -, or a symbolic link to the interpreter"
            )
        self.host, self.port, self.user = host, port, user
        self.identity = None if identity is None else Path(identity).expanduser()
        self.known_hosts = Path(known_hosts or "~/.ssh/known_hosts").expanduser()
        self.python = python

    @property
    def name(self) -> str:
        """The host, with its port where that is not 22."""
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    def open(self, program: str) -> Channel:
        """Connect and run `program`; see `Transport`.

        Raises:
            LinkError: The host cannot be reached now.
            UserError: Its key is unknown or another one, it refuses the user, a file is missing,
                or asyncssh is.
        """
        _asyncssh()
        if self.identity is not None and not self.identity.is_file():
            raise UserError(f"identity {self.identity} does not exist; name your private key")
        channel = _SshChannel()
        try:
            channel.start(self._run(f"exec {self.python} -c {shlex.quote(program)}"))
        except BaseException as error:
            channel.close()
            raise self._explain(error) from None
        return channel

    async def _run(self, command: str) -> _Running:
        asyncssh = _asyncssh()
        options: dict[str, Any] = {} if self.user is None else {"username": self.user}
        if self.identity is not None:
            options |= {"client_keys": [str(self.identity)], "agent_path": None}
        connection = await asyncssh.connect(
            self.host,
            self.port,
            known_hosts=self._known(),
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            **options,
        )
        try:
            process = await connection.create_process(command, encoding=None)
        except BaseException:
            connection.abort()
            raise
        return connection, process

    def _explain(self, error: BaseException) -> BaseException:
        asyncssh = _asyncssh()
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return UserError(self._refusal())
        if isinstance(error, asyncssh.PermissionDenied):
            return UserError(
                f"{self.name} refuses the user {self.user or 'of this account'}: "
                f"{error.reason}; put your public key there with ssh-copy-id, or set user and "
                "identity in the device profile"
            )
        if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
            return UserError(
                f"identity {self.identity} cannot be used: {error}; for a key with a passphrase, "
                "add it to ssh-agent and leave identity out"
            )
        if isinstance(error, asyncssh.Error | OSError | TimeoutError):
            words = " ".join(str(error).split()) or type(error).__name__
            return LinkError(f"cannot connect to {self.name}: {words}")
        return error

    def _refusal(self) -> str:
        """Why a host key was refused: one line with the next step."""
        port = "" if self.port == 22 else f" -p {self.port}"
        entry = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        if self._has_entry():
            return (
                f"the host key of {self.name} is not the one in {self.known_hosts}: another "
                "machine answers, or it was set up anew; if you know that it was, run "
                f"`ssh-keygen -f {self.known_hosts} -R {shlex.quote(entry)}` and log in once "
                f"with `ssh{port} {self.host}`"
            )
        return (
            f"the host key of {self.name} is not in {self.known_hosts}; log in once with "
            f"`ssh{port} {self.host}` and compare its fingerprint, or add the output of "
            f"`ssh-keyscan{port} {self.host}` to that file in a network that you trust"
        )

    def _has_entry(self) -> bool:
        port = None if self.port == 22 else self.port
        return bool(self._known().match(self.host, "", port)[0])

    def _known(self) -> asyncssh.SSHKnownHosts:
        """What the file says, never asyncssh's own defaults: an empty list is no host at all."""
        try:
            text = self.known_hosts.read_text() if self.known_hosts.is_file() else ""
            known: asyncssh.SSHKnownHosts = _asyncssh().import_known_hosts(text)
        except (OSError, ValueError) as error:
            raise UserError(f"known_hosts {self.known_hosts} cannot be read: {error}") from None
        return known


class _SshChannel:
    """The synchronous face of a connection, whose event loop runs in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: _Running | None = None
        self._last_words = b""
        self._closed = False

    def start(self, running: Coroutine[Any, Any, _Running]) -> None:
        self._running = self._wait(running, 2 * CONNECT_S)

    def send(self, data: bytes, timeout_s: float) -> None:
        async def write() -> None:
            stdin = self._process.stdin
            stdin.write(data)
            await stdin.drain()

        self._call(write(), timeout_s)

    def receive(self, timeout_s: float) -> bytes:
        return self._call(self._process.stdout.read(1 << 18), timeout_s)

    def end(self) -> tuple[int | None, str]:
        with contextlib.suppress(LinkError):
            self._last_words = self._call(self._process.stderr.read(), 2.0)
            self._call(self._process.wait_closed(), 2.0)
        lines = self._last_words.decode(errors="replace").strip().splitlines()
        return self._process.exit_status, lines[-1] if lines else ""

    def close(self, *, orderly: bool = True) -> None:
        if self._closed:
            return
        self._closed = True
        if self._running is not None:
            connection, process = self._running
            with contextlib.suppress(LinkError):
                if orderly:
                    self._call(_leave(process), CLOSE_S)
            with contextlib.suppress(LinkError):
                self._call(_end(connection, orderly=orderly), 2 * CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(_cancel_all())
        self._loop.close()

    @property
    def _process(self) -> asyncssh.SSHClientProcess[bytes]:
        assert self._running is not None
        return self._running[1]

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine in the loop's thread.

        Raises:
            LinkError: It failed or took longer than `timeout_s`.
        """
        try:
            return self._wait(coroutine, timeout_s)
        except (_asyncssh().Error, OSError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise LinkError(f"the connection broke: {words}") from None

    def _wait(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        timed = asyncio.wait_for(coroutine, timeout_s)
        try:
            return asyncio.run_coroutine_threadsafe(timed, self._loop).result()
        except TimeoutError:
            raise LinkError(f"not a word for {timeout_s:g} s") from None


async def _leave(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Let the program see the end of its stdin, and end."""
    process.stdin.write_eof()
    await process.wait_closed()


async def _end(connection: asyncssh.SSHClientConnection, *, orderly: bool) -> None:
    if orderly:
        connection.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.wait_closed(), CLOSE_S)
    connection.abort()
    await connection.wait_closed()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _asyncssh() -> ModuleType:
    try:
        import asyncssh
    except ImportError:
        raise UserError(
            "devices behind SSH need asyncssh; install it with pip install 'elastic-nas[remote]'"
        ) from None
    return asyncssh
