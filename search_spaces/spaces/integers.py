"""A plain grid of integers, for searching anything that a Python function can score."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from search_spaces.base import SearchSpace
from search_spaces.genotype import Gene, GeneKind


@dataclass(frozen=True)
class Integers(SearchSpace):
    """`n_genes` integers, each in `0 .. n_values - 1`. Builds no network.

    Attributes:
        n_genes: How many integers.
        n_values: How many values each takes.
        ordinal: Whether neighbouring values are similar, so that a search may step from one to the next.
    """

    name: ClassVar[str] = "integers"
    n_genes: int = 10
    n_values: int = 10
    ordinal: bool = True

    def __post_init__(self) -> None:
        for option in ("n_genes", "n_values"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be at least 1, got {getattr(self, option)}")

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """`x0`, `x1`, ..."""
        kind = GeneKind.ORDINAL if self.ordinal else GeneKind.CATEGORICAL
        choices = tuple(str(value) for value in range(self.n_values))
        return tuple(Gene(f"x{index}", choices, kind) for index in range(self.n_genes))
