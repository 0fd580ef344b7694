"""Energy: the arithmetic against a counter that is made up, and counters that are missing or stand still."""

import sys
import types

import pytest
from torch import nn

from latency.devices.fake_device import FakeDevice
from latency.devices.torch_device import TorchCpuDevice
from latency.errors import DeviceUnavailableError, MeasurementError, UnsupportedMeasurementError
from latency.timing.energy import EnergyCounter, NvmlCounter, RaplCounter, measure_energy


class Clock:
    """A clock that calls move; a device of 10 W that takes 40 W during a call of half a second."""

    def __init__(self):
        self.now, self.joules = 0.0, 1000.0

    def sleep(self, seconds):
        self.now += seconds
        self.joules += 10 * seconds

    def call(self):
        self.now += 0.5
        self.joules += 40 * 0.5


class Counter(EnergyCounter):
    name = "made up"

    def __init__(self, clock):
        self._clock = clock

    def read_j(self):
        return self._clock.joules


def test_energy_is_that_of_one_inference_with_idle_power_apart():
    clock = Clock()
    found = measure_energy(clock.call, Counter(clock), clock=lambda: clock.now, sleep=clock.sleep, window_s=6.0)
    assert found.n_runs == 12
    assert found.energy_mj == pytest.approx(20_000)
    assert found.idle_power_w == pytest.approx(10)
    assert found.power_w == pytest.approx(40)
    assert found.conditions["energy_above_idle_mj"] == pytest.approx(15_000)
    assert found.conditions["energy_counter"] == "made up"
    assert found.seconds >= 6


def test_a_counter_that_stands_still_is_an_error_and_no_zero():
    clock = Clock()

    class Still(Counter):
        def read_j(self):
            return 5.0

    with pytest.raises(MeasurementError, match=r"the made up energy counter stood still during 5.0 s"):
        measure_energy(clock.call, Still(clock), clock=lambda: clock.now, sleep=clock.sleep)


def package(root, number, energy_uj, span=10**9, inner=False):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    if inner:
        (root / f"intel-rapl:{number}:0").mkdir()
        (root / f"intel-rapl:{number}:0" / "energy_uj").write_text("7777777\n")
    return folder / "energy_uj"


def test_processors_are_added_up_their_parts_are_not_and_a_turnover_is_followed(tmp_path):
    first = package(tmp_path, 0, 2_000_000, inner=True)
    package(tmp_path, 1, 3_000_000)
    counter = RaplCounter(tmp_path)
    assert counter.read_j() == 5.0
    first.write_text("500000\n")  # began again after 1000 J
    assert counter.read_j() == 1003.5


def test_a_processor_without_counters_or_the_right_to_read_them_is_an_error(tmp_path):
    with pytest.raises(DeviceUnavailableError, match="shows no energy counter"):
        RaplCounter(tmp_path)
    package(tmp_path, 0, 0).write_text("?")
    with pytest.raises(DeviceUnavailableError, match="cannot be read"):
        RaplCounter(tmp_path).read_j()


def nvml(monkeypatch, energy):
    class NVMLError(Exception):
        pass

    def total(handle):
        if energy is None:
            raise NVMLError("Not Supported")
        return energy

    module = types.ModuleType("pynvml")
    module.NVMLError, module.nvmlInit = NVMLError, lambda: None
    module.nvmlDeviceGetHandleByPciBusId = lambda bus: bus
    module.nvmlDeviceGetTotalEnergyConsumption = total
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_a_gpus_counter_is_in_millijoules_and_one_without_is_an_error(monkeypatch):
    nvml(monkeypatch, 1234)
    assert NvmlCounter("00000000:3B:00.0").read_j() == 1.234
    nvml(monkeypatch, None)
    with pytest.raises(DeviceUnavailableError, match="has no energy counter"):
        NvmlCounter("00000000:3B:00.0")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceUnavailableError, match="nvidia-ml-py"):
        NvmlCounter("00000000:3B:00.0")


def test_a_device_measures_energy_by_its_counter(monkeypatch):
    clock = Clock()
    device = TorchCpuDevice()
    monkeypatch.setattr(TorchCpuDevice, "_energy_counter", lambda self: Counter(clock))
    monkeypatch.setattr(
        "latency.devices.torch_device.measure_energy",
        lambda call, counter, **options: measure_energy(
            lambda: (call(), clock.call()), counter, clock=lambda: clock.now, sleep=clock.sleep
        ),
    )
    found = device.measure_energy(nn.Linear(3, 2).eval(), (3,))
    assert found.energy_mj == pytest.approx(20_000)
    assert found.conditions["processor"]
    assert "energy_mj" in TorchCpuDevice.metrics


def test_a_device_without_a_way_says_so():
    with pytest.raises(UnsupportedMeasurementError, match="energy"):
        FakeDevice().measure_energy(nn.Linear(3, 2).eval(), (3,))
