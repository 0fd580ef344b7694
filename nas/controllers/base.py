"""The contract of a controller, and the duties that each would otherwise do again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, final

import numpy as np
from annotated_types import Ge, Le

from nas.errors import SpaceExhaustedError
from nas.values.bounds import bounded
from nas.values.objectives import Objective, to_losses
from nas.values.records import Candidate, Record, RecordState
from search_spaces.base import SearchSpace
from search_spaces.genotype import Genotype

_MAX_PROPOSAL_ROUNDS = 20  # of a controller's own operators before sampling tops the batch up
_MAX_SAMPLES_EACH = 50  # for one missing candidate, before the space is enumerated
_PRUNED_VIOLATION = 1e-9  # behind every feasible record, before every real violation


@dataclass(frozen=True)
class SearchProblem:
    """What a controller searches.

    Attributes:
        space: Where genotypes come from.
        objectives: What is optimised, in the order of the columns of losses.
        seed: The run's seed.
        keeps_cheap_bounds: Whether a genotype keeps the bounds on metrics that cost next to nothing to know exactly
            (parameters, MACs); genotypes that don't are asked for only when nothing better turns up.
        known_costs: The metrics of a genotype that are known exactly without evaluating it, the same ones for every
            genotype; controllers may call it thousands of times for one `ask`.
        first: Genotypes that are asked for before the controller proposes its own: what earlier runs found.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    seed: int
    keeps_cheap_bounds: Callable[[Genotype], bool] = lambda genotype: True
    known_costs: Callable[[Genotype], Mapping[str, float]] = lambda genotype: {}
    first: tuple[Genotype, ...] = ()


@dataclass(frozen=True)
class Told:
    """Records as numbers for a controller. FAILED ones are not among them: a failure is never a number.

    Attributes:
        genes: `(n, n_genes)` integers.
        losses: `(n, n_objectives)`, minimised; NaN in the rows that were never scored.
        violations: `(n,)`: 0 for COMPLETE records, tiny for PRUNED, by how far the bounds are broken for
            INFEASIBLE ones, so that PRUNED ranks behind every COMPLETE and before every INFEASIBLE one.
    """

    genes: np.ndarray
    losses: np.ndarray
    violations: np.ndarray


class Controller(ABC):
    """Chooses which genotypes to evaluate. Subclasses write `_propose` and `tell`.

    A constructor takes the controller's own options and is cheap; `setup` gives it the problem. A controller
    is a function of its options, the problem and what it was told: replaying the same tells after the same
    asks brings it to the same state.
    """

    _problem: SearchProblem
    _rng: np.random.Generator

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """How many candidates to ask for at a time."""

    @property
    @abstractmethod
    def n_candidates(self) -> int:
        """How many candidates the whole search asks for."""

    def check_objectives(self, objectives: Sequence[Objective]) -> None:  # noqa: B027 - most take any
        """Check that the controller's options fit what is optimised; a configuration's check calls it.

        Raises:
            ValueError: If they don't; the message starts with the option's name.
        """

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`. Call once, before the first `ask`."""
        self._problem = problem
        self._rng = np.random.default_rng(problem.seed)
        self._asked: set[tuple[int, ...]] = set()
        self._remaining: Iterator[Genotype] = problem.space.enumerate()

    @final
    def ask(self, n: int) -> tuple[Candidate, ...]:
        """Return `n` candidates, canonical and never asked for before; fewer only when the space runs out.

        What earlier runs found comes first, then the controller's own proposals; what they leave open is filled by
        sampling, at last by enumeration.

        Raises:
            SpaceExhaustedError: If every genotype was asked for already.
        """
        chosen: list[Genotype] = []
        set_aside: list[Genotype] = []  # new, but outside the cheap bounds
        for genotype in self._new_genotypes(n, chosen):
            keeps = self._problem.keeps_cheap_bounds(genotype)
            (chosen if keeps else set_aside).append(genotype)
            if len(chosen) == n:
                break
        missing = n - len(chosen)
        for genotype in set_aside[missing:]:
            self._asked.discard(genotype.genes)
        chosen += set_aside[:missing]
        chosen += self._enumerate(n - len(chosen))
        if not chosen:
            raise SpaceExhaustedError(
                f"every one of the distinct networks of {self._problem.space.name!r} was asked for"
            )
        return tuple(Candidate.create(self._problem.space, genotype, self._problem.seed) for genotype in chosen)

    def adopt(self, candidates: Sequence[Candidate], *, instead_of: Sequence[Candidate] = ()) -> None:
        """Take note that `candidates` were asked for by an earlier process, where `ask` returned others here."""
        self._asked.difference_update(candidate.genotype.genes for candidate in instead_of)
        self._asked.update(candidate.genotype.genes for candidate in candidates)

    def expected_gain(self, n_next: int) -> float | None:
        """Return what a model of the controller's expects the next candidates to add to the hypervolume.

        As a share of the present hypervolume, as of the last `ask`; `None` if there is no model, or it knows nothing.

        Args:
            n_next: How many candidates are thought of.
        """
        return None

    @abstractmethod
    def _propose(self, n: int) -> Iterable[Genotype]:
        """Return about `n` genotypes worth evaluating; duplicates and uncanonical ones may be among them."""

    @abstractmethod
    def tell(self, records: Sequence[Record]) -> None:
        """Learn from the records of one batch, in the order in which they were asked for."""

    def _told(self, records: Sequence[Record]) -> Told:
        """Return `records` as numbers."""
        usable = [record for record in records if record.state is not RecordState.FAILED]
        losses = np.full((len(usable), len(self._problem.objectives)), np.nan)
        complete = [i for i, record in enumerate(usable) if record.is_complete]
        losses[complete] = to_losses(self._problem.objectives, [usable[i].metrics for i in complete])
        return Told(
            genes=np.array([record.candidate.genotype.genes for record in usable], dtype=np.int64).reshape(
                len(usable), len(self._problem.space.genes)
            ),
            losses=losses,
            violations=np.array([_violation(record) for record in usable], dtype=np.float64),
        )

    def _new_genotypes(self, n: int, chosen: list[Genotype]) -> Iterator[Genotype]:
        """Yield canonical genotypes that were not asked for, marking each as asked."""
        for genotype in self._problem.first:
            yield from self._if_new(genotype)
        for _ in range(_MAX_PROPOSAL_ROUNDS):
            for genotype in self._propose(n - len(chosen)):
                yield from self._if_new(genotype)
        for _ in range(_MAX_SAMPLES_EACH * n):
            yield from self._if_new(self._problem.space.sample(self._rng))

    def _if_new(self, genotype: Genotype) -> Iterator[Genotype]:
        canonical = self._problem.space.canonical(genotype)
        if canonical.genes not in self._asked:
            self._asked.add(canonical.genes)
            yield canonical

    def _enumerate(self, n: int) -> list[Genotype]:
        found: list[Genotype] = []
        while len(found) < n and (genotype := next(self._remaining, None)) is not None:
            found += self._if_new(genotype)
        return found


class SizedController(Controller):
    """A controller that is told how many candidates to ask for, and how many at a time.

    Args:
        n_candidates: In the whole search.
        batch_size: At a time.
    """

    @bounded
    def __init__(
        self, n_candidates: Annotated[int, Ge(1), Le(10**9)], batch_size: Annotated[int, Ge(1), Le(10**6)]
    ) -> None:
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


def _violation(record: Record) -> float:
    if record.state is RecordState.PRUNED:
        return _PRUNED_VIOLATION
    return sum(violation.amount for violation in record.violations)
