"""onnxruntime on the CPU."""

import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime
import torch
from torch import nn

from latency.checks import require_eval_mode, require_input_shape, require_positive
from latency.devices.base import Device, MemoryReading
from latency.errors import MeasurementError, OnnxExportError, UnsupportedMeasurementError
from latency.inference import example_input, failures_explained, processor_name
from latency.onnx_graph import write_onnx
from latency.stats import LatencyStats
from latency.timing import time_calls


@dataclass(frozen=True)
class OnnxDevice(Device):
    """onnxruntime in float32 on this machine's processor; each model is exported first, which takes seconds.

    onnxruntime's Python interface gives no statistics of its memory arena: peak memory is not measured.

    Attributes:
        batch_size: Images in one inference.
        n_threads: Of onnxruntime's operators.
        n_runs: Timed inferences, at most.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For one measurement, the export not counted.
    """

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms"})

    batch_size: int = 1
    n_threads: int = 1
    n_runs: int = 30
    n_warmup: int | None = None
    time_limit_s: float = 30.0

    def __post_init__(self) -> None:
        require_positive(
            batch_size=self.batch_size,
            n_threads=self.n_threads,
            n_runs=self.n_runs,
            time_limit_s=self.time_limit_s,
        )
        if self.n_warmup is not None and self.n_warmup < 0:
            raise ValueError(f"n_warmup must be at least 0, got {self.n_warmup}")

    def check(self) -> None:
        """Pass: onnxruntime always has its CPU provider."""

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`."""
        require_eval_mode(model)
        shape = (self.batch_size, *require_input_shape(input_shape))
        with failures_explained("onnxruntime", shape):
            session = self._session(model, input_shape)
            feed = {session.get_inputs()[0].name: _numbers(shape)}
            times = time_calls(
                lambda: session.run(None, feed),
                n_runs=self.n_runs,
                n_warmup=self.n_warmup,
                time_limit_s=self.time_limit_s,
            )
        conditions = self._conditions(input_shape)
        conditions |= {"n_warmup": times.n_warmup, "is_warm_up_settled": times.is_settled}
        return LatencyStats.from_times_s(times.times_s, conditions)

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """Refuse: there is no honest way.

        Raises:
            UnsupportedMeasurementError: Always.
        """
        raise UnsupportedMeasurementError(
            "onnxruntime does not tell its peak memory: use peak_memory_bytes on torch_cpu or torch_cuda"
        )

    def _session(self, model: nn.Module, input_shape: tuple[int, ...]) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            try:
                write_onnx(model, input_shape, path)
            except OnnxExportError as fault:
                raise MeasurementError(f"onnxruntime cannot run the model: {fault}") from fault
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _conditions(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "device": "cpu",
            "processor": processor_name(),
            "runtime": "onnxruntime",
            "onnxruntime_version": onnxruntime.__version__,
            "execution_provider": "CPUExecutionProvider",
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "system": platform.platform(),
            "precision": "float32",
            "batch_size": self.batch_size,
            "input_shape": [int(size) for size in input_shape],
            "n_threads": self.n_threads,
        }


def _numbers(shape: tuple[int, ...]) -> Any:
    return example_input(shape, torch.device("cpu"), torch.float32).numpy()
