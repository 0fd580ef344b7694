"""Random search: the baseline that every other controller has to beat."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from annotated_types import Ge, Le

from nas.controllers.base import SizedController
from nas.values.records import Record
from search_spaces.genotype import Genotype


class RandomSearch(SizedController):
    """Asks for genotypes drawn uniformly over gene values, each distinct network once.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time.
    """

    def __init__(
        self, n_candidates: Annotated[int, Ge(1), Le(10**9)] = 100, batch_size: Annotated[int, Ge(1), Le(10**6)] = 10
    ) -> None:
        super().__init__(n_candidates, batch_size)

    def _propose(self, n: int) -> Iterable[Genotype]:
        return [self._problem.space.sample(self._rng) for _ in range(n)]

    def tell(self, records: Sequence[Record]) -> None:
        """Learn nothing."""
