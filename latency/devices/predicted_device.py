"""A device that is not asked: its latencies are foretold from readings that were taken before."""

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Le
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.checks import require_eval_mode
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.devices.measured import MEASURED
from latency.errors import (
    DeviceUnavailableError,
    LatencyError,
    MeasurementError,
    PredictionError,
    TracingError,
    UnsupportedMeasurementError,
)
from latency.graph.tracer import graph_from_torch
from latency.predictors.device_model import DeviceModel, Foretold
from latency.predictors.layers import layers_of
from latency.sizes import require_input_shape
from latency.timing.stats import LatencyStats

_Z_80 = 1.2816 / 1.6449  # p10 and p90 lie this share of the 90 % interval's half width from the mean


@options(frozen=True, config=OPTIONS)
class PredictedDevice(Device):
    """Foretells latencies from the file of readings that `nas latency collect` writes on the device.

    Attributes:
        model: The file.
        when_unsure: What to do with a model unlike those that were measured, or whose interval is too wide: `flag` its
            figure in the record; `measure` it, where the device that was measured is this machine's; `refuse` it, so
            that the candidate fails.
        max_spread: The widest interval to be sure of: half the width of the one that is to hold 90 % of the readings,
            as a share of the mean.
        url: Of the board, where the readings are a board's and it is to measure; the file's own is not followed, since
            whoever wrote the file would be shown the token.
        token_variable: As for `remote`.
        token_file: As for `remote`.
    """

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms"})

    model: Path
    when_unsure: Literal["flag", "measure", "refuse"] = "flag"
    max_spread: Annotated[float, Gt(0), Le(10)] = 0.25
    url: str | None = None
    token_variable: str = "NAS_BOARD_TOKEN"  # noqa: S105 - the variable's name
    token_file: Path | None = None

    def check(self) -> None:
        """See `Device.check`: the file must be there, and the device too if it is to measure."""
        try:
            self._known()
        except PredictionError as error:
            raise DeviceUnavailableError(str(error)) from error
        if self.when_unsure == "measure":
            self._real()

    def confirming(self) -> Device:
        """Return the device itself where it can be reached: final figures are to be measured."""
        try:
            return self._real()
        except LatencyError:
            return self

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`; the percentiles are those of what a reading may be."""
        require_eval_mode(model)
        shape = require_input_shape(input_shape)
        known = self._known()
        if shape != known.header.input_shape:
            raise MeasurementError(
                f"{self.model} holds readings for images of {known.header.input_shape}, got a network for {shape}: "
                "collect readings at this size"
            )
        try:
            graph = graph_from_torch(model, shape, batch_size=known.header.batch_size)
        except TracingError as fault:
            raise MeasurementError(f"a predicted latency needs a model's operators: {fault}") from fault
        (said,) = known.foretell([layers_of(graph)], self.max_spread)
        if said.doubts and self.when_unsure == "measure":
            return self._measured(model, shape, said)
        if said.doubts and self.when_unsure == "refuse":
            raise MeasurementError(f"its latency cannot be foretold: {'; '.join(said.doubts)}")
        half = (said.high_ms - said.low_ms) / 2 * _Z_80
        return LatencyStats(
            median_ms=said.mean_ms,
            p10_ms=max(said.mean_ms - half, said.mean_ms * 1e-3),
            p90_ms=said.mean_ms + half,
            n_runs=1,
            conditions=self._conditions(known, said),
        )

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """See `Device.measure_peak_memory`."""
        raise UnsupportedMeasurementError("a predicted device knows latencies alone")

    def _measured(self, model: nn.Module, shape: tuple[int, ...], said: Foretold) -> LatencyStats:
        stats = self._real().measure_latency(model, shape)
        told = {"predicted_ms": said.mean_ms, "measured_because": list(said.doubts)}
        return LatencyStats(stats.median_ms, stats.p10_ms, stats.p90_ms, stats.n_runs, {**stats.conditions, **told})

    def _conditions(self, known: DeviceModel, said: Foretold) -> dict[str, Any]:
        return {
            "device": "predicted",
            "runtime": "none: predicted, not measured",
            "is_predicted": True,
            "predicted_from": f"{len(known.readings)} readings in {self.model.name}",
            "readings_sha256": known.sha256,
            "of_device": dict(known.header.device),
            "batch_size": known.header.batch_size,
            "input_shape": list(known.header.input_shape),
            "interval_90_ms": [said.low_ms, said.high_ms],
            "doubts": list(said.doubts),
        }

    def _known(self) -> DeviceModel:
        return _loaded(self.model, _modified(self.model))

    def _real(self) -> Device:
        """Return the device that was measured.

        Raises:
            DeviceUnavailableError: If it cannot be reached, or what can be reached is other hardware.
        """
        device = self._made()
        device.check()
        measured, here = self._known().header.conditions.get("processor", ""), device.processor()
        if here != measured:
            raise DeviceUnavailableError(f"{self.model} holds readings of {measured!r}, here is {here!r}")
        return device

    def _made(self) -> Device:
        told = dict(self._known().header.device)
        kind = str(told.pop("kind", ""))
        if kind not in MEASURED:
            raise DeviceUnavailableError(f"{self.model}: a device of kind {kind!r} is not known here")
        if kind == "remote":
            if self.url is None:
                raise DeviceUnavailableError(f"{self.model} holds a board's readings: give its url to measure there")
            told |= {"url": self.url, "token_variable": self.token_variable, "token_file": self.token_file}
        try:
            return MEASURED[kind](**told)
        except (TypeError, ValueError) as error:
            raise DeviceUnavailableError(f"{self.model}: the device {kind!r} cannot be made: {error}") from error


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, modified: int) -> DeviceModel:
    """Return the file's predictor, learnt once in a process."""
    return DeviceModel.load(path)
