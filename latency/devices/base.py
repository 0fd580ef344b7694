"""The contract of a device: something that tells what a model costs when it runs there."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict
from torch import nn

from latency.errors import DeviceUnavailableError, UnsupportedMeasurementError
from latency.timing.energy import EnergyReading
from latency.timing.stats import LatencyStats

OPTIONS = ConfigDict(extra="forbid", allow_inf_nan=False)
"""How pydantic reads the fields of a device: its options, with bounds in their types."""


@dataclass(frozen=True)
class MemoryReading:
    """Peak memory of one inference.

    Attributes:
        peak_bytes: Weights, input and the largest sum of everything else alive at once.
        conditions: Device, batch size, versions, and the parts of the sum: plain JSON values.
    """

    peak_bytes: int
    conditions: Mapping[str, Any]


class Device(ABC):
    """Measures models on one device under fixed conditions.

    Attributes:
        metrics: The metrics that this device can measure, of `latency_ms`, `peak_memory_bytes` and
            `energy_mj`.
    """

    metrics: ClassVar[frozenset[str]]

    @abstractmethod
    def check(self) -> None:
        """Find out whether the device can be used here, without measuring anything.

        Raises:
            DeviceUnavailableError: If it cannot, saying what is missing.
        """

    def processor(self) -> str:
        """Return the name of the hardware that is measured, as its readings give it; empty where there is none.

        Raises:
            DeviceUnavailableError: If it cannot be asked.
        """
        return ""

    def check_energy(self) -> None:
        """Find out whether energy can be measured here, without measuring anything.

        Raises:
            DeviceUnavailableError: If there is no counter, or it cannot be read.
        """
        raise DeviceUnavailableError("this kind of device has no way to measure energy")

    def measure_energy(self, model: nn.Module, input_shape: tuple[int, ...]) -> EnergyReading:
        """Measure the energy of one inference of `model`; arguments as for `measure_latency`.

        Raises:
            DeviceUnavailableError: If the hardware's counter is not there.
            UnsupportedMeasurementError: If the device has no way to measure it.
            MeasurementError: If the model fails there, or the counter stands still.
        """
        raise UnsupportedMeasurementError(f"{type(self).__name__} has no way to measure energy")

    def confirming(self) -> "Device":
        """Return the device that gives final figures: this one, unless it only foretells what another would measure."""
        return self

    @abstractmethod
    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """Time the inference of `model`.

        Args:
            model: In eval mode. Left as it was, on the device where it was.
            input_shape: `(C, H, W)`, without the batch, which is the device's own option.

        Raises:
            ValueError: If `model` is in train mode.
            MeasurementError: If the model fails there or the time limit passes without a reading.
        """

    @abstractmethod
    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """Measure the peak memory of one inference of `model`; arguments as for `measure_latency`.

        Raises:
            UnsupportedMeasurementError: If the device has no way to measure it.
            MeasurementError: If the model fails there.
        """
