"""Regularised evolution: a population in which the oldest die, not the worst."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from nas.controllers.base import SearchProblem
from nas.controllers.scalarized import Member, ScalarizedController, mutated
from nas.values.bounds import bounded
from nas.values.records import Record
from nas.values.scalarization import ScalarizationKind
from search_spaces.genotype import Genotype


class RegularizedEvolution(ScalarizedController):
    """Mutates the best of a random few of the youngest; aging keeps lucky scores from staying.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time.
        population_size: How many of the latest candidates may be parents.
        tournament_size: How many of them are drawn for each choice of a parent.
        scalarization: How the losses are joined, with weights drawn anew for each tournament.
        targets: Of `scalarization: soft_constraint`, by minimised metric: the cost to come to.

    Source:
        Real et al. 2019, arXiv:1802.01548, algorithm 1.
        Differs: several objectives by randomly weighted scalarisations (Paria et al. 2019, arXiv:1805.12168).
    """

    @bounded
    def __init__(
        self,
        n_candidates: Annotated[int, Ge(1), Le(10**9)] = 200,
        batch_size: Annotated[int, Ge(1), Le(10**6)] = 10,
        population_size: Annotated[int, Ge(2), Le(10**6)] = 50,
        tournament_size: Annotated[int, Ge(2), Le(10**6)] = 10,
        scalarization: ScalarizationKind = ScalarizationKind.CHEBYSHEV,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(n_candidates, batch_size, scalarization, targets)
        self._population_size = population_size
        self._tournament_size = tournament_size

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`."""
        super().setup(problem)
        self._population: deque[Member] = deque(maxlen=self._population_size)

    def tell(self, records: Sequence[Record]) -> None:
        """Let the records join the population; the oldest leave it."""
        self._population.extend(self._members(records))

    def _propose(self, n: int) -> Iterable[Genotype]:
        space = self._problem.space
        if len(self._population) < self._population_size:
            return [space.sample(self._rng) for _ in range(n)]
        return [mutated(space, self._parent(), self._rng) for _ in range(n)]

    def _parent(self) -> Genotype:
        size = min(self._tournament_size, len(self._population))
        drawn = [self._population[i] for i in self._rng.choice(len(self._population), size, replace=False)]
        return drawn[int(np.argmin(self._ranking(drawn, self._drawn_weights())))].genotype
