"""The agent as one small file: a zip of the modules it is made of, which Python runs as it is."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from functools import cache
from pathlib import Path

MODULES = (
    "__init__",
    "agent",
    "agent_cache",
    "agent_worker",
    "calm",
    "coreml_session",
    "cuda_clock",
    "digest",
    "energy",
    "frames",
    "governor",
    "host_facts",
    "memory",
    "nvidia",
    "nvml",
    "onnxruntime_session",
    "session",
    "session_process",
    "tensorrt_engine",
    "tensorrt_session",
    "torch_session",
)
"""Modules of `latency` that run on a device: Python 3.9, standard library, numpy; those of a
runtime need that runtime, and are imported where it is measured only."""

# Runs on whatever Python the device has, so its syntax is that of Python 2.
BOOTSTRAP = """\
import sys
sys.path = [path for path in sys.path if path]
if sys.version_info < (3, 9):
    sys.stderr.write("Python 3.9 or newer is needed, this is %d.%d" % sys.version_info[:2])
    sys.exit(90)
import hashlib, json, os, struct
def take(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit("the link ended")
        data += piece
    return data
header = json.loads(take(struct.unpack(">I", take(4))[0]).decode())
agent = take(header["size"])
if hashlib.sha256(agent).hexdigest() != header["sha256"]:
    sys.exit("the agent was changed on its way")
os.umask(0o077)
folder = os.path.abspath(os.path.expanduser(header["folder"]))
path = os.path.join(folder, "agent-" + header["sha256"][:12] + ".pyz")
try:
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(path) or open(path, "rb").read() != agent:
        partial = path + "." + str(os.getpid())
        with open(partial, "wb") as file:
            file.write(agent)
        os.replace(partial, path)
except OSError as error:
    sys.stderr.write("cannot write the agent: %s" % error)
    sys.exit(91)
os.execv(sys.executable, [sys.executable, path, "serve", folder])
"""
"""Reads the agent from stdin, stores it and becomes it. A constant: nothing is filled in."""

TOO_OLD, NOT_WRITABLE = 90, 91
"""Exit codes of `BOOTSTRAP`; stderr holds a line."""


@cache
def agent_bytes() -> bytes:
    """The zip: the same bytes as long as the modules are the same."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in MODULES:
            source = Path(__file__).with_name(f"{module}.py").read_bytes()
            archive.writestr(_entry(f"latency/{module}.py"), source, compresslevel=9)
        archive.writestr(_entry("__main__.py"), "from latency.agent import main\n\nmain()\n")
    return stream.getvalue()


def greeting(folder: str) -> bytes:
    """What `BOOTSTRAP` reads: a header that says where the agent goes, and the agent.

    Args:
        folder: On the device; `~` is the home there.
    """
    agent = agent_bytes()
    digest = hashlib.sha256(agent).hexdigest()
    header = json.dumps({"folder": folder, "size": len(agent), "sha256": digest}).encode()
    return struct.pack(">I", len(header)) + header + agent


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
