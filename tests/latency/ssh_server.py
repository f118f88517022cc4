"""An SSH server where there is no sshd: `python ssh_server.py FOLDER PORT`, on the loopback."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh


async def run_command(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run what the client asks for, as a login shell would; its stdin ends with the link."""
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    feeding = asyncio.create_task(_pass_on(process.stdin, child.stdin))
    try:
        # Both to their ends first: the exit status ends the channel.
        await asyncio.gather(
            _pass_on(child.stdout, process.stdout), _pass_on(child.stderr, process.stderr)
        )
        process.exit(await child.wait())
    finally:
        feeding.cancel()
        if child.stdin is not None:
            child.stdin.close()


async def _pass_on(source: Any, sink: Any) -> None:
    """Copy until `source` ends; `sink` may be gone before."""
    with suppress(OSError, asyncssh.Error):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    if isinstance(sink, asyncio.StreamWriter):
        sink.close()


async def main(folder: Path, port: int) -> None:
    """Serve until killed."""
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=run_command,
        encoding=None,
    )
    await server.wait_closed()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
