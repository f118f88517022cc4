"""An SSH server where there is no sshd: `python ssh_server.py FOLDER PORT`, on the loopback."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import asyncssh


async def run_command(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run what the client asks for, as a login shell would; its stdin ends with the link."""
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        code = await child.wait()
        await process.stdout.drain()
        process.exit(code)
    finally:
        if child.stdin is not None:
            child.stdin.close()


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
