"""The discrete description of a network: genes with values, named by their space."""

from dataclasses import dataclass
from enum import StrEnum


class GeneKind(StrEnum):
    """What a change of a gene means: a step up or down, or another choice."""

    ORDINAL = "ordinal"
    CATEGORICAL = "categorical"


@dataclass(frozen=True)
class Gene:
    """One decision of a search space.

    Attributes:
        name: Unique in its space, e.g. `"edge_0_2"`.
        choices: What each value means, in order of the values `0 .. n_values - 1`.
        kind: Whether neighbouring values are similar (`ORDINAL`) or not (`CATEGORICAL`).
    """

    name: str
    choices: tuple[str, ...]
    kind: GeneKind

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError(f"gene {self.name!r} must have at least one choice")

    @property
    def n_values(self) -> int:
        """The number of values that this gene takes."""
        return len(self.choices)


@dataclass(frozen=True)
class Genotype:
    """A point of a search space: one integer for each of the space's genes.

    Attributes:
        space: The `name` of the space that gives the genes their meaning.
        genes: Values in the order of `SearchSpace.genes`.
    """

    space: str
    genes: tuple[int, ...]
