"""The graph of a cell whose genes choose the operations on its edges, for whoever predicts from its structure."""

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
