"""Which operators must wait for which, and what running each of them allocates and frees."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from latency.graph.operator_graph import OperatorGraph
from latency.memory.lifetimes import HELD_BY_CALLER


@dataclass(frozen=True)
class Dependencies:
    """A graph as a search for an order needs it. Sets of operators, and of pieces, are integers with a bit for each.

    A piece is memory that becomes free while the model runs: neither the caller's nor that of an output.

    Attributes:
        n_operators: How many there are.
        predecessors: For each operator the set that must run right before or earlier; what these wait for is left out.
        allocates: Bytes that each operator takes for its results.
        uses: For each operator the set of pieces that it reads or makes.
        n_bytes: Of each piece.
        users: For each piece the set of operators that read or make it: once these have run, it is free.
        floor_bytes: What the largest operator needs for its arguments and results; no order does with less.
    """

    n_operators: int
    predecessors: tuple[int, ...]
    allocates: tuple[int, ...]
    uses: tuple[int, ...]
    n_bytes: tuple[int, ...]
    users: tuple[int, ...]
    floor_bytes: int

    @classmethod
    def of(cls, graph: OperatorGraph) -> "Dependencies":
        """Return the dependencies of an inference."""
        predecessors = [0] * len(graph.operators)
        for before, after in _edges(graph):
            if before != after:
                predecessors[after] |= 1 << before
        touched = [_counted_storages(graph, index) for index in range(len(graph.operators))]
        size = [storage.n_bytes for storage in graph.storages]
        users: dict[int, int] = defaultdict(int)
        allocates = []
        for index, storages in enumerate(touched):
            allocates.append(sum(size[storage] for storage in storages if storage not in users))
            for storage in storages:
                users[storage] |= 1 << index
        returned = {graph.tensors[tensor].storage for tensor in graph.outputs}
        pieces = {storage: piece for piece, storage in enumerate(sorted(users.keys() - returned))}
        return cls(
            n_operators=len(graph.operators),
            predecessors=tuple(predecessors),
            allocates=tuple(allocates),
            uses=tuple(sum(1 << pieces[s] for s in storages if s in pieces) for storages in touched),
            n_bytes=tuple(size[storage] for storage in pieces),
            users=tuple(users[storage] for storage in pieces),
            floor_bytes=max((sum(size[storage] for storage in storages) for storages in touched), default=0),
        )

    def closure(self, operators: int) -> int:
        """Return a set of operators with all that must run before them."""
        found, waiting = operators, operators
        while waiting:
            operator = waiting.bit_length() - 1
            waiting = (waiting & ~(1 << operator)) | (self.predecessors[operator] & ~found)
            found |= self.predecessors[operator]
        return found


def members(chosen: int) -> Iterator[int]:
    """Yield the members of a set, in order."""
    while chosen:
        yield (chosen & -chosen).bit_length() - 1
        chosen &= chosen - 1


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


def _counted_storages(graph: OperatorGraph, index: int) -> set[int]:
    """Return the storages of activations that an operator reads or makes, those that take bytes."""
    operator = graph.operators[index]
    storages = {graph.tensors[tensor].storage for tensor in (*operator.inputs, *operator.outputs)}
    return {s for s in storages if graph.storages[s].n_bytes and graph.storages[s].kind not in HELD_BY_CALLER}
