"""Why does a small model take hundreds of megabytes? Each part of a process's memory by its own figure."""

import copy
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latency.checks import require_eval_mode
from latency.errors import DeviceUnavailableError, MeasurementError
from latency.graph.operator_graph import OperatorGraph, StorageKind
from latency.graph.tracer import graph_from_torch
from latency.inference import example_input, failures_explained, interrupted_after
from latency.memory.estimate import CUDA_BLOCK_BYTES, MemoryEstimate, estimate_peak_memory
from latency.memory.measure import allocation_peak_cpu, peak_allocated_cuda
from latency.memory.training import OptimizerFactory, mean_of_outputs, trace_training_step
from latency.sizes import require_positive

_CONTEXT_PROGRAM = (
    "import sys, torch; t = torch.empty(1, device=sys.argv[1]); torch.cuda.synchronize(); "
    "print(torch.cuda.memory_reserved(t.device), flush=True); sys.stdin.read()"
)
_CONTEXT_TIME_LIMIT_S = 120.0


class Source(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    REMAINDER = "remainder"


@dataclass(frozen=True)
class MemoryPart:
    """One line of a breakdown.

    Attributes:
        name: Of all runs `weights`, `input`, `activations`, `gradients`, `optimizer_state` and `unexplained`; on the
            CPU also `operator_scratch` and `process`; on CUDA also `workspace`, `context`, `libraries` and
            `reserve`.
        n_bytes: At the peak. The remainder alone may be negative.
        source: Where the figure comes from.
        meaning: One sentence for the user.
    """

    name: str
    n_bytes: int
    source: Source
    meaning: str


@dataclass(frozen=True)
class MemoryBreakdown:
    """All that a process with this model takes on one device, at the peak.

    Attributes:
        device: `"cpu"` or `"cuda:0"`.
        parts: Largest first.
        measured_peak_bytes: What torch's allocator had handed out at the peak, weights and input included. All
            parts add up to it but `process`, `context`, `libraries` and `reserve`, which lie outside.
    """

    device: str
    parts: tuple[MemoryPart, ...]
    measured_peak_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return sum(part.n_bytes for part in self.parts)

    def __getitem__(self, name: str) -> int:
        """Return the bytes of a part; 0 if this device or run has no such part."""
        return sum(part.n_bytes for part in self.parts if part.name == name)


def memory_breakdown(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch_size: int = 1,
    device: str = "cpu",
    optimizer: OptimizerFactory | None = None,
    loss: Callable[[Any], torch.Tensor] = mean_of_outputs,
    time_limit_s: float = 60.0,
) -> MemoryBreakdown:
    """Run an inference, or a training step, and say where its memory goes.

    On CUDA nothing else should start or stop on the device meanwhile: what is outside torch's allocator is
    seen as a difference in the device's free memory.

    Args:
        model: In eval mode for an inference, in train mode for a step. It is not changed.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: Images in the batch.
        device: Where to run, such as `"cpu"` or `"cuda:0"`.
        optimizer: Makes the optimiser of a training step; `None` for an inference.
        loss: Of a training step.
        time_limit_s: For one run; two or three are made.

    Raises:
        ValueError: If an option or the model's mode is wrong.
        DeviceUnavailableError: If torch sees no such device.
        MeasurementError: If the model fails there or takes longer than the limit.
        TracingError: If it can't be traced.
    """
    place = _checked(device)
    require_positive(time_limit_s=time_limit_s)
    if optimizer is None:
        require_eval_mode(model)
        graph = graph_from_torch(model, input_shape, batch_size=batch_size)
    else:
        graph = trace_training_step(model, input_shape, batch_size=batch_size, optimizer=optimizer, loss=loss)
    shape = (batch_size, *input_shape)
    estimate = estimate_peak_memory(graph, block_bytes=CUDA_BLOCK_BYTES if place.type == "cuda" else 1)
    measure = _on_cuda if place.type == "cuda" else _on_cpu
    with failures_explained(device, shape):
        prepare = functools.partial(_prepared, model, shape, place, optimizer, loss, time_limit_s)
        parts, peak = measure(graph, estimate, prepare, place)
    parts = sorted((part for part in parts if part.n_bytes), key=lambda part: -part.n_bytes)
    return MemoryBreakdown(str(place), tuple(parts), peak)


def _checked(device: str) -> torch.device:
    place = torch.device(device)
    if place.type not in {"cpu", "cuda"}:
        raise ValueError(f"device must be on the CPU or CUDA, got {device!r}")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(f"torch sees {torch.cuda.device_count()} CUDA devices here, got {device!r}")
    return place if place.type == "cpu" else torch.device("cuda", place.index or 0)


def _prepared(
    model: nn.Module,
    shape: tuple[int, ...],
    device: torch.device,
    optimizer: OptimizerFactory | None,
    loss: Callable[[Any], torch.Tensor],
    time_limit_s: float,
) -> Callable[[], object]:
    """Return one inference or training step, ready to run; the caller's model is not trained."""
    image = example_input(shape, device, torch.float32)
    placed = copy.deepcopy(model).to(device)
    run: Callable[[], object] = functools.partial(_infer, placed, image)
    if optimizer is not None:
        updates = optimizer([parameter for parameter in placed.parameters() if parameter.requires_grad])
        run = functools.partial(_train, placed, image, updates, loss)

    def call() -> object:
        with interrupted_after(time_limit_s, placed):
            return run()

    return call


def _infer(model: nn.Module, image: torch.Tensor) -> object:
    with torch.inference_mode():
        return model(image)


def _train(
    model: nn.Module, image: torch.Tensor, optimizer: torch.optim.Optimizer, loss: Callable[[Any], torch.Tensor]
) -> None:
    output = model(image)
    value = loss(output)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _estimated_parts(estimate: MemoryEstimate) -> list[MemoryPart]:
    kinds = estimate.bytes_by_kind
    figures = {
        "weights": (estimate.weights_bytes, "parameters and buffers"),
        "input": (estimate.input_bytes, "the batch of images"),
        "activations": (estimate.activations_bytes, "results of operators that are still needed or held at the peak"),
        "gradients": (kinds[StorageKind.GRADIENT], "gradients of the parameters that exist at the peak"),
        "optimizer_state": (kinds[StorageKind.OPTIMIZER_STATE], "what the optimiser keeps for each parameter"),
    }
    return [MemoryPart(name, size, Source.ESTIMATED, meaning) for name, (size, meaning) in figures.items()]


def _always_there(estimate: MemoryEstimate) -> int:
    return estimate.weights_bytes + estimate.input_bytes + estimate.bytes_by_kind[StorageKind.OPTIMIZER_STATE]


def _remainder(measured: int, parts: list[MemoryPart]) -> MemoryPart:
    missing = measured - sum(part.n_bytes for part in parts)
    return MemoryPart("unexplained", missing, Source.REMAINDER, "measured, less the parts above: the estimate's error")


def _on_cpu(
    graph: OperatorGraph, estimate: MemoryEstimate, prepare: Callable[[], Callable[[], object]], device: torch.device
) -> tuple[list[MemoryPart], int]:
    resident = _resident_bytes()
    call = prepare()
    call()
    peak = allocation_peak_cpu(call, {operator.name for operator in graph.operators})
    parts = _estimated_parts(estimate)
    parts.append(
        MemoryPart(
            "operator_scratch",
            peak.n_bytes - peak.without_scratch_bytes,
            Source.MEASURED,
            "by how much operators' own working memory (oneDNN, im2col) raises the peak",
        )
    )
    measured = _always_there(estimate) + peak.n_bytes
    parts.append(_remainder(measured, parts))
    if resident is not None:
        meaning = "resident memory of Python, torch, its libraries and all else in this process, before the run"
        parts.append(MemoryPart("process", resident, Source.MEASURED, meaning))
    return parts, measured


def _resident_bytes() -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = (line.split() for line in status.read_text(encoding="ascii").splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "VmRSS:"), None)


def _on_cuda(
    graph: OperatorGraph, estimate: MemoryEstimate, prepare: Callable[[], Callable[[], object]], device: torch.device
) -> tuple[list[MemoryPart], int]:
    with torch.cuda.device(device):
        context = _context_bytes(device)
        torch.cuda.empty_cache()
        held, outside = torch.cuda.memory_allocated(device), _outside_allocator_bytes(device)
        call = prepare()
        call()  # loads kernels
        workspace = _free_workspaces(device)
        call()
        peak_allocated_cuda(call, device)  # resets and then sets the counters that are read below
        peak = torch.cuda.max_memory_allocated(device)
        reserve = torch.cuda.max_memory_reserved(device) - peak
        libraries = _outside_allocator_bytes(device) - outside
    parts = _estimated_parts(estimate)
    parts.append(MemoryPart("workspace", workspace, Source.MEASURED, "what torch's allocator keeps for cuBLAS"))
    parts.append(_remainder(peak - held, parts))
    parts += [
        MemoryPart("context", context, Source.MEASURED, "what the driver takes for any process on the device"),
        MemoryPart("libraries", libraries, Source.MEASURED, "kernels and handles that the first run loaded"),
        MemoryPart("reserve", reserve, Source.MEASURED, "segments that torch's allocator holds beyond what is used"),
    ]
    return parts, peak - held


def _context_bytes(device: torch.device) -> int:
    """Return what a new process takes on `device` by being there, seen from this one.

    This process's own context is there already and does not show in a difference, so another one is started.
    """
    torch.empty(1, device=device)
    before, _ = torch.cuda.mem_get_info(device)
    command = [sys.executable, "-c", _CONTEXT_PROGRAM, str(device)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        watchdog = threading.Timer(_CONTEXT_TIME_LIMIT_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            reserved = process.stdout.readline()
            after, _ = torch.cuda.mem_get_info(device)
            process.communicate("")
        finally:
            watchdog.cancel()
    if not reserved:
        raise MeasurementError(
            f"a process that only opens {device} failed or took over {_CONTEXT_TIME_LIMIT_S:g} s: check that the "
            "device takes more than one process (nvidia-smi: compute mode) and has 1 GB free"
        )
    return before - after - int(reserved)


def _outside_allocator_bytes(device: torch.device) -> int:
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def _free_workspaces(device: torch.device) -> int:
    """Free cuBLAS's workspaces, which the next matrix product allocates again, and return their bytes."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch._C._cuda_clearCublasWorkspaces()
    return before - torch.cuda.memory_allocated(device)
