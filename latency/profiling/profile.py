"""What each module of a model costs, from its operators; and what share of the time, measured."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from latency.checks import require_eval_mode
from latency.counting.complexity import Complexity
from latency.graph.operator_graph import OperatorGraph, StorageKind
from latency.inference import example_input, failures_explained, interrupted_after, placed
from latency.sizes import require_input_shape, require_positive


@dataclass(frozen=True)
class ModuleCosts:
    """A row of a profile: a module with its own operators, or with those of the modules inside it.

    Attributes:
        module: Dotted path; empty for the model itself.
        n_params: Its own and, in a folded row, those inside it.
        n_macs: Multiply-adds of one sample.
        n_other_operations: Beside the multiply-adds, of one sample.
        n_operators: Views are operators too.
        output_shape: Of its last operator's first result, with the batch; empty if it runs none.
        activation_bytes: Of the tensors that it makes, whether or not all are alive at once.
        time_share: Of the time spent in all rows' modules, which leaves out containers that run no operators of
            their own; `None` if it was not measured.
    """

    module: str
    n_params: int
    n_macs: int
    n_other_operations: int
    n_operators: int
    output_shape: tuple[int, ...]
    activation_bytes: int
    time_share: float | None


def module_costs(
    graph: OperatorGraph,
    complexity: Complexity,
    *,
    module_times_s: Mapping[str, float] | None = None,
    depth: int | None = None,
) -> tuple[ModuleCosts, ...]:
    """Return a row for each module that owns operators or parameters, in the order in which they first run.

    Args:
        graph: The model's operators; shapes and bytes are those of its batch.
        complexity: The model's counts.
        module_times_s: By module, each module's own time.
        depth: Fold modules deeper than this into the one that holds them; 1 keeps the model's direct children.

    Raises:
        ValueError: If `depth` is not positive.
    """
    require_positive(depth=depth)
    params = _folded(complexity.params_by_module, depth)
    macs = _folded(complexity.macs_by_module, depth)
    others = _folded(complexity.other_operations_by_module, depth)
    n_operators: Counter[str] = Counter()
    activation_bytes: Counter[str] = Counter()
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    for operator in graph.operators:
        module = _fold(operator.module, depth)
        n_operators[module] += 1
        for tensor in (graph.tensors[number] for number in operator.outputs):
            storage = graph.storages[tensor.storage]
            if storage.kind is StorageKind.ACTIVATION and tensor.storage not in seen:
                seen.add(tensor.storage)
                activation_bytes[module] += storage.n_bytes
        if operator.outputs:
            shapes[module] = graph.tensors[operator.outputs[0]].shape
    times = _folded(module_times_s, depth) if module_times_s else None
    modules = tuple(dict.fromkeys((*n_operators, *params)))
    total_time = sum(times.get(module, 0.0) for module in modules) if times else 0.0
    return tuple(
        ModuleCosts(
            module=module,
            n_params=params.get(module, 0),
            n_macs=macs.get(module, 0),
            n_other_operations=others.get(module, 0),
            n_operators=n_operators[module],
            output_shape=shapes.get(module, ()),
            activation_bytes=activation_bytes[module],
            time_share=times.get(module, 0.0) / total_time if times and total_time > 0 else None,
        )
        for module in modules
    )


def module_times_s(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch_size: int = 1,
    device: str = "cpu",
    n_runs: int = 20,
    time_limit_s: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the seconds that each module spends in one inference outside the modules inside it: medians of runs.

    Watching every module costs some microseconds each: take shares from this, and latency from a device. torch's
    threads are left as they are. torch's fused path of transformer layers, which runs without the modules inside
    them, is switched off meanwhile: the operators timed are those that `OperatorGraph` lists.

    Args:
        model: In eval mode. Left as it was.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: Of the input.
        device: A torch device; a CUDA device is timed by its events, without waiting in between.
        n_runs: Inferences, at most; one more is made before.
        time_limit_s: For all of them, looked at between inferences, and in the first between modules.
        clock: Returns the time in seconds, for the limit and for a device that is not CUDA.

    Raises:
        ValueError: If `model` is in train mode or a size is not positive.
        MeasurementError: If the model fails on such an input, or the first inference takes longer than the limit.
    """
    require_eval_mode(model)
    require_positive(batch_size=batch_size, n_runs=n_runs, time_limit_s=time_limit_s)
    place, shape = torch.device(device), (batch_size, *require_input_shape(input_shape))
    mark, seconds = (_record_event, _event_seconds) if place.type == "cuda" else (clock, _difference)
    own_times: defaultdict[str, list[float]] = defaultdict(list)
    with failures_explained(str(place), shape), torch.inference_mode(), _without_fused_path():
        moved = placed(model, place, torch.float32, channels_last=False)
        image = example_input(shape, place, torch.float32)
        start = clock()
        with interrupted_after(time_limit_s, moved):
            moved(image)
        for run in range(n_runs):
            with _ModuleWatch(moved, mark) as watch:
                moved(image)
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            for name, own in watch.own_times(seconds).items():
                own_times[name].append(own)
            if run and clock() - start > time_limit_s:
                break
    return {name: max(0.0, median(values)) for name, values in own_times.items()}


@contextmanager
def _without_fused_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _ModuleWatch:
    """Marks the time, while entered, at which each module of a model starts and ends."""

    def __init__(self, model: nn.Module, mark: Callable[[], Any]) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._mark = mark
        self._events: list[tuple[str, bool, Any]] = []
        self._hooks: tuple[Any, ...] = ()

    def __enter__(self) -> "_ModuleWatch":
        # Global hooks: the model is not touched.
        self._hooks = (
            register_module_forward_pre_hook(lambda module, args: self._note(module, True)),
            register_module_forward_hook(lambda module, args, output: self._note(module, False)),
        )
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def own_times(self, seconds: Callable[[Any, Any], float]) -> dict[str, float]:
        """Return by module the time between marks during which it was the innermost one."""
        own: Counter[str] = Counter()
        stack: list[str] = []
        before: Any = None
        for name, is_start, moment in self._events:
            if stack:
                own[stack[-1]] += seconds(before, moment)  # type: ignore[assignment]  # a Counter adds floats too
            if is_start:
                stack.append(name)
            else:
                stack.pop()
            before = moment
        return dict(own)

    def _note(self, module: nn.Module, is_start: bool) -> None:
        if (name := self._names.get(module)) is not None:
            self._events.append((name, is_start, self._mark()))


def _record_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _event_seconds(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    return float(start.elapsed_time(end)) / 1000.0


def _difference(start: float, end: float) -> float:
    return end - start


def _fold(module: str, depth: int | None) -> str:
    return module if depth is None else ".".join(module.split(".")[:depth])


def _folded(by_module: Mapping[str, Any], depth: int | None) -> dict[str, Any]:
    folded: dict[str, Any] = {}
    for module, value in by_module.items():
        key = _fold(module, depth)
        folded[key] = folded.get(key, 0) + value
    return folded
