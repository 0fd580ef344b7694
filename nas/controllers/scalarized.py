"""What the controllers share that follow one number at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.controllers.base import Controller, SearchProblem, Told
from nas.records import Record
from nas.scalarization import Scalarization, ScalarizationKind
from search_spaces.base import SearchSpace
from search_spaces.genotype import GeneKind, Genotype


def mutated(space: SearchSpace, genotype: Genotype, rng: np.random.Generator) -> Genotype:
    """Return `genotype` with one gene changed: a step for an ordinal one, another value for a categorical."""
    genes = list(genotype.genes)
    index = int(rng.choice([i for i, gene in enumerate(space.genes) if gene.n_values > 1]))
    gene, value = space.genes[index], genes[index]
    if gene.kind is GeneKind.ORDINAL:
        steps = [near for near in (value - 1, value + 1) if 0 <= near < gene.n_values]
        genes[index] = int(rng.choice(steps))
    else:
        genes[index] = (value + int(rng.integers(1, gene.n_values))) % gene.n_values
    return space.nearest(genes)


@dataclass(frozen=True)
class Member:
    """A genotype that was evaluated.

    Attributes:
        genotype: Canonical.
        losses: `(n_objectives,)`, minimised; NaN unless it ended COMPLETE.
        violation: 0 for COMPLETE, by how far it is from that otherwise.
    """

    genotype: Genotype
    losses: np.ndarray
    violation: float


class ScalarizedController(Controller):
    """Base of controllers that compare genotypes by a scalarisation of their losses.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time.
        scalarization: How the losses are joined. Weights are drawn anew for each comparison, so that the whole front is
            searched and not one point of it.
    """

    def __init__(self, n_candidates: int, batch_size: int, scalarization: ScalarizationKind) -> None:
        for name, value in (("n_candidates", n_candidates), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._n_candidates = n_candidates
        self._batch_size = batch_size
        self._kind = scalarization

    @property
    def batch_size(self) -> int:
        """How many candidates to ask for at a time."""
        return self._batch_size

    @property
    def n_candidates(self) -> int:
        """How many candidates the whole search asks for."""
        return self._n_candidates

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`."""
        super().setup(problem)
        n_objectives = len(problem.objectives)
        self._ideal, self._nadir = np.full(n_objectives, np.inf), np.full(n_objectives, -np.inf)

    def _drawn_scalarization(self) -> Scalarization:
        weights = self._rng.dirichlet(np.ones(len(self._problem.objectives)))
        return Scalarization(self._kind, tuple(weights.tolist()))

    def _ranking(self, members: Sequence[Member], scalarization: Scalarization) -> np.ndarray:
        """Return `(n,)`: smaller is better; every COMPLETE member is before all others."""
        values = np.array([1e6 * (1 + member.violation) for member in members])
        complete = [i for i, member in enumerate(members) if member.violation == 0]
        if complete:
            losses = np.stack([members[i].losses for i in complete])
            values[complete] = scalarization(losses, self._ideal, self._nadir)
        return values

    def _members(self, records: Sequence[Record]) -> list[Member]:
        """Return `records` as members, FAILED ones left out, and take note of the losses' range."""
        told: Told = self._told(records)
        space = self._problem.space
        scored = told.losses[told.violations == 0]
        self._ideal = np.min([self._ideal, *scored], axis=0)
        self._nadir = np.max([self._nadir, *scored], axis=0)
        rows = zip(told.genes, told.losses, told.violations, strict=True)
        return [Member(space.genotype(genes), losses, float(violation)) for genes, losses, violation in rows]
