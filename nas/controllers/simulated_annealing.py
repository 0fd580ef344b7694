"""Simulated annealing: walks that take fewer and fewer steps uphill."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from nas.controllers.base import SearchProblem
from nas.controllers.scalarized import Member, ScalarizedController, mutated
from nas.values.bounds import bounded
from nas.values.records import Record
from nas.values.scalarization import ScalarizationKind
from search_spaces.genotype import Genotype


class SimulatedAnnealing(ScalarizedController):
    """One walk for each place of a batch, each along a direction of its own.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time; the number of walks.
        start_temperature: The scaled loss by which a step uphill is taken with probability 1/e at first.
        end_temperature: The same at the end; in between it falls by equal ratios.
        scalarization: How the losses are joined; each walk keeps its weights.
        targets: Of `scalarization: soft_constraint`, by minimised metric: the cost to come to.

    Source:
        Kirkpatrick et al. 1983, doi:10.1126/science.220.4598.671; several walks with weights of their own as in
        Czyzak & Jaszkiewicz 1998.
    """

    @bounded
    def __init__(
        self,
        n_candidates: Annotated[int, Ge(1), Le(10**9)] = 200,
        batch_size: Annotated[int, Ge(1), Le(10**6)] = 10,
        start_temperature: Annotated[float, Gt(0), Le(1e6)] = 0.1,
        end_temperature: Annotated[float, Gt(0), Le(1e6)] = 0.005,
        scalarization: ScalarizationKind = ScalarizationKind.CHEBYSHEV,
        targets: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(n_candidates, batch_size, scalarization, targets)
        if start_temperature < end_temperature:
            raise ValueError(f"start_temperature must be at least end_temperature, got {start_temperature}")
        self._temperatures = (start_temperature, end_temperature)

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`."""
        super().setup(problem)
        self._directions = [self._drawn_weights() for _ in range(self._batch_size)]
        self._places: list[Member | None] = [None] * self._batch_size
        self._steps: dict[Genotype, int] = {}  # by what was proposed since the last tell, the walk that it is a step of
        self._n_told = 0

    def tell(self, records: Sequence[Record]) -> None:
        """Let each walk step to its neighbour or stay; what was no walk's step is one of a walk that has none."""
        genotypes = [record.candidate.genotype for record in records]
        taken = {self._steps[genotype] for genotype in genotypes if genotype in self._steps}
        others = iter([walk for walk in range(self._batch_size) if walk not in taken])
        members = {member.genotype: member for member in self._members(records)}
        for genotype in genotypes:
            walk = self._steps[genotype] if genotype in self._steps else next(others, None)
            if walk is not None and genotype in members and self._accepts(walk, members[genotype]):
                self._places[walk] = members[genotype]
        self._steps.clear()
        self._n_told += len(records)

    def _propose(self, n: int) -> Iterable[Genotype]:
        """Return a step of each walk that has none yet; those that cannot be asked for are left to the next try."""
        waiting = sorted(set(range(self._batch_size)) - set(self._steps.values()))
        for walk in waiting[:n]:
            step = self._step(self._places[walk])
            is_new = step.genes not in self._asked and step not in self._steps
            if is_new and self._problem.keeps_cheap_bounds(step):
                self._steps[step] = walk
                yield step

    def _step(self, place: Member | None) -> Genotype:
        space = self._problem.space
        return space.canonical(space.sample(self._rng) if place is None else mutated(space, place.genotype, self._rng))

    def _accepts(self, walk: int, member: Member) -> bool:
        place = self._places[walk]
        if place is None:
            return True
        now, then = self._ranking([place, member], self._directions[walk])
        start, end = self._temperatures
        temperature = start * (end / start) ** min(self._n_told / self._n_candidates, 1.0)
        return bool(self._rng.random() < np.exp(min(0.0, (now - then) / temperature)))
