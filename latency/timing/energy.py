"""The energy of an inference, from counters that the hardware keeps; never a guess where there is none."""

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.errors import DeviceUnavailableError, MeasurementError

WINDOW_S = 5.0
"""Seconds of each window, at least: counters move in steps of up to a tenth of a second."""

_RAPL = Path("/sys/class/powercap")
_N_WARM_UP = 3


class EnergyCounter(ABC):
    """Counts the energy that a device has taken."""

    name: str

    @abstractmethod
    def read_j(self) -> float:
        """Return the joules since some moment that stays the same.

        Raises:
            DeviceUnavailableError: If there is no such counter, or it may not be read.
        """


class RaplCounter(EnergyCounter):
    """The processor's own counters (RAPL), all packages together, as Linux shows them.

    Args:
        root: Where Linux shows them.
    """

    name = "RAPL"

    def __init__(self, root: Path = _RAPL) -> None:
        found = sorted(root.glob("intel-rapl:*"))
        self._packages = [folder for folder in found if folder.name.count(":") == 1]  # others are parts of these
        self._before: dict[Path, int] = {}
        self._turned_over: dict[Path, int] = {}
        if not self._packages:
            raise DeviceUnavailableError(f"this processor shows no energy counter: there is no {root}/intel-rapl:0")

    def read_j(self) -> float:
        """See `EnergyCounter.read_j`; a counter that starts again at 0 between two readings is followed."""
        total = 0
        for folder in self._packages:
            try:
                now = int((folder / "energy_uj").read_text(encoding="ascii"))
                if now < self._before.get(folder, 0):
                    span = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
                    self._turned_over[folder] = self._turned_over.get(folder, 0) + span
            except (OSError, ValueError) as error:
                raise DeviceUnavailableError(
                    f"the processor's energy counter cannot be read: {error}; only root may, unless "
                    f"{folder}/energy_uj is made readable"
                ) from error
            self._before[folder] = now
            total += now + self._turned_over.get(folder, 0)
        return total / 1e6


class NvmlCounter(EnergyCounter):
    """The counter of an NVIDIA GPU, since its driver was loaded.

    Args:
        bus_id: Where the GPU is plugged in, as the driver writes it.
    """

    name = "NVML"

    def __init__(self, bus_id: str) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            raise DeviceUnavailableError('energy needs nvidia-ml-py: pip install "pareto-nas[energy]"') from None
        try:
            self._nvml.nvmlInit()
            self._device = self._nvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
        except self._nvml.NVMLError as error:
            raise DeviceUnavailableError(f"NVML does not know the GPU at {bus_id}: {error}") from error
        self.read_j()

    def read_j(self) -> float:
        """See `EnergyCounter.read_j`."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1e3
        except self._nvml.NVMLError as error:
            raise DeviceUnavailableError(f"this GPU has no energy counter (before 2017 none had): {error}") from error


@dataclass(frozen=True)
class EnergyReading:
    """What a run of inferences took.

    Attributes:
        energy_mj: Of one inference, of the whole batch, idle power included.
        idle_power_w: With nothing to do, before the inferences.
        power_w: During them.
        n_runs: How many there were.
        seconds: How long they took.
        counter: Of which hardware.
        device: The device's own conditions: plain JSON values.
    """

    energy_mj: float
    idle_power_w: float
    power_w: float
    n_runs: int
    seconds: float
    counter: str
    device: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conditions(self) -> dict[str, Any]:
        """The device's, and all but the energy, with what of it is above the idle power."""
        above = self.energy_mj - 1e3 * self.idle_power_w * self.seconds / self.n_runs
        return {
            **self.device,
            "energy_counter": self.counter,
            "idle_power_w": self.idle_power_w,
            "power_w": self.power_w,
            "energy_above_idle_mj": above,
            "energy_window_s": self.seconds,
            "energy_n_runs": self.n_runs,
        }


def measure_energy(
    call: Callable[[], object],
    counter: EnergyCounter,
    *,
    synchronize: Callable[[], object] = lambda: None,
    window_s: float = WINDOW_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> EnergyReading:
    """Return the energy of `call`, from one window without and one with it, one call after the other.

    Args:
        call: One inference.
        counter: Of the device that it runs on.
        synchronize: Returns when the device has done all calls so far.
        window_s: Of each window, at least.
        clock: Returns the time in seconds.
        sleep: Waits for so many seconds.

    Raises:
        DeviceUnavailableError: If the counter cannot be read.
        MeasurementError: If it stands still: whatever it counts, it is not this device's energy.
    """
    for _ in range(_N_WARM_UP):
        call()
    synchronize()
    idle_j, idle_s = _spent(counter, clock, lambda: sleep(window_s))
    n_runs = 0

    def run() -> None:
        nonlocal n_runs
        end = clock() + window_s
        while clock() < end:
            call()
            synchronize()
            n_runs += 1

    used_j, used_s = _spent(counter, clock, run)
    if used_j <= 0:
        raise MeasurementError(
            f"the {counter.name} energy counter stood still during {used_s:.1f} s of inferences: it does not count here"
        )
    return EnergyReading(1e3 * used_j / n_runs, idle_j / idle_s, used_j / used_s, n_runs, used_s, counter.name)


def _spent(counter: EnergyCounter, clock: Callable[[], float], during: Callable[[], object]) -> tuple[float, float]:
    """Return the joules and seconds that something took."""
    start_j, start_s = counter.read_j(), clock()
    during()
    return counter.read_j() - start_j, clock() - start_s
