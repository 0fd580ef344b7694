"""Random search: the baseline that every other controller has to beat."""

from collections.abc import Iterable, Sequence

from nas.controllers.base import Controller
from nas.records import Record
from search_spaces.genotype import Genotype


class RandomSearch(Controller):
    """Asks for genotypes drawn uniformly over gene values, each distinct network once.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time.
    """

    def __init__(self, n_candidates: int = 100, batch_size: int = 10) -> None:
        for name, value in (("n_candidates", n_candidates), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._n_candidates = n_candidates
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        """How many candidates to ask for at a time."""
        return self._batch_size

    @property
    def n_candidates(self) -> int:
        """How many candidates the whole search asks for."""
        return self._n_candidates

    def _propose(self, n: int) -> Iterable[Genotype]:
        return [self._problem.space.sample(self._rng) for _ in range(n)]

    def tell(self, records: Sequence[Record]) -> None:
        """Learn nothing."""
