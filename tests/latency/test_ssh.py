import socket
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import asyncssh
import pytest

from latency.link import Link
from latency.ssh import SshTransport
from latency.transport import LinkError
from search_spaces.errors import UserError
from tests.latency.remote_device import FaultProxy, Server, serve_ssh

ECHO = """\
import os
while data := os.read(0, 1 << 16):
    os.write(1, data)
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()


def test_bytes_pass_unchanged(server: Server, interpreter: Path) -> None:
    sent = bytes(range(256)) * 4000
    with closing(server.transport(interpreter).open(ECHO)) as channel:
        channel.send(sent, 10)
        got = b""
        while len(got) < len(sent):
            got += channel.receive(10)
        assert got == sent


def test_the_end_of_a_program_is_told(server: Server, interpreter: Path) -> None:
    program = "import sys; sys.stderr.write('first\\nlast words\\n'); sys.exit(7)"
    with closing(server.transport(interpreter).open(program)) as channel:
        assert channel.receive(10) == b""
        assert channel.end() == (7, "last words")
    channel.close()


def test_silence_is_an_error(server: Server, interpreter: Path) -> None:
    silent = pytest.raises(LinkError, match=r"not a word for 0\.1 s")
    with closing(server.transport(interpreter).open(ECHO)) as channel, silent:
        channel.receive(0.1)


def test_a_cut_connection_ends_the_channel(
    server: Server, interpreter: Path, proxy: FaultProxy
) -> None:
    with closing(server.transport(interpreter, proxy.port).open(ECHO)) as channel:
        channel.send(b"x", 10)
        assert channel.receive(10) == b"x"
        proxy.cut_now()
        with suppress(LinkError):
            assert channel.receive(10) == b""
        with pytest.raises(LinkError):
            channel.send(b"y", 10)


def test_asyncssh_serves_where_there_is_no_sshd(interpreter: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "agent")
    with serve_ssh(tmp_path / "server", real=False) as server:
        transport = server.transport(interpreter)
        with closing(Link.connect(transport, folder=folder, silence_s=10)) as link:
            assert link.call("missing", files=["0" * 64])["missing"] == ["0" * 64]


def test_an_unknown_host_key_is_refused(server: Server, interpreter: Path, tmp_path: Path) -> None:
    for known_hosts in (tmp_path / "none", tmp_path / "empty"):
        transport = server.transport(interpreter, known_hosts=str(known_hosts))
        with pytest.raises(UserError) as caught:
            transport.open(ECHO)
        message = str(caught.value)
        assert f"the host key of 127.0.0.1:{server.port} is not in {known_hosts}" in message
        assert f"ssh-keyscan -p {server.port} 127.0.0.1" in message
        assert "\n" not in message
        (tmp_path / "empty").touch()


def test_the_file_named_is_the_only_one(server: Server, interpreter: Path, tmp_path: Path) -> None:
    usual = tmp_path / ".ssh" / "known_hosts"
    usual.parent.mkdir()
    usual.write_text(Path(server.known_hosts(server.port)).read_text())
    server.transport(interpreter, known_hosts=None).open(ECHO).close()
    with pytest.raises(UserError, match=f"is not in {tmp_path}/none"):
        server.transport(interpreter, known_hosts=str(tmp_path / "none")).open(ECHO)
    usual.write_text("nonsense")
    with pytest.raises(UserError, match="cannot be read: Invalid known hosts"):
        server.transport(interpreter, known_hosts=None).open(ECHO)


def test_a_changed_host_key_is_refused(server: Server, interpreter: Path, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}")
    with pytest.raises(UserError) as caught:
        server.transport(interpreter, known_hosts=str(known_hosts)).open(ECHO)
    message = str(caught.value)
    assert f"the host key of 127.0.0.1:{server.port} is not the one in {known_hosts}" in message
    assert f"ssh-keygen -f {known_hosts} -R '[127.0.0.1]:{server.port}'" in message
    assert "\n" not in message


def test_a_refused_user_is_told(server: Server, interpreter: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    with pytest.raises(UserError, match=r"refuses the user .*; put your public key there"):
        server.transport(interpreter, identity=str(stranger)).open(ECHO)
    with pytest.raises(UserError, match="does not exist; name your private key"):
        server.transport(interpreter, identity=str(tmp_path / "none")).open(ECHO)
    stranger.write_text("no key")
    with pytest.raises(UserError, match=r"cannot be used: .*ssh-agent"):
        server.transport(interpreter, identity=str(stranger)).open(ECHO)


def test_nobody_there(server: Server, interpreter: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = server.transport(interpreter, port)
    with pytest.raises(LinkError, match=f"cannot connect to 127.0.0.1:{port}: "):
        transport.open(ECHO)


@pytest.mark.parametrize("python", ["python3; id", "$(id)", "a b", "`id`", "-c", "~other/x", ""])
def test_an_interpreter_is_no_command_line(python: str) -> None:
    with pytest.raises(UserError, match="characters that a shell may interpret"):
        SshTransport("pi", python=python)


def test_a_folder_is_no_command_line(server: Server, interpreter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's; touch here $(touch there) `x` \" &"
    transport = server.transport(interpreter)
    with closing(Link.connect(transport, folder=str(folder), silence_s=10)):
        assert (folder / "files").is_dir()
    assert not list(Path.home().glob("*here"))


def test_a_missing_interpreter_is_told(server: Server, tmp_path: Path) -> None:
    transport = server.transport(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no such Python .*; install Python 3.9 or newer"):
        Link.connect(transport, folder=str(tmp_path), silence_s=10)


def test_a_folder_that_cannot_be_written(server: Server, interpreter: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "agent")
    with pytest.raises(UserError, match=r"cannot write the agent: .*; set folder in the device"):
        Link.connect(server.transport(interpreter), folder=folder, silence_s=10)


def test_without_asyncssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(UserError, match=r"pip install 'elastic-nas\[remote\]'"):
        SshTransport("pi").open(ECHO)
