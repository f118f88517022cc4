"""Energy and memory are what the system says; where it says nothing, there is nothing."""

import os
import sys
import time
from pathlib import Path

import pytest

from latency.energy import JetsonMeter, NvmlMeter, RaplMeter, energy_mj, open_meter
from latency.memory import PeakMemory
from tests.latency.nvml_library import library

RANGE_UJ = 262_143_328_850


def put(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(root, number, name, energy_uj):
    return put(
        root / f"sys/class/powercap/intel-rapl:{number}",
        name=name,
        energy_uj=energy_uj,
        max_energy_range_uj=RANGE_UJ,
    )


@pytest.fixture
def rapl(tmp_path):
    """A machine with two sockets: cores are a part of a package, psys has all again."""
    zones = {
        number: zone(tmp_path, number, name, 1000)
        for number, name in {
            "0": "package-0",
            "0:0": "core",
            "0:1": "dram",
            "1": "package-1",
            "2": "psys",
        }.items()
    }
    put(tmp_path / "sys/class/powercap/intel-rapl-mmio:0", name="package-0", energy_uj=1)
    return tmp_path, zones


def test_packages_and_their_memory_are_counted(rapl):
    root, zones = rapl
    meter = RaplMeter(root)
    assert meter.name == "rapl package-0, dram, package-1"
    for place in zones.values():
        put(place, energy_uj=6000)
    assert meter.read_mj() == pytest.approx(3 * 5.0)


def test_a_counter_that_starts_again_goes_on(rapl):
    root, zones = rapl
    put(zones["0"], energy_uj=RANGE_UJ - 2_000_000)
    meter = RaplMeter(root)
    put(zones["0"], energy_uj=1_000_000)
    assert meter.read_mj() == pytest.approx(3000.0)
    put(zones["0"], energy_uj=4_000_000)
    assert meter.read_mj() == pytest.approx(6000.0)


def test_a_counter_that_stands_still_says_nothing(rapl):
    meter = RaplMeter(rapl[0])
    assert energy_mj(meter.read_mj(), meter.read_mj(), 10) is None
    assert energy_mj(1.0, 3.0, 4) == 0.5
    assert energy_mj(1.0, 3.0, 0) is None


@pytest.mark.parametrize("gpu", [False, True])
def test_without_sensors_there_is_no_meter(tmp_path, gpu):
    meter, why = open_meter(gpu=gpu, root=tmp_path)
    assert meter is None
    assert "no INA3221 sensor" in why
    assert ("libnvidia-ml" if gpu else "no RAPL counters") in why


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_counters_for_root_only_are_told(rapl):
    root, zones = rapl
    (zones["0"] / "energy_uj").chmod(0)
    meter, why = open_meter(gpu=False, root=root)
    assert meter is None
    assert "energy_uj is for root only; chmod a+r it" in why


def test_damaged_counters_are_no_meter(rapl):
    root, zones = rapl
    put(zones["1"], energy_uj="what")
    meter, why = open_meter(gpu=False, root=root)
    assert meter is None
    assert "what" in why


def sensor(root, number, rails):
    folder = put(root / f"sys/class/hwmon/hwmon{number}", name="ina3221")
    for channel, (label, volt, ampere) in enumerate(rails, start=1):
        files = {f"in{channel}_label": label, f"in{channel}_input": volt}
        put(folder, **files, **{f"curr{channel}_input": ampere})
    return folder


def wait_mj(meter, seconds):
    before = meter.read_mj()
    start = time.perf_counter()
    time.sleep(seconds)
    return meter.read_mj() - before, time.perf_counter() - start


def test_the_power_of_a_jetson_adds_up(tmp_path):
    put(tmp_path / "sys/class/hwmon/hwmon0", name="nct6775", in1_input=1)
    rails = [("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 600), ("NC", 5000, 0)]
    sensor(tmp_path, 1, rails)
    meter, _ = open_meter(gpu=True, root=tmp_path)
    assert meter.name == "ina3221 VDD_IN"
    taken_mj, waited_s = wait_mj(meter, 1.0)
    assert taken_mj == pytest.approx(10_000 * waited_s, rel=0.5)  # 10 W, read by a thread


def test_rails_add_up_where_no_one_feeds_all(tmp_path):
    sensor(tmp_path, 0, [("VDD_GPU_SOC", 8000, 500), ("VDD_CPU_CV", 8000, 250)])
    meter = JetsonMeter(tmp_path)
    assert meter.name == "ina3221 VDD_CPU_CV, VDD_GPU_SOC"
    taken_mj, waited_s = wait_mj(meter, 0.3)
    assert taken_mj == pytest.approx(6_000 * waited_s, rel=0.3)


def test_the_counter_of_a_gpu_is_read_through_its_library(tmp_path):
    meter = NvmlMeter(library(tmp_path, code=0))
    assert meter.read_mj() == 2**40 + 250
    assert meter.read_mj() == 2**40 + 500


def test_a_gpu_that_does_not_tell_is_no_meter(tmp_path):
    meter, why = open_meter(gpu=True, root=tmp_path, nvml=library(tmp_path, code=3))
    assert meter is None
    assert "NVML nvmlDeviceGetTotalEnergyConsumption returned 3" in why


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_peak_memory_is_that_of_what_came_after(tmp_path):
    first = bytearray(30_000_000)
    first[::4096] = b"x" * len(first[::4096])
    memory = PeakMemory()
    if memory.grown_bytes() is None and not Path("/proc/self/clear_refs").exists():
        pytest.skip("this kernel does not forget peaks")
    second = bytearray(20_000_000)
    second[::4096] = b"x" * len(second[::4096])
    del second
    assert memory.grown_bytes() == pytest.approx(20e6, rel=0.1)
    # The next one is told alone, although the peak was higher before.
    del first
    memory = PeakMemory()
    third = bytearray(10_000_000)
    third[::4096] = b"x" * len(third[::4096])
    assert memory.grown_bytes() == pytest.approx(10e6, rel=0.2)


def test_a_system_without_such_files_tells_nothing(tmp_path):
    assert PeakMemory(tmp_path).grown_bytes() is None
    put(tmp_path, status="VmRSS: 10 kB", clear_refs="")
    assert PeakMemory(tmp_path).grown_bytes() is None
    put(tmp_path, status="VmRSS: 10 kB\nVmHWM: 30 kB")
    assert PeakMemory(tmp_path).grown_bytes() == 20 * 1024
