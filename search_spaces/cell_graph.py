"""The graph of a cell whose genes choose the operations on its edges, for whoever predicts from its structure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ZERO_NAMES = frozenset({"none", "zero", "zeroize", "zeroise"})
_IDENTITY_NAMES = frozenset({"skip_connect", "skip", "identity", "id"})


@dataclass(frozen=True)
class CellGraph:
    """A directed acyclic graph: gene `i` chooses the operation on edge `i`.

    Attributes:
        edges: `(source, target)` of each gene's edge, `source < target`. Nodes that no edge enters are inputs,
            nodes that no edge leaves are outputs.
        operations: What each value of a gene means, e.g. `("none", "skip_connect", "nor_conv_3x3")`.
    """

    edges: tuple[tuple[int, int], ...]
    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        for source, target in self.edges:
            if not 0 <= source < target:
                raise ValueError(f"edges must go from a smaller node to a larger one, got ({source}, {target})")

    @property
    def inputs(self) -> frozenset[int]:
        """The nodes that no edge enters."""
        return frozenset(source for source, _ in self.edges) - {target for _, target in self.edges}

    @property
    def outputs(self) -> frozenset[int]:
        """The nodes that no edge leaves."""
        return frozenset(target for _, target in self.edges) - {source for source, _ in self.edges}

    def is_zero(self, value: int) -> bool:
        """Return whether the operation of this value carries nothing."""
        return self.operations[value].lower() in _ZERO_NAMES

    def is_identity(self, value: int) -> bool:
        """Return whether the operation of this value passes on what it reads."""
        return self.operations[value].lower() in _IDENTITY_NAMES

    def live_edges(self, genes: Sequence[int]) -> tuple[int, ...]:
        """Return the indices of the edges that carry something from an input to an output, in order of their source."""
        order = sorted(range(len(self.edges)), key=lambda edge: self.edges[edge])
        carrying = [edge for edge in order if not self.is_zero(genes[edge])]
        fed = set(self.inputs)
        for edge in carrying:
            if self.edges[edge][0] in fed:
                fed.add(self.edges[edge][1])
        used = set(self.outputs)
        live = []
        for edge in sorted(carrying, key=lambda edge: self.edges[edge][1], reverse=True):
            source, target = self.edges[edge]
            if target in used and source in fed:
                used.add(source)
                live.append(edge)
        return tuple(sorted(live, key=lambda edge: self.edges[edge]))

    def path_counts(self, genes: Sequence[int]) -> Counter[tuple[int, ...]]:
        """Return how many live paths from an input to an output apply each sequence of operations.

        Identities are left out of a sequence, so that cells which differ only by where an identity stands
        agree; the empty sequence is a path of identities alone. Exponential in the number of nodes.
        """
        paths: dict[int, Counter[tuple[int, ...]]] = {node: Counter({(): 1}) for node in self.inputs}
        for edge in self.live_edges(genes):
            source, target = self.edges[edge]
            step = () if self.is_identity(genes[edge]) else (genes[edge],)
            reached = paths.setdefault(target, Counter())
            for sequence, count in paths[source].items():
                reached[sequence + step] += count
        return sum((paths.get(node, Counter()) for node in self.outputs), Counter[tuple[int, ...]]())
