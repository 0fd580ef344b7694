"""From when to when each piece of memory is taken while a graph's operators run."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from latency.graph.operator_graph import OperatorGraph, StorageKind

# Who calls a model holds these before, during and after the call.
HELD_BY_CALLER = frozenset({StorageKind.PARAMETER, StorageKind.BUFFER, StorageKind.INPUT, StorageKind.OPTIMIZER_STATE})


class Release(StrEnum):
    """When a tensor's memory is taken to be free again."""

    BY_CODE = "by_code"
    """When the model's Python code lets go of it: a variable or a list may hold it beyond its last use."""

    LAST_USE = "last_use"
    """After the last operator that reads it: what a runtime does that knows the whole graph."""


@dataclass(frozen=True)
class Lifetime:
    """Memory that is taken during some of a graph's operators.

    Attributes:
        storage: Index in `OperatorGraph.storages`.
        n_bytes: After rounding to blocks.
        first: Index of the operator that allocates it.
        end: Index after that of the last operator during which it is taken.
    """

    storage: int
    n_bytes: int
    first: int
    end: int


def lifetimes(
    graph: OperatorGraph,
    *,
    release: Release = Release.BY_CODE,
    block_bytes: int = 1,
    order: Sequence[int] | None = None,
) -> tuple[Lifetime, ...]:
    """Return the lifetimes of all memory that the operators allocate, in the order of allocation.

    What the caller holds (weights, inputs, optimiser state) and what takes no bytes is left out.

    Args:
        graph: Its operators.
        release: When memory is free again; only `LAST_USE` goes with an `order` other than the graph's own.
        block_bytes: What an allocator rounds sizes up to: 512 for CUDA's, 1 for none.
        order: Indices of operators in the order in which they run; `None` for the graph's own.

    Raises:
        ValueError: If `release` needs to know the model's code and the graph comes without.
    """
    positions = {operator: at for at, operator in enumerate(range(len(graph.operators)) if order is None else order)}
    allocated, used = _first_and_last_use(graph, positions)
    if release is Release.BY_CODE:
        if order is not None or graph.releases is None:
            raise ValueError(
                "release must be 'last_use' for another order than the model's own and for a graph that does not "
                "come from a torch model, got 'by_code'"
            )
        ends = dict(enumerate(graph.releases))
    else:
        returned = {graph.tensors[tensor].storage for tensor in graph.outputs}
        ends = {storage: len(positions) if storage in returned else at + 1 for storage, at in used.items()}
    found = [
        Lifetime(storage, _rounded(graph.storages[storage].n_bytes, block_bytes), first, max(ends[storage], first + 1))
        for storage, first in allocated.items()
        if graph.storages[storage].n_bytes and graph.storages[storage].kind not in HELD_BY_CALLER
    ]
    return tuple(sorted(found, key=lambda lifetime: (lifetime.first, lifetime.storage)))


def timeline(found: Iterable[Lifetime], n_operators: int) -> tuple[int, ...]:
    """Return the bytes taken during each operator."""
    changes = [0] * (n_operators + 1)
    for lifetime in found:
        changes[lifetime.first] += lifetime.n_bytes
        changes[lifetime.end] -= lifetime.n_bytes
    return tuple(itertools.accumulate(changes[:-1]))


def _first_and_last_use(graph: OperatorGraph, positions: dict[int, int]) -> tuple[dict[int, int], dict[int, int]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for operator, at in sorted(positions.items(), key=lambda item: item[1]):
        for tensor in (*graph.operators[operator].inputs, *graph.operators[operator].outputs):
            storage = graph.tensors[tensor].storage
            first.setdefault(storage, at)
            last[storage] = at
    return first, last


def _rounded(n_bytes: int, block_bytes: int) -> int:
    return -(-n_bytes // block_bytes) * block_bytes
