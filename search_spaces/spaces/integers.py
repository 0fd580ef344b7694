"""A plain grid of integers, for searching anything that a Python function can score."""

from functools import cached_property
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass

from search_spaces.base import OPTIONS, SearchSpace
from search_spaces.genotype import Gene, GeneKind


@dataclass(frozen=True, config=OPTIONS)
class Integers(SearchSpace):
    """`n_genes` integers, each in `0 .. n_values - 1`. Builds no network.

    Attributes:
        n_genes: How many integers.
        n_values: How many values each takes.
        ordinal: Whether neighbouring values are similar, so that a search may step from one to the next.
    """

    name: ClassVar[str] = "integers"
    n_genes: Annotated[int, Ge(1), Le(10_000)] = 10
    n_values: Annotated[int, Ge(1), Le(10**6)] = 10
    ordinal: bool = True

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """`x0`, `x1`, ..."""
        kind = GeneKind.ORDINAL if self.ordinal else GeneKind.CATEGORICAL
        choices = tuple(str(value) for value in range(self.n_values))
        return tuple(Gene(f"x{index}", choices, kind) for index in range(self.n_genes))
