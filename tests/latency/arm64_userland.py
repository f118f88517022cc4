"""An arm64 Debian's Python with onnxruntime on this host, its instructions emulated by QEMU.

Needs `qemu-aarch64-static` (Debian's package qemu-user-static), apt-get, dpkg-deb and pip, a
network, and no rights: packages are fetched with an apt state of its own and unpacked into a
folder. The interpreter is a script of this host, so that its children are emulated too. Some 240
times slower than a real processor: for what the agent does, never for how long.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

EMULATOR = shutil.which("qemu-aarch64-static")
TOOLS = ("qemu-aarch64-static", "apt-get", "dpkg-deb")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

PACKAGES = ("python3", "libstdc++6")
WHEELS = ("onnxruntime", "numpy")

# onnxruntime tells cores apart by this; the host's own would be that of an x86
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def build_userland(folder: Path) -> Path:
    """Fetch and unpack everything into `folder`.

    Returns:
        An interpreter that is called like any other, and runs as arm64.
    """
    root, python = folder / "root", folder / "python3"
    if python.exists():
        return python
    _unpack_packages(folder / "apt", root)
    name = next(
        found.name
        for found in (root / "usr/bin").iterdir()
        if re.fullmatch(r"python3\.\d+", found.name)
    )
    _unpack_wheels(folder / "wheels", root / "site", name.removeprefix("python"))
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(_CPUINFO)
    settings = f"-E PYTHONHOME={root}/usr -E PYTHONPATH={root}/site"
    python.write_text(
        f'#!/bin/sh\nexec {EMULATOR} -L {root} -0 {python} {settings} {root}/usr/bin/{name} "$@"\n'
    )
    python.chmod(0o755)
    return python


def _unpack_packages(state: Path, root: Path) -> None:
    """Debian's packages for arm64, with all that they depend on."""
    archives = state / "cache/archives"
    for needed in (state / "lists/partial", archives / "partial", root):
        needed.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "1",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
    }
    apt = ["apt-get", "-qq", *(word for k, v in options.items() for word in ("-o", f"{k}={v}"))]
    _run([*apt, "update"])
    _run([*apt, "-y", "--no-install-recommends", "--download-only", "install", *PACKAGES])
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(archive), str(root)])


def _unpack_wheels(folder: Path, site: Path, python: str) -> None:
    """The wheels of this interpreter's versions for arm64."""
    site.mkdir()
    platforms = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
    wanted = [f"{name}=={version(name)}" for name in WHEELS]
    _run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)),
            *("--python-version", python, "--only-binary=:all:"),
            *(word for platform in platforms for word in ("--platform", platform)),
            *wanted,
        ]
    )
    for wheel in folder.glob("*aarch64.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()[-500:]}"
