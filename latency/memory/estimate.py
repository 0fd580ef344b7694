"""Peak memory of a model from the lifetimes of its tensors, without running it on data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from latency.graph.operator_graph import OperatorGraph, StorageKind
from latency.memory.lifetimes import HELD_BY_CALLER, Lifetime, Release, lifetimes, timeline
from latency.memory.scratch import scratch_bytes
from latency.sizes import require_positive

CUDA_BLOCK_BYTES = 512  # torch's caching allocator rounds every request up to a multiple of it


@dataclass(frozen=True)
class LiveTensor:
    """A piece of memory that is taken at the peak.

    Attributes:
        n_bytes: After rounding to blocks.
        kind: What it holds.
        shape: Of the first tensor in it.
        operator: Name of the operator that allocated it.
        module: Dotted path of the module that this ran in.
        first: Index of that operator in the graph.
        end: Index after that of the last operator during which it is taken.
    """

    n_bytes: int
    kind: StorageKind
    shape: tuple[int, ...]
    operator: str
    module: str
    first: int
    end: int


@dataclass(frozen=True)
class MemoryEstimate:
    """What a model takes, part by part, at the moment when that is most.

    Attributes:
        bytes_by_kind: At the peak. Weights (parameters, buffers), inputs and optimiser state are there all the
            time; activations and gradients come and go.
        timeline: Bytes of activations and gradients during each operator of the graph.
        peak_operator: Index of the first operator during which the sum is largest.
        live_at_peak: The activations and gradients then, the largest first.
        scratch_bytes: The most that one operator allocates on the CPU for itself and frees before it returns;
            not part of the peak. Only of operators for which it is known.
        n_unknown_scratch: How many operators may take some more, unknown amount (those in half precision, backward
            passes, and all operators of an ONNX file).
        peak_with_scratch_estimate_bytes: The peak on the CPU if what operators take to work in is counted too: what a
            process needs. Scratch that is not known is left out.
    """

    bytes_by_kind: Mapping[StorageKind, int]
    timeline: tuple[int, ...]
    peak_operator: int
    live_at_peak: tuple[LiveTensor, ...]
    scratch_bytes: int
    n_unknown_scratch: int
    peak_with_scratch_estimate_bytes: int

    @property
    def peak_memory_estimate_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self.bytes_by_kind.values())

    @property
    def weights_bytes(self) -> int:
        """Parameters and buffers, shared ones once."""
        return self.bytes_by_kind[StorageKind.PARAMETER] + self.bytes_by_kind[StorageKind.BUFFER]

    @property
    def input_bytes(self) -> int:
        """The images."""
        return self.bytes_by_kind[StorageKind.INPUT]

    @property
    def activations_bytes(self) -> int:
        """What operators have computed and somebody still holds, the output included; at the peak."""
        return self.bytes_by_kind[StorageKind.ACTIVATION]


def estimate_peak_memory(
    graph: OperatorGraph, *, release: Release | None = None, block_bytes: int = 1, n_threads: int = 1
) -> MemoryEstimate:
    """Estimate the peak memory of one run of `graph`: an inference, or a training step if it is one.

    Args:
        graph: From `graph_from_torch`, an ONNX file or `trace_training_step`.
        release: When memory is free again; `None` for `BY_CODE` where the graph knows it, else `LAST_USE`.
        block_bytes: 1 for the CPU, which does not round; `CUDA_BLOCK_BYTES` for CUDA.
        n_threads: Torch's on the CPU, for the scratch.

    Raises:
        ValueError: If `block_bytes` or `n_threads` is not positive, or `release` is not known for this graph.
    """
    require_positive(block_bytes=block_bytes, n_threads=n_threads)
    if release is None:
        release = Release.LAST_USE if graph.releases is None else Release.BY_CODE
    found = lifetimes(graph, release=release, block_bytes=block_bytes)
    taken = timeline(found, len(graph.operators))
    peak = max(range(len(taken)), key=taken.__getitem__, default=0)
    live = [lifetime for lifetime in found if lifetime.first <= peak < lifetime.end]
    scratch = [scratch_bytes(graph, operator, n_threads) for operator in graph.operators]
    sums = _sums(graph, live, block_bytes)
    held = sum(sums.values()) - (taken[peak] if taken else 0)
    return MemoryEstimate(
        bytes_by_kind=sums,
        timeline=taken,
        peak_operator=peak,
        live_at_peak=_described(graph, live),
        scratch_bytes=max((size for size in scratch if size is not None), default=0),
        n_unknown_scratch=scratch.count(None),
        peak_with_scratch_estimate_bytes=held
        + max((now + (extra or 0) for now, extra in zip(taken, scratch, strict=True)), default=0),
    )


def _sums(graph: OperatorGraph, live: Iterable[Lifetime], block_bytes: int) -> dict[StorageKind, int]:
    sums = dict.fromkeys(StorageKind, 0)
    for storage in graph.storages:
        if storage.kind in HELD_BY_CALLER:
            sums[storage.kind] += -(-storage.n_bytes // block_bytes) * block_bytes
    for lifetime in live:
        sums[graph.storages[lifetime.storage].kind] += lifetime.n_bytes
    return sums


def _described(graph: OperatorGraph, live: Iterable[Lifetime]) -> tuple[LiveTensor, ...]:
    shapes: dict[int, tuple[int, ...]] = {}
    for tensor in graph.tensors:
        shapes.setdefault(tensor.storage, tensor.shape)
    described = (
        LiveTensor(
            lifetime.n_bytes,
            graph.storages[lifetime.storage].kind,
            shapes[lifetime.storage],
            graph.operators[lifetime.first].name,
            graph.operators[lifetime.first].module,
            lifetime.first,
            lifetime.end,
        )
        for lifetime in live
    )
    return tuple(sorted(described, key=lambda tensor: -tensor.n_bytes))
