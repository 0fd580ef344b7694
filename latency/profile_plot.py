"""Memory over the operators of an inference, as numbers and as a figure with its peak marked."""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from latency.graph import OperatorGraph, StorageKind

_MIB = 2**20
_MAX_LISTED = 6
_ACTIVATIONS, _PEAK = "#1f6feb", "#d97706"


@dataclass(frozen=True)
class LiveTensor:
    """Memory that is in use at the peak.

    Attributes:
        made_by: The operator and module that made it, e.g. `"convolution in stem.0"`.
        shape: Of its first tensor; views of it do not count again.
        n_bytes: Its size.
    """

    made_by: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class MemoryTimeline:
    """Activations in use while each operator runs; weights and input stand apart.

    Attributes:
        live_bytes: One sum for each operator, its results included.
        weights_bytes: Parameters and buffers, there all the time.
        input_bytes: There all the time.
        peak_operator: Index of the first operator at which the sum is largest; -1 for a graph without operators.
        peak_tensors: What is in use then, the largest first.
    """

    live_bytes: tuple[int, ...]
    weights_bytes: int
    input_bytes: int
    peak_operator: int
    peak_tensors: tuple[LiveTensor, ...]

    @property
    def activations_bytes(self) -> int:
        """The largest sum of activations."""
        return max(self.live_bytes, default=0)

    @property
    def peak_bytes(self) -> int:
        """Weights, input and the largest sum of activations."""
        return self.weights_bytes + self.input_bytes + self.activations_bytes


def memory_timeline(graph: OperatorGraph) -> MemoryTimeline:
    """Return the memory that each operator of `graph` finds in use, by tensors' lifetimes alone.

    A tensor lives from the operator that makes it to the last that reads it or a view of it; the model's outputs
    live to the end. Allocators' rounding and what kernels allocate to work in are left out.
    """
    first, last, maker, shapes = {}, {}, {}, {}
    for index, operator in enumerate(graph.operators):
        for tensor in (graph.tensors[number] for number in (*operator.inputs, *operator.outputs)):
            last[tensor.storage] = index
        for tensor in (graph.tensors[number] for number in operator.outputs):
            if graph.storages[tensor.storage].kind is StorageKind.ACTIVATION and tensor.storage not in first:
                first[tensor.storage] = index
                maker[tensor.storage] = f"{operator.name.rpartition('.')[2]} in {operator.module or 'the model'}"
                shapes[tensor.storage] = tensor.shape
    for number in graph.outputs:
        last[graph.tensors[number].storage] = len(graph.operators) - 1
    changes = [0] * (len(graph.operators) + 1)
    for storage, index in first.items():
        changes[index] += graph.storages[storage].n_bytes
        changes[last[storage] + 1] -= graph.storages[storage].n_bytes
    live: list[int] = []
    for change in changes[:-1]:
        live.append((live[-1] if live else 0) + change)
    peak = live.index(max(live)) if live else -1
    tensors = [
        LiveTensor(maker[storage], shapes[storage], graph.storages[storage].n_bytes)
        for storage, index in first.items()
        if index <= peak <= last[storage]
    ]
    return MemoryTimeline(
        live_bytes=tuple(live),
        weights_bytes=graph.storage_bytes(StorageKind.PARAMETER) + graph.storage_bytes(StorageKind.BUFFER),
        input_bytes=graph.storage_bytes(StorageKind.INPUT),
        peak_operator=peak,
        peak_tensors=tuple(sorted(tensors, key=lambda tensor: -tensor.n_bytes)),
    )


def draw_memory(timeline: MemoryTimeline, title: str = "") -> Figure:
    """Return a figure of the activations over the operators, with the peak marked and its tensors listed."""
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    operators = range(len(timeline.live_bytes))
    sums = [n_bytes / _MIB for n_bytes in timeline.live_bytes]
    axes.fill_between(operators, sums, step="mid", color=_ACTIVATIONS, alpha=0.25)
    axes.step(operators, sums, where="mid", color=_ACTIVATIONS, linewidth=1.2)
    if timeline.live_bytes:
        peak = timeline.peak_operator
        axes.plot([peak], [sums[peak]], "o", color=_PEAK)
        axes.axvline(peak, color=_PEAK, linewidth=0.8, linestyle="--")
        text = "\n".join(peak_lines(timeline))
        side = -1 if peak > len(sums) / 2 else 1
        axes.annotate(
            _plain(text),
            (peak, sums[peak]),
            (8 * side, -4),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="top",
            fontsize="x-small",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
        )
        axes.set_ylim(0, max(sums) * 1.08 or 1)
    axes.set_xlabel("operator, in the order of running")
    axes.set_ylabel("activations in use [MiB]")
    fixed = f"weights {timeline.weights_bytes / _MIB:.2f} MiB and input {timeline.input_bytes / _MIB:.2f} MiB beside"
    axes.set_title(_plain(f"{title}   ({fixed})".strip()), loc="left", fontsize="small")
    axes.grid(alpha=0.25)
    return figure


def peak_lines(timeline: MemoryTimeline, max_listed: int = _MAX_LISTED) -> list[str]:
    """Return the peak and what is in use then, the largest first, as lines of text."""
    lines = [f"peak {timeline.activations_bytes / _MIB:.3f} MiB of activations at operator {timeline.peak_operator}"]
    lines += map(_line, timeline.peak_tensors[:max_listed])
    rest = timeline.peak_tensors[max_listed:]
    if rest:
        lines.append(f"{_total(rest) / _MIB:.3f} MiB in {len(rest)} smaller ones")
    return lines


def _line(tensor: LiveTensor) -> str:
    return f"{tensor.n_bytes / _MIB:.3f} MiB  {'x'.join(map(str, tensor.shape)) or 'scalar'}  {tensor.made_by}"


def _total(tensors: Iterable[LiveTensor]) -> int:
    return sum(tensor.n_bytes for tensor in tensors)


def _plain(text: str) -> str:
    """Return `text` so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")
