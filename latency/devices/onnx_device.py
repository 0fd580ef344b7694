"""onnxruntime, on any of its execution providers that is here."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import onnx
import torch
from annotated_types import Ge, Gt, Le, Unit
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.checks import require_eval_mode
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.errors import MeasurementError, OnnxExportError, UnsupportedMeasurementError
from latency.graph.onnx_writer import write_onnx_to_measure
from latency.inference import failures_explained, pci_bus_id
from latency.sizes import require_input_shape
from latency.timing.clocks import cpu_conditions, cuda_conditions, processor_name
from latency.timing.onnx_session import ON_CUDA, OnnxTiming
from latency.timing.stats import LatencyStats


@options(frozen=True, config=OPTIONS)
class OnnxDevice(Device):
    """onnxruntime on this machine; each model is written as ONNX first.

    From `latency.graph`, which takes a tenth of a second, or by torch's exporter, which takes seconds, where an
    operator has no translation; the reading's conditions say which (`onnx_writer`).

    Input and output lie where the provider computes: copies to and from a GPU are not timed.
    onnxruntime's Python interface gives no statistics of its memory arena: peak memory is not measured.

    Attributes:
        batch_size: Images in one inference.
        n_threads: Of onnxruntime's operators on the CPU.
        execution_provider: What runs the graph; operators that it does not have run on the CPU.
        precision: Of weights, images and activations; the exported graph is converted.
        index: Which of the CUDA devices that this process sees, for cuda and tensorrt.
        n_runs: Timed inferences, at most.
        relative_interval: Enough inferences are timed when the 95 % interval of their median is at most this share
            of it wide; a reading that stays wider is repeated once. `None` to time `n_runs`, once.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For the timed inferences and their warm-up, looked at between them; as much again for a first
            one, which is stopped at its next operator. Export and the session's start are not counted.
    """

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms"})

    batch_size: Annotated[int, Gt(0), Le(10**6)] = 1
    n_threads: Annotated[int, Gt(0), Le(1024)] = 1
    execution_provider: Literal["cpu", "cuda", "tensorrt", "coreml", "openvino", "xnnpack"] = "cpu"
    precision: Literal["float32", "float16"] = "float32"
    index: Annotated[int, Ge(0), Le(1023)] = 0
    n_runs: Annotated[int, Gt(0), Le(10**6)] = 200
    relative_interval: Annotated[float, Gt(0), Le(100)] | None = 0.02
    n_warmup: Annotated[int, Ge(0), Le(10**6)] | None = None
    time_limit_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] = 30.0

    def __post_init__(self) -> None:
        if self.index > 0 and self.execution_provider not in ON_CUDA:
            raise ValueError(f"index must be 0 unless execution_provider is cuda or tensorrt, got {self.index}")

    def check(self) -> None:
        """See `Device.check`."""
        self._timing.check()

    def processor(self) -> str:
        """See `Device.processor`."""
        return str(torch.cuda.get_device_name(self.index)) if self._torch_sees_it else processor_name()

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`."""
        require_eval_mode(model)
        require_input_shape(input_shape)
        self.check()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            try:
                written = write_onnx_to_measure(model, input_shape, path)
            except OnnxExportError as fault:
                raise MeasurementError(f"onnxruntime cannot run the model: {fault}") from fault
            stats = self.measure_file(path, input_shape)
        writer = {"onnx_writer": "torch.onnx", "onnx_writer_reason": written.untranslated}
        said = writer if written.untranslated else {"onnx_writer": "latency.graph"}
        return replace(stats, conditions={**stats.conditions, **said})

    def measure_file(self, path: Path, input_shape: tuple[int, ...]) -> LatencyStats:
        """Time the inference of an ONNX file with one floating-point input.

        Args:
            path: The file.
            input_shape: `(C, H, W)`, without the batch, which is the device's own option.

        Raises:
            DeviceUnavailableError: If the execution provider is not here.
            MeasurementError: If the file fails there or the time limit passes without a reading.
        """
        shape = (self.batch_size, *require_input_shape(input_shape))
        self.check()
        with failures_explained(f"onnxruntime ({self.execution_provider})", shape):
            source = str(path) if self.precision == "float32" else _as_float16(path)
            return self._timing.time(source, shape, lambda: self._conditions(input_shape))

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """Refuse: there is no honest way.

        Raises:
            UnsupportedMeasurementError: Always.
        """
        raise UnsupportedMeasurementError(
            "onnxruntime does not tell its peak memory: use peak_memory_bytes on torch_cpu or torch_cuda"
        )

    @property
    def _timing(self) -> OnnxTiming:
        return OnnxTiming(
            execution_provider=self.execution_provider,
            n_threads=self.n_threads,
            index=self.index,
            n_runs=self.n_runs,
            relative_interval=self.relative_interval,
            n_warmup=self.n_warmup,
            time_limit_s=self.time_limit_s,
        )

    def _conditions(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "device": f"cuda:{self.index}" if self._timing.is_on_cuda else "cpu",
            "processor": self.processor(),
            **self._timing.conditions((self.batch_size, *input_shape)),
            "torch_version": torch.__version__,
            "precision": self.precision,
            **self._clock_conditions(),
        }

    @property
    def _torch_sees_it(self) -> bool:
        return self._timing.is_on_cuda and torch.cuda.device_count() > self.index

    def _clock_conditions(self) -> dict[str, Any]:
        if not self._timing.is_on_cuda:
            return cpu_conditions()
        return cuda_conditions(pci_bus_id(self.index)) if self._torch_sees_it else {}


def _as_float16(path: Path) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - slow, seldom wanted

    graph = convert_float_to_float16(onnx.load(path), disable_shape_infer=False)
    content: bytes = graph.SerializeToString()
    return content
