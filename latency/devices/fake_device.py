"""A device without a clock, for tests and for trying out a configuration."""

from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt, Unit
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.counting.complexity import count
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.errors import MeasurementError, TracingError
from latency.graph.operator_graph import OperatorGraph, StorageKind
from latency.graph.tracer import graph_from_torch
from latency.timing.stats import LatencyStats


@options(frozen=True, config=OPTIONS)
class FakeDevice(Device):
    """Works readings out from what a model is: equal models get equal readings, anywhere and always.

    The latency is `base_ms + n_operators * ms_per_operator + batch_size * n_macs / macs_per_ms`. The peak
    memory is weights, input, and the largest sum of activations that one operator reads and writes: like a
    real one it grows with width and resolution, but it is nobody's measurement.

    Attributes:
        batch_size: Images in one inference.
        base_ms: The latency of doing nothing.
        ms_per_operator: What each operator adds, views too.
        macs_per_ms: Multiply-adds done in a millisecond.
        spread: p10 and p90 lie this share below and above the median.
    """

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms", "peak_memory_bytes"})

    batch_size: Annotated[int, Gt(0), Le(10**6)] = 1
    base_ms: Annotated[float, Gt(0), Le(1e9), Unit("ms")] = 0.1
    ms_per_operator: Annotated[float, Ge(0), Le(1e9), Unit("ms")] = 0.01
    macs_per_ms: Annotated[float, Gt(0), Le(1e30), Unit("multiply-adds per ms")] = 1e7
    spread: Annotated[float, Ge(0), Lt(1)] = 0.0

    def check(self) -> None:
        """Pass: it is everywhere."""

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`; operators without a formula count no multiply-adds here."""
        graph = self._trace(model, input_shape)
        sample = graph if self.batch_size == 1 else graph_from_torch(model, input_shape)
        n_macs = self.batch_size * count(sample).n_macs
        latency_ms = self.base_ms + len(graph.operators) * self.ms_per_operator + n_macs / self.macs_per_ms
        return LatencyStats(
            median_ms=latency_ms,
            p10_ms=latency_ms * (1 - self.spread),
            p90_ms=latency_ms * (1 + self.spread),
            n_runs=1,
            conditions=self._conditions(input_shape),
        )

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """See `Device.measure_peak_memory`."""
        graph = self._trace(model, input_shape)
        parts = {
            "weights_bytes": graph.storage_bytes(StorageKind.PARAMETER) + graph.storage_bytes(StorageKind.BUFFER),
            "input_bytes": graph.storage_bytes(StorageKind.INPUT),
            "activations_bytes": _largest_working_set(graph),
        }
        return MemoryReading(sum(parts.values()), self._conditions(input_shape) | parts)

    def _trace(self, model: nn.Module, input_shape: tuple[int, ...]) -> OperatorGraph:
        try:
            return graph_from_torch(model, input_shape, batch_size=self.batch_size)
        except TracingError as fault:
            raise MeasurementError(f"the fake device reads a model's operators: {fault}") from fault

    def _conditions(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "device": "fake",
            "runtime": "none: computed, not measured",
            "precision": "float32",
            "batch_size": self.batch_size,
            "input_shape": [int(size) for size in input_shape],
            "base_ms": self.base_ms,
            "ms_per_operator": self.ms_per_operator,
            "macs_per_ms": self.macs_per_ms,
        }


def _largest_working_set(graph: OperatorGraph) -> int:
    return max(
        (
            sum(
                graph.storages[storage].n_bytes
                for storage in {graph.tensors[t].storage for t in (*operator.inputs, *operator.outputs)}
                if graph.storages[storage].kind is StorageKind.ACTIVATION
            )
            for operator in graph.operators
        ),
        default=0,
    )
