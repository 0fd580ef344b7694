"""onnxruntime, on any of its execution providers that is here."""

import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from annotated_types import Ge, Gt, Le, Unit
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.checks import require_eval_mode, require_input_shape
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.errors import DeviceUnavailableError, MeasurementError, OnnxExportError, UnsupportedMeasurementError
from latency.graph.onnx_writer import write_onnx_to_measure
from latency.inference import example_input, failures_explained, pci_bus_id, processor_name
from latency.timing.calls import time_until_stable
from latency.timing.clocks import cpu_conditions, cuda_conditions, interruption_counter
from latency.timing.stats import LatencyStats

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_ON_CUDA = ("cuda", "tensorrt")
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


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
    execution_provider: Literal["cpu", "cuda", "tensorrt", "coreml"] = "cpu"
    precision: Literal["float32", "float16"] = "float32"
    index: Annotated[int, Ge(0), Le(1023)] = 0
    n_runs: Annotated[int, Gt(0), Le(10**6)] = 200
    relative_interval: Annotated[float, Gt(0), Le(100)] | None = 0.02
    n_warmup: Annotated[int, Ge(0), Le(10**6)] | None = None
    time_limit_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] = 30.0

    def __post_init__(self) -> None:
        if self.index > 0 and self.execution_provider not in _ON_CUDA:
            raise ValueError(f"index must be 0 unless execution_provider is cuda or tensorrt, got {self.index}")

    def check(self) -> None:
        """See `Device.check`."""
        here = onnxruntime.get_available_providers()
        if _PROVIDERS[self.execution_provider] not in here:
            raise DeviceUnavailableError(
                f"onnxruntime {onnxruntime.__version__} has no {_PROVIDERS[self.execution_provider]} here, only "
                f"{', '.join(here)}: install the build of onnxruntime that has it, or use execution_provider cpu"
            )

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
            session = self._session(path)
            call = self._call(session, shape)
            times, n_readings = time_until_stable(
                call,
                relative_interval=self.relative_interval,
                n_runs=self.n_runs,
                n_warmup=self.n_warmup,
                time_limit_s=self.time_limit_s,
                n_interruptions=None if self._on_cuda else interruption_counter(),
            )
        conditions = self._conditions(input_shape) | {"providers_used": session.get_providers()}
        return LatencyStats.from_reading(times, n_readings, self.relative_interval, conditions)

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """Refuse: there is no honest way.

        Raises:
            UnsupportedMeasurementError: Always.
        """
        raise UnsupportedMeasurementError(
            "onnxruntime does not tell its peak memory: use peak_memory_bytes on torch_cpu or torch_cuda"
        )

    def _session(self, path: Path) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = _PROVIDERS[self.execution_provider]
        source = str(path) if self.precision == "float32" else _as_float16(path)
        session = onnxruntime.InferenceSession(source, options, providers=[(provider, self._provider_options)])
        # onnxruntime goes on with the CPU when a provider's libraries cannot be loaded, and only logs it.
        if provider not in session.get_providers():
            raise DeviceUnavailableError(
                f"onnxruntime could not start {provider} and has only {', '.join(session.get_providers())}: "
                "check that the libraries it needs (CUDA, cuDNN, TensorRT) are installed in its versions"
            )
        return session

    @property
    def _on_cuda(self) -> bool:
        return self.execution_provider in _ON_CUDA

    @property
    def _provider_options(self) -> dict[str, int]:
        return {"device_id": self.index} if self._on_cuda else {}

    def _call(self, session: Any, shape: tuple[int, ...]) -> Callable[[], object]:
        """Return one inference with its input in place, after a first one under the time limit."""
        given = session.get_inputs()
        if len(given) != 1 or given[0].type not in _INPUT_TYPES:
            kinds = ", ".join(f"{one.name}: {one.type}" for one in given)
            raise MeasurementError(f"the graph must have one floating-point input, got {kinds or 'none'}")
        where = ("cuda" if self._on_cuda else "cpu", self.index)
        image = _numbers(shape).astype(_INPUT_TYPES[given[0].type])
        binding = session.io_binding()
        binding.bind_ortvalue_input(given[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(image, *where))
        for output in session.get_outputs():
            binding.bind_output(output.name, *where)
        with _terminated_after(self.time_limit_s) as options:
            session.run_with_iobinding(binding, options)
        return lambda: session.run_with_iobinding(binding)

    def _conditions(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        torch_sees_it = self._on_cuda and torch.cuda.device_count() > self.index
        return {
            "device": f"cuda:{self.index}" if self._on_cuda else "cpu",
            "processor": torch.cuda.get_device_name(self.index) if torch_sees_it else processor_name(),
            "runtime": "onnxruntime",
            "onnxruntime_version": onnxruntime.__version__,
            "execution_provider": _PROVIDERS[self.execution_provider],
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "system": platform.platform(),
            "precision": self.precision,
            "batch_size": self.batch_size,
            "input_shape": [int(size) for size in input_shape],
            "n_threads": self.n_threads,
            "cache": "warm",
            **self._clock_conditions(torch_sees_it),
        }

    def _clock_conditions(self, torch_sees_it: bool) -> dict[str, Any]:
        if not self._on_cuda:
            return cpu_conditions()
        return cuda_conditions(pci_bus_id(self.index)) if torch_sees_it else {}


@contextmanager
def _terminated_after(time_limit_s: float) -> Iterator[Any]:
    """Yield onnxruntime's options of a run that stops, at its next operator, after the limit.

    Raises:
        MeasurementError: From within the block, when the time is up.
    """
    options = onnxruntime.RunOptions()
    is_late = threading.Event()

    def terminate() -> None:
        is_late.set()
        options.terminate = True

    timer = threading.Timer(time_limit_s, terminate)
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception as fault:
        if not is_late.is_set():
            raise
        raise MeasurementError(
            f"one inference takes over {time_limit_s:g} s and was stopped. "
            "Give more time (time_limit_s), a smaller input or a smaller batch_size"
        ) from fault
    finally:
        timer.cancel()


def _as_float16(path: Path) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - slow, seldom wanted

    graph = convert_float_to_float16(onnx.load(path), disable_shape_infer=False)
    content: bytes = graph.SerializeToString()
    return content


def _numbers(shape: tuple[int, ...]) -> Any:
    return example_input(shape, torch.device("cpu"), torch.float32).numpy()
