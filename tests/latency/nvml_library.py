"""A library with the functions of NVML that we call, compiled here."""

import ctypes
import subprocess
from pathlib import Path

import pytest

NVML = """
static unsigned long long energy = {start};
int nvmlInit_v2(void) {{ return 0; }}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {{
    *device = (void *)0x1234; return index;
}}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value) {{
    *value = energy; energy += 250; return device == (void *)0x1234 ? {code} : 2;
}}
unsigned long long reasons = 0;
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *value) {{
    *value = reasons; return device == (void *)0x1234 ? {code} : 2;
}}
"""


def library(folder: Path, code: int) -> ctypes.CDLL:
    """A library with NVML's functions, as NVIDIA's header declares them;
    `code` is what they return."""
    (folder / "nvml.c").write_text(NVML.format(start=2**40, code=code))
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "nvml.so"), str(folder / "nvml.c")]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return ctypes.CDLL(str(folder / "nvml.so"))


def set_reasons(found: ctypes.CDLL, bits: int) -> None:
    """What the library says that holds the GPU back."""
    ctypes.c_ulonglong.in_dll(found, "reasons").value = bits
