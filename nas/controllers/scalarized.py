"""What the controllers share that follow one number at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.controllers.base import SearchProblem, SizedController, Told
from nas.values.objectives import Objective
from nas.values.records import Record
from nas.values.scalarization import Scalarization, ScalarizationKind, SoftConstraints
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


class ScalarizedController(SizedController):
    """Base of controllers that compare genotypes by a scalarisation of their losses.

    Args:
        n_candidates: How many to ask for in the whole search.
        batch_size: How many to ask for at a time.
        scalarization: How the losses are joined. Weights are drawn anew for each comparison, so that the whole front is
            searched and not one point of it; a soft constraint has none, it searches for the best at its targets.
        targets: Of a soft constraint, by minimised metric: the cost to come to.
    """

    def __init__(
        self,
        n_candidates: int,
        batch_size: int,
        scalarization: ScalarizationKind,
        targets: Mapping[str, float] | None,
    ) -> None:
        super().__init__(n_candidates, batch_size)
        if (scalarization is ScalarizationKind.SOFT_CONSTRAINT) != bool(targets):
            what = "must be given for" if not targets else "are only for"
            raise ValueError(f"targets {what} scalarization: soft_constraint, got {scalarization}")
        self._kind = scalarization
        self._targets = dict(targets or {})
        self._soft: SoftConstraints | None = None

    def check_objectives(self, objectives: Sequence[Objective]) -> None:
        """Check that the targets of a soft constraint are those of the minimised objectives.

        Raises:
            ValueError: If they are not.
        """
        if self._kind is ScalarizationKind.SOFT_CONSTRAINT:
            SoftConstraints.of(objectives, self._targets)

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`.

        Raises:
            ValueError: If the targets do not fit its objectives.
        """
        super().setup(problem)
        if self._kind is ScalarizationKind.SOFT_CONSTRAINT:
            self._soft = SoftConstraints.of(problem.objectives, self._targets)
        n_objectives = len(problem.objectives)
        self._ideal, self._nadir = np.full(n_objectives, np.inf), np.full(n_objectives, -np.inf)

    def _drawn_weights(self) -> np.ndarray:
        """Return `(n_objectives,)`: a direction in which the front is looked at; a soft constraint has only one."""
        if self._soft is not None:
            return np.full(len(self._problem.objectives), 1 / len(self._problem.objectives))
        return self._rng.dirichlet(np.ones(len(self._problem.objectives)))

    def _ranking(self, members: Sequence[Member], weights: np.ndarray) -> np.ndarray:
        """Return `(n,)`: smaller is better in the direction of `weights`; COMPLETE members are before all others."""
        scalarization = self._soft or Scalarization(self._kind, tuple(weights.tolist()))
        values = np.array([1e6 * (1 + member.violation) for member in members])
        complete = [i for i, member in enumerate(members) if member.violation == 0]
        if complete:
            losses = np.stack([members[i].losses for i in complete])
            values[complete] = scalarization(losses, self._ideal, self._nadir)
        return values

    def _members(self, records: Sequence[Record]) -> list[Member]:
        """Return `records` as members, FAILED ones left out, and take note of their losses."""
        told: Told = self._told(records)
        space = self._problem.space
        scored = told.losses[told.violations == 0]
        self._ideal = np.min([self._ideal, *scored], axis=0)
        self._nadir = np.max([self._nadir, *scored], axis=0)
        self._soft = self._soft and self._soft.adapted(scored)
        rows = zip(told.genes, told.losses, told.violations, strict=True)
        return [Member(space.genotype(genes), losses, float(violation)) for genes, losses, violation in rows]
