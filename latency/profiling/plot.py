"""Memory over the operators of a model as a figure, and its peak in words."""

from collections.abc import Iterable

from matplotlib.figure import Figure

from latency.memory.estimate import LiveTensor, MemoryEstimate

_MIB = 2**20
_MAX_LISTED = 6
_ACTIVATIONS, _PEAK = "#1f6feb", "#d97706"


def draw_memory(estimate: MemoryEstimate, title: str = "") -> Figure:
    """Return a figure of the activations over the operators, with the peak marked and its tensors listed."""
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    operators = range(len(estimate.timeline))
    sums = [n_bytes / _MIB for n_bytes in estimate.timeline]
    axes.fill_between(operators, sums, step="mid", color=_ACTIVATIONS, alpha=0.25)
    axes.step(operators, sums, where="mid", color=_ACTIVATIONS, linewidth=1.2)
    if estimate.timeline:
        peak = estimate.peak_operator
        axes.plot([peak], [sums[peak]], "o", color=_PEAK)
        axes.axvline(peak, color=_PEAK, linewidth=0.8, linestyle="--")
        text = "\n".join(peak_lines(estimate))
        side = -1 if peak > len(sums) / 2 else 1
        axes.annotate(
            _plain(text),
            (peak, sums[peak]),
            (4 * side, 8),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom",
            fontsize="x-small",
        )
        axes.set_ylim(0, max(sums) * 1.4 or 1)  # the text stands above the curve
    axes.set_xlabel("operator, in the order of running")
    axes.set_ylabel("activations in use [MiB]")
    fixed = f"weights {readable_bytes(estimate.weights_bytes)} and input {readable_bytes(estimate.input_bytes)} beside"
    axes.set_title(_plain(f"{title}   ({fixed})".strip()), loc="left", fontsize="small")
    axes.grid(alpha=0.25)
    return figure


def readable_bytes(n_bytes: int) -> str:
    """Return `n_bytes` in the unit that suits it: `"32 B"`, `"96.1 KiB"`, `"3.25 MiB"`, `"1.50 GiB"`."""
    if abs(n_bytes) < 2**10:
        return f"{n_bytes} B"
    if abs(n_bytes) < _MIB:
        return f"{n_bytes / 2**10:.1f} KiB"
    return f"{n_bytes / _MIB:.2f} MiB" if abs(n_bytes) < 2**10 * _MIB else f"{n_bytes / 2**30:.2f} GiB"


def peak_lines(estimate: MemoryEstimate, max_listed: int = _MAX_LISTED) -> list[str]:
    """Return the peak and what is in use then, the largest first, as lines of text; what is under 1 % is summed up."""
    peak, live = estimate.activations_bytes, estimate.live_at_peak
    listed = [tensor for tensor in live if tensor.n_bytes * 100 >= peak][:max_listed]
    lines = [f"peak {readable_bytes(peak)} of activations at operator {estimate.peak_operator}"]
    lines += map(_line, listed)
    if rest := live[len(listed) :]:
        lines.append(f"{readable_bytes(_total(rest))} in {len(rest)} smaller ones")
    return lines


def _line(tensor: LiveTensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    maker = f"{tensor.operator.rpartition('.')[2]} in {tensor.module or 'the model'}"
    return f"{readable_bytes(tensor.n_bytes)}  {shape}  {maker}"


def _total(tensors: Iterable[LiveTensor]) -> int:
    return sum(tensor.n_bytes for tensor in tensors)


def _plain(text: str) -> str:
    """Return `text` so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")
