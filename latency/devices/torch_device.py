"""torch on the CPU and on CUDA."""

import os
import platform
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Unit
from pydantic.dataclasses import dataclass as options
from torch import nn

from latency.checks import require_eval_mode
from latency.devices.base import OPTIONS, Device, MemoryReading
from latency.errors import DeviceUnavailableError
from latency.inference import (
    example_input,
    failures_explained,
    interrupted_after,
    pci_bus_id,
    placed,
    torch_threads,
    weights_bytes,
)
from latency.memory.measure import peak_allocated_cpu, peak_allocated_cuda
from latency.sizes import require_input_shape
from latency.timing.calls import Stopwatch, time_until_stable
from latency.timing.clocks import cpu_conditions, cuda_conditions, interruption_counter, processor_name
from latency.timing.energy import EnergyCounter, EnergyReading, NvmlCounter, RaplCounter, measure_energy
from latency.timing.stats import LatencyStats

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class _Inference:
    """A model and its input in place, ready to be called."""

    call: Callable[[], object]
    weights_bytes: int
    input_bytes: int


class _TorchDevice(Device):
    """What torch's devices have in common; subclasses are dataclasses with these fields among others."""

    metrics: ClassVar[frozenset[str]] = frozenset({"latency_ms", "peak_memory_bytes", "energy_mj"})
    batch_size: int
    precision: str
    n_runs: int
    relative_interval: float | None
    n_warmup: int | None
    time_limit_s: float
    channels_last: bool
    compile: bool

    @property
    @abstractmethod
    def _device(self) -> torch.device: ...

    @property
    @abstractmethod
    def _stopwatch(self) -> Stopwatch | None: ...

    @property
    def _n_interruptions(self) -> Callable[[], int] | None:
        return None

    @abstractmethod
    def _settings(self) -> AbstractContextManager[None]:
        """Return the process-wide settings of a measurement, undone at its end."""

    @abstractmethod
    def _synchronize(self) -> None: ...

    @abstractmethod
    def _peak_allocated(self, call: Callable[[], object]) -> int: ...

    @abstractmethod
    def _own_conditions(self) -> dict[str, Any]: ...

    @abstractmethod
    def _timing_conditions(self) -> dict[str, Any]:
        """Return what only a latency depends on, read when it has been taken."""

    @abstractmethod
    def _energy_counter(self) -> EnergyCounter:
        """Return the counter of the device; raises `DeviceUnavailableError` where there is none."""

    def _timed_call(self, call: Callable[[], object]) -> Callable[[], object]:
        """Return what is timed in place of `call`, which has run once."""
        return call

    @property
    def _dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]

    def measure_latency(self, model: nn.Module, input_shape: tuple[int, ...]) -> LatencyStats:
        """See `Device.measure_latency`."""
        with self._ready(model, input_shape) as inference:
            times, n_readings = time_until_stable(
                self._timed_call(inference.call),
                relative_interval=self.relative_interval,
                n_runs=self.n_runs,
                n_warmup=self.n_warmup,
                time_limit_s=self.time_limit_s,
                synchronize=self._synchronize,
                stopwatch=self._stopwatch,
                n_interruptions=self._n_interruptions,
            )
            conditions = self._conditions(input_shape) | self._timing_conditions()
        return LatencyStats.from_reading(times, n_readings, self.relative_interval, conditions)

    def measure_peak_memory(self, model: nn.Module, input_shape: tuple[int, ...]) -> MemoryReading:
        """See `Device.measure_peak_memory`; the parts of the sum stand in the conditions."""
        with self._ready(model, input_shape) as inference:
            parts = {
                "weights_bytes": inference.weights_bytes,
                "input_bytes": inference.input_bytes,
                "activations_bytes": self._peak_allocated(inference.call),
            }
            conditions = self._conditions(input_shape)
        return MemoryReading(sum(parts.values()), conditions | parts)

    def check_energy(self) -> None:
        """See `Device.check_energy`."""
        self._energy_counter().read_j()

    def measure_energy(self, model: nn.Module, input_shape: tuple[int, ...]) -> EnergyReading:
        """See `Device.measure_energy`: the processor's or GPU's own counter, over windows of seconds."""
        counter = self._energy_counter()
        with self._ready(model, input_shape) as inference:
            found = measure_energy(self._timed_call(inference.call), counter, synchronize=self._synchronize)
            return replace(found, device=self._conditions(input_shape))

    @contextmanager
    def _ready(self, model: nn.Module, input_shape: tuple[int, ...]) -> Iterator[_Inference]:
        require_eval_mode(model)
        shape = (self.batch_size, *require_input_shape(input_shape))
        self.check()
        with failures_explained(str(self._device), shape), self._settings(), torch.inference_mode():
            moved = placed(model, self._device, self._dtype, channels_last=self.channels_last)
            image = example_input(shape, self._device, self._dtype, channels_last=self.channels_last)
            if self.compile:
                moved = self._compiled(moved, image)
            with interrupted_after(self.time_limit_s, moved):
                moved(image)
                self._synchronize()
            yield _Inference(lambda: moved(image), weights_bytes(moved), image.untyped_storage().nbytes())

    def _compiled(self, model: nn.Module, image: torch.Tensor) -> nn.Module:
        """Return the model compiled for this input; its first call, which compiles, has been made."""
        torch.compiler.reset()  # or the models before would make it give up
        compiled: Any = torch.compile(model, dynamic=False)
        compiled(image)
        self._synchronize()
        found: nn.Module = compiled
        return found

    def _conditions(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "runtime": "torch.compile" if self.compile else "torch",
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "system": platform.platform(),
            "precision": str(self._dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
            "input_shape": [int(size) for size in input_shape],
            "channels_last": self.channels_last,
            **self._own_conditions(),
        }


@options(frozen=True, config=OPTIONS)
class TorchCpuDevice(_TorchDevice):
    """torch on this machine's processor, its caches warm from the call before.

    Attributes:
        batch_size: Images in one inference.
        n_threads: Of torch's operators; the process gets its own number back afterwards.
        precision: Type of weights, images and activations.
        n_runs: Timed inferences, at most.
        relative_interval: Enough inferences are timed when the 95 % interval of their median is at most this share
            of it wide; a reading that stays wider is repeated once. `None` to time `n_runs`, once.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For the timed inferences and their warm-up, looked at between them; as much again for a first
            one, looked at whenever one of its modules starts. What runs within one module is not stopped.
        channels_last: Whether images and weights lie in memory as `(B, H, W, C)`; takes 4-D inputs.
        compile: Whether the model is compiled first by `torch.compile`, which takes a compiler, and seconds to minutes
            that are neither measured nor bounded by `time_limit_s`.
    """

    batch_size: Annotated[int, Gt(0), Le(10**6)] = 1
    n_threads: Annotated[int, Gt(0), Le(1024)] = 1
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    n_runs: Annotated[int, Gt(0), Le(10**6)] = 200
    relative_interval: Annotated[float, Gt(0), Le(100)] | None = 0.02
    n_warmup: Annotated[int, Ge(0), Le(10**6)] | None = None
    time_limit_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] = 30.0
    channels_last: bool = False
    compile: bool = False

    def check(self) -> None:
        """See `Device.check`: torch runs on every processor that imports it; compiling takes a compiler."""
        if self.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
            raise DeviceUnavailableError("compile needs a C++ compiler: install g++, or leave compile out")

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def _stopwatch(self) -> Stopwatch | None:
        return None

    @property
    def _n_interruptions(self) -> Callable[[], int] | None:
        return interruption_counter()

    def processor(self) -> str:
        """See `Device.processor`."""
        return processor_name()

    def _energy_counter(self) -> EnergyCounter:
        return RaplCounter()

    def _settings(self) -> AbstractContextManager[None]:
        return torch_threads(self.n_threads)

    def _synchronize(self) -> None:
        """Pass: a call on the CPU returns when it is done."""

    def _peak_allocated(self, call: Callable[[], object]) -> int:
        return peak_allocated_cpu(call)

    def _own_conditions(self) -> dict[str, Any]:
        return {"device": "cpu", "processor": self.processor(), "n_threads": self.n_threads}

    def _timing_conditions(self) -> dict[str, Any]:
        return {"cache": "warm", **cpu_conditions()}


@options(frozen=True, config=OPTIONS)
class TorchCudaDevice(_TorchDevice):
    """torch on a CUDA device, timed by CUDA events.

    Attributes:
        batch_size: Images in one inference.
        precision: Type of weights, images and activations.
        index: Which of the CUDA devices that torch sees.
        n_runs: Timed inferences, at most.
        relative_interval: Enough inferences are timed when the 95 % interval of their median is at most this share
            of it wide; a reading that stays wider is repeated once. `None` to time `n_runs`, once.
        n_warmup: Inferences before the timed ones; `None` for as many as it takes to settle.
        time_limit_s: For the timed inferences and their warm-up, looked at between them; as much again for a first
            one, looked at whenever one of its modules starts. What runs within one module is not stopped.
        channels_last: Whether images and weights lie in memory as `(B, H, W, C)`; takes 4-D inputs.
        compile: Whether the model is compiled first by `torch.compile`, which takes a compiler, and seconds to minutes
            that are neither measured nor bounded by `time_limit_s`.
        cuda_graph: Whether the inference is captured once and replayed, without Python's and the launches' time.
        l2_cache: What the L2 cache holds at the start: what the call before left there, or nothing of the model.
    """

    batch_size: Annotated[int, Gt(0), Le(10**6)] = 1
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    index: Annotated[int, Ge(0), Le(1023)] = 0
    n_runs: Annotated[int, Gt(0), Le(10**6)] = 500
    relative_interval: Annotated[float, Gt(0), Le(100)] | None = 0.01
    n_warmup: Annotated[int, Ge(0), Le(10**6)] | None = None
    time_limit_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] = 30.0
    channels_last: bool = False
    compile: bool = False
    cuda_graph: bool = False
    l2_cache: Literal["warm", "cold"] = "warm"

    def check(self) -> None:
        """See `Device.check`."""
        if not torch.cuda.is_available():
            raise DeviceUnavailableError(
                "torch sees no CUDA device here: use a machine that has one with a CUDA build of torch, "
                "or the device torch_cpu"
            )
        if self.index >= torch.cuda.device_count():
            raise DeviceUnavailableError(
                f"there is no CUDA device {self.index}: torch sees {torch.cuda.device_count()}"
            )

    @property
    def _device(self) -> torch.device:
        return torch.device("cuda", self.index)

    @property
    def _stopwatch(self) -> Stopwatch | None:
        if self.l2_cache == "warm":
            return self._event_seconds
        # Twice the cache: writing it leaves nothing else there, whatever the cache's way of replacing lines.
        n_bytes = 2 * torch.cuda.get_device_properties(self._device).L2_cache_size
        waste = torch.empty(n_bytes, dtype=torch.int8, device=self._device)

        def after_flush(call: Callable[[], object]) -> float:
            waste.zero_()
            return self._event_seconds(call)

        return after_flush

    def processor(self) -> str:
        """See `Device.processor`."""
        self.check()
        return str(torch.cuda.get_device_name(self._device))

    def _energy_counter(self) -> EnergyCounter:
        self.check()
        return NvmlCounter(pci_bus_id(self.index))

    def _settings(self) -> AbstractContextManager[None]:
        # Events are recorded on the current device's stream: it must be the one that is measured.
        return torch.cuda.device(self.index) if torch.cuda.is_available() else nullcontext()

    def _synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def _timed_call(self, call: Callable[[], object]) -> Callable[[], object]:
        if not self.cuda_graph:
            return call
        # As torch asks: what libraries set up at a first call on a stream must be done before the capture.
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # By itself torch captures on a stream of whichever device was current at the process's first capture.
        with torch.cuda.graph(graph, stream=stream):
            call()
        return graph.replay

    def _event_seconds(self, call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000.0

    def _peak_allocated(self, call: Callable[[], object]) -> int:
        return peak_allocated_cuda(call, self._device)

    def _own_conditions(self) -> dict[str, Any]:
        return {
            "device": f"cuda:{self.index}",
            "processor": self.processor(),
            "cuda_version": torch.version.cuda,
            "cudnn_version": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }

    def _timing_conditions(self) -> dict[str, Any]:
        return {
            "timer": "cuda_events",
            "cuda_graph": self.cuda_graph,
            "l2_cache": self.l2_cache,
            **cuda_conditions(pci_bus_id(self.index)),
        }
