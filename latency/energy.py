"""How much energy a device has taken: counters and sensors of the system, where there are any.

Part of the agent: standard library and Python 3.9 only.

A meter counts all that its package, board or GPU takes, idle power included, so that a figure is
one of the machine while it ran a model. Where nothing can be read there is no meter, and no zero.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from latency.nvml import Nvml

ROOT = Path("/")
INPUTS = ("VDD_IN", "POM_5V_IN", "POM_5V_IN0")
"""Labels of the rail that feeds a whole Jetson; where a board has none, its rails add up."""


class Meter(Protocol):
    """Something that counts energy."""

    name: str
    """What is counted, such as `rapl package-0, dram`."""
    block_s: float
    """How long to run for a reading within some percent: many times the sensor's own period."""

    def read_mj(self) -> float:
        """Energy since some moment in the past, in mJ; only differences count."""


class RaplMeter:
    """Running average power limit of Intel and AMD processors, by Linux' powercap files.

    Packages and their memory; cores and graphics are parts of a package, and `psys` has all again.
    The counters are renewed every millisecond, and start again from 0 beyond their range.
    """

    block_s = 0.1

    def __init__(self, root: Path = ROOT) -> None:
        """Find the readable counters.

        Raises:
            OSError: There is none, or they are for root only.
        """
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        names = [(zone, _text(zone / "name")) for zone in zones]
        counted = [(z, n) for z, n in names if n.startswith("package") or n == "dram"]
        if not counted:
            raise OSError("no RAPL counters in /sys/class/powercap")
        self.name = f"rapl {', '.join(name for _, name in counted)}"
        self._zones = [zone for zone, _ in counted]
        self._ranges_uj = [int(_text(zone / "max_energy_range_uj")) for zone in self._zones]
        self._last_uj = self._counters()
        self._total_uj = 0

    def read_mj(self) -> float:
        """See `Meter`; to be called at least once in each round of the counters (minutes)."""
        now = self._counters()
        for value, last, most in zip(now, self._last_uj, self._ranges_uj):
            self._total_uj += value - last if value >= last else value - last + most
        self._last_uj = now
        return self._total_uj / 1e3

    def _counters(self) -> list[int]:
        return [int(_text(zone / "energy_uj")) for zone in self._zones]


class NvmlMeter:
    """The first NVIDIA GPU, by the driver's own library; Volta or newer.

    The counter is renewed every 20 to 100 ms.
    """

    name = "nvml gpu 0"
    block_s = 1.0

    def __init__(self, library: Any = None) -> None:
        """Open the library.

        Args:
            library: In place of the driver's.

        Raises:
            OSError: There is no driver, no GPU, or it does not tell.
        """
        self._nvml = Nvml(library)
        self.read_mj()

    def read_mj(self) -> float:
        """See `Meter`."""
        energy_mj = ctypes.c_ulonglong()
        self._nvml.call(
            "nvmlDeviceGetTotalEnergyConsumption", self._nvml.device, ctypes.byref(energy_mj)
        )
        return float(energy_mj.value)


class JetsonMeter:
    """The INA3221 sensors of a Jetson, which tegrastats reads too: power, added up by a thread."""

    block_s = 0.5

    def __init__(self, root: Path = ROOT, period_s: float = 0.005) -> None:
        """Find the sensors; the first reading starts the thread.

        Raises:
            OSError: There is none.
        """
        rails = dict(_rails(root / "sys/class/hwmon"))
        whole = [label for label in INPUTS if label in rails]
        chosen = whole[:1] or sorted(rails)
        if not chosen:
            raise OSError("no INA3221 sensor in /sys/class/hwmon")
        self.name = f"ina3221 {', '.join(chosen)}"
        self._files = [rails[label] for label in chosen]
        self._period_s = period_s
        self._total_mj = 0.0
        self._thread: threading.Thread | None = None
        self._power_mw()

    def read_mj(self) -> float:
        """See `Meter`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._add_up, daemon=True)
            self._thread.start()
        return self._total_mj

    def _power_mw(self) -> float:
        return sum(int(_text(volt)) * int(_text(ampere)) / 1e3 for volt, ampere in self._files)

    def _add_up(self) -> None:
        last_s, last_mw = time.perf_counter(), self._power_mw()
        while True:
            time.sleep(self._period_s)
            now_s, now_mw = time.perf_counter(), self._power_mw()
            self._total_mj += (now_s - last_s) * (now_mw + last_mw) / 2
            last_s, last_mw = now_s, now_mw


def _rails(folder: Path) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Label of each rail, and the files of its voltage (mV) and current (mA)."""
    for sensor in sorted(folder.glob("hwmon*")):
        if _text(sensor / "name", missing="") != "ina3221":
            continue
        for channel in "123":
            label = _text(sensor / f"in{channel}_label", missing="")
            files = sensor / f"in{channel}_input", sensor / f"curr{channel}_input"
            if label and label != "NC" and all(file.exists() for file in files):
                yield label, files


def open_meter(*, gpu: bool, root: Path = ROOT, nvml: Any = None) -> tuple[Meter | None, str]:
    """What counts the energy of a model on this machine.

    Args:
        gpu: Whether the model runs on a GPU; a Jetson counts its whole board either way.
        root: Where `/sys` lies.
        nvml: In place of the driver's library.

    Returns:
        The meter, or None; and why there is none.
    """
    reasons = []
    for kind in ("jetson", "nvml" if gpu else "rapl"):
        try:
            if kind == "jetson":
                return JetsonMeter(root), ""
            return (NvmlMeter(nvml) if kind == "nvml" else RaplMeter(root)), ""
        except PermissionError as error:
            reasons.append(f"{error.filename} is for root only; chmod a+r it, for this boot")
        except (OSError, ValueError, AttributeError) as error:
            reasons.append(" ".join(str(error).split()))
    return None, "; ".join(reasons)


def energy_mj(before: float, after: float, runs: int) -> float | None:
    """Energy of one of `runs` between two readings, in mJ; None where the counter stood still."""
    return (after - before) / runs if after > before and runs else None


def _text(file: Path, missing: str | None = None) -> str:
    if missing is not None:
        with suppress(OSError):
            return file.read_text().strip()
        return missing
    return file.read_text().strip()
