"""Which operators must wait for which, and what running each of them allocates and frees."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from latency.graph import OperatorGraph
from latency.memory.lifetimes import HELD_BY_CALLER


@dataclass(frozen=True)
class Dependencies:
    """A graph as a search for an order needs it. Sets of operators are integers with a bit for each.

    Attributes:
        n_operators: How many there are.
        predecessors: For each operator the set that must run before it.
        successors: For each operator those that wait for it.
        allocates: Bytes that each operator takes for its results.
        may_free: For each operator the bytes of the memory that it uses, and the set of all users: once these have
            run, it is free.
        floor_bytes: What the largest operator needs for its arguments and results; no order does with less.
    """

    n_operators: int
    predecessors: tuple[int, ...]
    successors: tuple[tuple[int, ...], ...]
    allocates: tuple[int, ...]
    may_free: tuple[tuple[tuple[int, int], ...], ...]
    floor_bytes: int

    @property
    def roots(self) -> int:
        """The set of operators that need not wait."""
        return sum(1 << operator for operator, before in enumerate(self.predecessors) if not before)

    @classmethod
    def of(cls, graph: OperatorGraph) -> "Dependencies":
        """Return the dependencies of an inference."""
        n_operators = len(graph.operators)
        predecessors = [0] * n_operators
        for before, after in _edges(graph):
            predecessors[after] |= 1 << before
        successors = tuple(
            tuple(after for after in range(n_operators) if predecessors[after] >> before & 1)
            for before in range(n_operators)
        )
        allocates, may_free, floor = _memory(graph)
        return cls(n_operators, tuple(predecessors), successors, allocates, may_free, floor)


def _edges(graph: OperatorGraph) -> Iterator[tuple[int, int]]:
    """Yield pairs of operators of which the first must run before the second.

    A result is read after it was made. Who changes memory keeps its place among all who use that memory.
    """
    makers: dict[int, int] = {}
    users: dict[int, list[int]] = defaultdict(list)
    writers: dict[int, int] = {}
    for index, operator in enumerate(graph.operators):
        yield from ((makers[tensor], index) for tensor in operator.inputs if tensor in makers)
        touched = {graph.tensors[tensor].storage for tensor in (*operator.inputs, *operator.outputs)}
        written = {graph.tensors[tensor].storage for tensor in operator.writes}
        for storage in touched:
            if storage in writers:
                yield writers[storage], index
            if storage in written:
                yield from ((user, index) for user in users[storage])
                writers[storage] = index
            users[storage].append(index)
        makers.update(dict.fromkeys(operator.outputs, index))


def _memory(graph: OperatorGraph) -> tuple[tuple[int, ...], tuple[tuple[tuple[int, int], ...], ...], int]:
    counted = {
        index for index, storage in enumerate(graph.storages) if storage.n_bytes and storage.kind not in HELD_BY_CALLER
    }
    touched = [
        {graph.tensors[tensor].storage for tensor in (*operator.inputs, *operator.outputs)} & counted
        for operator in graph.operators
    ]
    users: dict[int, int] = defaultdict(int)
    allocates = []
    for index, storages in enumerate(touched):
        allocates.append(sum(graph.storages[storage].n_bytes for storage in storages if storage not in users))
        for storage in storages:
            users[storage] |= 1 << index
    returned = {graph.tensors[tensor].storage for tensor in graph.outputs}
    may_free = tuple(
        tuple((graph.storages[storage].n_bytes, users[storage]) for storage in sorted(storages - returned))
        for storages in touched
    )
    floor = max((sum(graph.storages[storage].n_bytes for storage in storages) for storages in touched), default=0)
    return tuple(allocates), may_free, floor
