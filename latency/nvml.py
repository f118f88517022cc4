"""The driver's own library of the first NVIDIA GPU: what holds it back, and calls in general.

Part of the agent: standard library and Python 3.9 only.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

SLOWDOWNS = {
    0x08: "GPU hardware slowdown",
    0x20: "GPU thermal slowdown by software",
    0x40: "GPU thermal slowdown by hardware",
    0x80: "GPU power brake",
}
"""Bits of the clocks' event reasons that make a latency another. An idle GPU, clocks of the user's
own choice and the cap of its usual power are no faults."""
_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
"""The same function: its name now, and in drivers before 535."""


class Nvml:
    """The library, open for GPU 0."""

    def __init__(self, library: Any = None) -> None:
        """Open it.

        Args:
            library: In place of the driver's.

        Raises:
            OSError: There is no driver or no GPU.
        """
        self._library = ctypes.CDLL("libnvidia-ml.so.1") if library is None else library
        self.device = ctypes.c_void_p()
        self.call("nvmlInit_v2")
        self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(self.device))

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            OSError: It returned an error.
            AttributeError: The library has no such function.
        """
        code = getattr(self._library, function)(*arguments)
        if code:
            raise OSError(f"NVML {function} returned {code}")

    def slowdowns(self) -> list[str]:
        """What slows the GPU down at this moment; empty where it does not tell. Microseconds."""
        reasons = ctypes.c_ulonglong()
        for function in _REASONS:
            try:
                self.call(function, self.device, ctypes.byref(reasons))
            except (OSError, AttributeError):
                continue
            return [name for bit, name in SLOWDOWNS.items() if reasons.value & bit]
        return []


@cache
def nvml() -> Nvml | None:
    """The library of this host; None without a driver or a GPU."""
    try:
        return Nvml()
    except (OSError, AttributeError):
        return None
