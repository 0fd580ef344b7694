"""An ONNX file timed by onnxruntime; needs no torch, so that a small board can do it."""

import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from latency.errors import DeviceUnavailableError, MeasurementError
from latency.timing.calls import time_until_stable
from latency.timing.clocks import interruption_counter
from latency.timing.stats import LatencyStats

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
ON_CUDA = ("cuda", "tensorrt")
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class OnnxTiming:
    """How a file is run and timed; the options of `OnnxDevice`.

    Attributes:
        execution_provider: One of `PROVIDERS`.
        n_threads: Of onnxruntime's operators on the CPU.
        index: Of a CUDA device.
        n_runs: Timed inferences, at most.
        relative_interval: What counts as stable; `None` to time `n_runs`, once.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For the timed inferences and their warm-up; as much again for a first one.
    """

    execution_provider: str = "cpu"
    n_threads: int = 1
    index: int = 0
    n_runs: int = 200
    relative_interval: float | None = 0.02
    n_warmup: int | None = None
    time_limit_s: float = 30.0

    @property
    def is_on_cuda(self) -> bool:
        """Whether input and output lie on a CUDA device."""
        return self.execution_provider in ON_CUDA

    def check(self) -> None:
        """Check that this build of onnxruntime has the provider.

        Raises:
            DeviceUnavailableError: If it has not.
        """
        here, wanted = onnxruntime.get_available_providers(), PROVIDERS[self.execution_provider]
        if wanted not in here:
            raise DeviceUnavailableError(
                f"onnxruntime {onnxruntime.__version__} has no {wanted} here, only {', '.join(here)}: install the "
                "build of onnxruntime that has it, or use execution_provider cpu"
            )

    def time(
        self, source: str | bytes, shape: tuple[int, ...], conditions: Callable[[], Mapping[str, Any]]
    ) -> LatencyStats:
        """Time the inference of an ONNX file with one floating-point input.

        Args:
            source: Its path, or its content.
            shape: Of the input, `(B, C, H, W)`.
            conditions: Called after the reading: what else to say of it, such as the processor's clock then.

        Raises:
            DeviceUnavailableError: If the provider cannot be started.
            MeasurementError: If the file has other inputs, or the time limit passes without a reading.
        """
        session = self._session(source)
        call = self._call(session, shape)
        times, n_readings = time_until_stable(
            call,
            relative_interval=self.relative_interval,
            n_runs=self.n_runs,
            n_warmup=self.n_warmup,
            time_limit_s=self.time_limit_s,
            n_interruptions=None if self.is_on_cuda else interruption_counter(),
        )
        said = {**conditions(), "providers_used": session.get_providers()}
        return LatencyStats.from_reading(times, n_readings, self.relative_interval, said)

    def conditions(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the conditions that need no torch to tell."""
        return {
            "runtime": "onnxruntime",
            "onnxruntime_version": onnxruntime.__version__,
            "execution_provider": PROVIDERS[self.execution_provider],
            "python_version": platform.python_version(),
            "system": platform.platform(),
            "batch_size": shape[0],
            "input_shape": [int(size) for size in shape[1:]],
            "n_threads": self.n_threads,
            "cache": "warm",
        }

    def _session(self, source: str | bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = PROVIDERS[self.execution_provider]
        own = {"device_id": self.index} if self.is_on_cuda else {}
        session = onnxruntime.InferenceSession(source, options, providers=[(provider, own)])
        # onnxruntime goes on with the CPU when a provider's libraries cannot be loaded, and only logs it.
        if provider not in session.get_providers():
            raise DeviceUnavailableError(
                f"onnxruntime could not start {provider} and has only {', '.join(session.get_providers())}: "
                "check that the libraries it needs (CUDA, cuDNN, TensorRT) are installed in its versions"
            )
        return session

    def _call(self, session: Any, shape: tuple[int, ...]) -> Callable[[], object]:
        """Return one inference with its input in place, after a first one under the time limit."""
        given = session.get_inputs()
        if len(given) != 1 or given[0].type not in _INPUT_TYPES:
            kinds = ", ".join(f"{one.name}: {one.type}" for one in given)
            raise MeasurementError(f"the graph must have one floating-point input, got {kinds or 'none'}")
        where = ("cuda" if self.is_on_cuda else "cpu", self.index)
        image = np.random.default_rng(0).standard_normal(shape).astype(_INPUT_TYPES[given[0].type])
        binding = session.io_binding()
        binding.bind_ortvalue_input(given[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(image, *where))
        for output in session.get_outputs():
            binding.bind_output(output.name, *where)
        with terminated_after(self.time_limit_s) as options:
            session.run_with_iobinding(binding, options)
        return lambda: session.run_with_iobinding(binding)


@contextmanager
def terminated_after(time_limit_s: float) -> Iterator[Any]:
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
