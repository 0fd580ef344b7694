"""How near does the estimate from lifetimes come to the peak that the allocator saw? Random networks."""

import statistics
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.common import parser, report
from experiments.memory_estimate.attention import attention_networks
from latency.graph.operator_graph import OperatorGraph
from latency.graph.tracer import graph_from_torch
from latency.inference import example_input, torch_threads, weights_bytes
from latency.memory import CUDA_BLOCK_BYTES, Release, estimate_peak_memory
from latency.memory.measure import allocation_peak_cpu, peak_allocated_cuda
from search_spaces.base import ModelSpace
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell

SPACES: tuple[tuple[ModelSpace, int], ...] = ((NasBench201(cells_per_stage=1), 32), (SegmentationCell(), 64))
ATTENTION = ", attention"


@dataclass(frozen=True)
class Comparison:
    """One candidate on one device.

    Attributes:
        space: Where it comes from.
        error: Of the estimate, relative to the measured peak.
        activations_error: The same of the activations alone, which are all that has to be guessed.
        last_use_error: Of the estimate that takes a tensor to be free after its last use.
        scratch_bytes: The most that operators allocated for themselves at once; `None` where it is not seen apart.
        scratch_share: By how much that raised the peak, relative to it.
        with_scratch_error: Of the second figure, which counts scratch, relative to all that was allocated; `None` on
            CUDA, whose kernels' scratch is not estimated.
    """

    space: str
    error: float
    activations_error: float
    last_use_error: float
    scratch_bytes: int | None
    scratch_share: float | None
    with_scratch_error: float | None


def on_cpu(space: str, model: nn.Module, graph: OperatorGraph, image: torch.Tensor) -> Comparison:
    """Compare with the profiler's allocation events: operators' scratch left out, and with it."""
    with torch_threads(1), torch.inference_mode():
        model(image)
        peak = allocation_peak_cpu(lambda: model(image), {operator.name for operator in graph.operators})
    held = weights_bytes(model) + image.untyped_storage().nbytes()
    errors = _errors(graph, held, peak.without_scratch_bytes, block_bytes=1)
    raised = (peak.n_bytes - peak.without_scratch_bytes) / (held + peak.without_scratch_bytes)
    with_scratch = estimate_peak_memory(graph).peak_with_scratch_estimate_bytes / (held + peak.n_bytes) - 1
    return Comparison(space, *errors, peak.scratch_bytes, raised, with_scratch)


def on_cuda(space: str, model: nn.Module, graph: OperatorGraph, image: torch.Tensor) -> Comparison:
    """Compare with the caching allocator's own peak, images and weights as `(B, H, W, C)`.

    In that layout cuDNN's convolutions mostly take no workspace. Torch's own kernels, which run without cuDNN, copy the
    input's windows, and other layouts are converted on the way.
    """
    device = torch.device("cuda", 0)
    before = torch.cuda.memory_allocated(device)
    layout = torch.channels_last if image.ndim == 4 else torch.contiguous_format
    moved = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # 4-D weights alone
    there = image.to(device, memory_format=layout)
    held = torch.cuda.memory_allocated(device) - before
    with torch.inference_mode():
        moved(there)
        peak = peak_allocated_cuda(lambda: moved(there), device)
    return Comparison(space, *_errors(graph, held, peak, block_bytes=CUDA_BLOCK_BYTES), None, None, None)


def _errors(graph: OperatorGraph, held: int, activations: int, *, block_bytes: int) -> tuple[float, float, float]:
    estimate = estimate_peak_memory(graph, block_bytes=block_bytes)
    last_use = estimate_peak_memory(graph, release=Release.LAST_USE, block_bytes=block_bytes)
    peak = held + activations
    return (
        estimate.peak_memory_estimate_bytes / peak - 1,
        estimate.activations_bytes / activations - 1,
        last_use.peak_memory_estimate_bytes / peak - 1,
    )


def summary(comparisons: list[Comparison]) -> dict[str, Any]:
    """Return the figures of one device."""
    errors = [abs(comparison.error) for comparison in comparisons]
    figures: dict[str, Any] = {
        "n_models": len(errors),
        "share_within_1_percent": _share(errors),
        "worst_relative_error": max(errors),
        "activations_worst_relative_error": max(abs(c.activations_error) for c in comparisons),
        "last_use_share_within_1_percent": _share([abs(c.last_use_error) for c in comparisons]),
        "last_use_worst_relative_error": max(abs(c.last_use_error) for c in comparisons),
    }
    scratch = [c.scratch_bytes for c in comparisons if c.scratch_bytes is not None]
    if scratch:
        figures["scratch_bytes"] = {"median": statistics.median(scratch), "max": max(scratch)}
        shares = [c.scratch_share for c in comparisons if c.scratch_share is not None]
        figures["scratch_raises_peak_by"] = {"median": statistics.median(shares), "max": max(shares)}
        seconds = [abs(c.with_scratch_error) for c in comparisons if c.with_scratch_error is not None]
        figures["with_scratch_share_within_1_percent"] = _share(seconds)
        figures["with_scratch_worst_relative_error"] = max(seconds)
    figures["by_space"] = {
        name: {
            "n_models": len(own := [abs(c.error) for c in comparisons if c.space == name]),
            "share_within_1_percent": _share(own),
            "worst_relative_error": max(own),
        }
        for name in sorted({c.space for c in comparisons})
    }
    return figures


def _share(errors: list[float]) -> float:
    return sum(error <= 0.01 for error in errors) / len(errors)


def main() -> None:
    """Compare and report."""
    arguments = _arguments()
    devices = {"cpu": on_cpu}
    if torch.cuda.is_available():
        devices[f"cuda:0 {torch.cuda.get_device_name(0)}"] = on_cuda
    found: dict[str, list[Comparison]] = {f"{name}{kind}": [] for kind in ("", ATTENTION) for name in devices}
    for kind, space, size, model in _networks(arguments):
        graph = graph_from_torch(model, (3, size, size))
        image = example_input((1, 3, size, size), torch.device("cpu"), torch.float32)
        for device, compare in devices.items():
            found[f"{device}{kind}"].append(compare(space, model, graph, image))
    report({name: summary(comparisons) for name, comparisons in found.items() if comparisons}, arguments)


def _networks(arguments: Namespace) -> Iterator[tuple[str, str, int, nn.Module]]:
    """Yield a suffix of the device's name, what the network is, its images' size and itself."""
    rng = np.random.default_rng(arguments.seed)
    for space, size in SPACES:
        for _ in range(arguments.n_models // len(SPACES)):
            yield "", space.name, size, space.build(space.sample(rng), in_channels=3, n_classes=10, seed=0).eval()
    for kind, model in attention_networks(arguments.n_attention, np.random.default_rng(arguments.seed)):
        yield ATTENTION, kind, 64, model


def _arguments() -> Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-models", type=int, default=200, help="candidates of both spaces together")
    arguments.add_argument("--n-attention", type=int, default=48, help="networks with attention, beside them")
    arguments.add_argument("--seed", type=int, default=0)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
