"""NSGA-II on integer genes, by pymoo. Its types stay in this file."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le, MultipleOf
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from nas.controllers.base import Controller, SearchProblem
from nas.values.bounds import bounded
from nas.values.records import Record
from search_spaces.genotype import Gene, GeneKind, Genotype


class GeneMutation(Mutation):  # type: ignore[misc]  # pymoo is untyped
    """Changes each gene with equal probability: a step for an ordinal one, another value for a categorical."""

    def __init__(self, genes: Sequence[Gene], probability: float) -> None:
        super().__init__(prob=1.0)
        self._n_values = np.array([gene.n_values for gene in genes])
        self._ordinal = np.array([gene.kind is GeneKind.ORDINAL for gene in genes])
        self._probability = probability

    def _do(self, problem: Problem, X: np.ndarray, *args: Any, random_state: Any = None, **kwargs: Any) -> Any:
        """Return mutated copies of `X`, `(n, n_genes)`; every changed gene takes another value than before."""
        X = X.astype(np.int64)
        change = (random_state.random(X.shape) < self._probability) & (self._n_values > 1)
        step = np.where(random_state.random(X.shape) < 0.5, -1, 1)
        step = np.where((X + step < 0) | (X + step >= self._n_values), -step, step)
        shift = random_state.integers(1, np.maximum(self._n_values, 2), size=X.shape)
        changed = np.where(self._ordinal, X + step, (X + shift) % self._n_values)
        return np.where(change, changed, X)


class Nsga2(Controller):
    """The non-dominated sorting genetic algorithm with an all-time memory of what was asked.

    Args:
        population_size: Parents, and candidates asked for in each generation; even, at least 4.
        n_generations: Generations, the first random one included.
        mutation_probability: For each gene; `None` for one gene in expectation.

    Source:
        Deb et al. 2002, doi:10.1109/4235.996017, as implemented by pymoo, with uniform crossover.
        Differs: offspring that were asked for before are never evaluated again (the base class replaces them).
    """

    @bounded
    def __init__(
        self,
        population_size: Annotated[int, Ge(4), Le(10**6), MultipleOf(2)] = 20,
        n_generations: Annotated[int, Ge(1), Le(10**6)] = 10,
        mutation_probability: Annotated[float, Gt(0), Le(1)] | None = None,
    ) -> None:
        self._population_size = population_size
        self._n_generations = n_generations
        self._mutation_probability = mutation_probability

    @property
    def batch_size(self) -> int:
        """The size of a generation."""
        return self._population_size

    @property
    def n_candidates(self) -> int:
        """Generations times their size."""
        return self._population_size * self._n_generations

    def setup(self, problem: SearchProblem) -> None:
        """Start on `problem`."""
        super().setup(problem)
        genes = problem.space.genes
        self._first: list[Record] | None = []  # told before there is a population
        self._algorithm = self._new_algorithm(
            pop_size=self._population_size,
            sampling=IntegerRandomSampling(),
            crossover=UniformCrossover(),
            mutation=GeneMutation(genes, self._mutation_probability or 1 / len(genes)),
            eliminate_duplicates=False,  # the base class does it, against all that was ever asked
        )
        self._algorithm.setup(
            Problem(
                n_var=len(genes),
                n_obj=len(problem.objectives),
                n_ieq_constr=1,
                xl=np.zeros(len(genes), dtype=np.int64),
                xu=np.array([gene.n_values - 1 for gene in genes]),
                vtype=int,
            ),
            seed=int(self._rng.integers(2**31)),
            termination=NoTermination(),
        )

    def _new_algorithm(self, **options: Any) -> Any:
        """Return pymoo's algorithm, which differs between the controllers of this family by how it selects."""
        return NSGA2(**options)

    def _propose(self, n: int) -> Iterable[Genotype]:
        return [self._problem.space.nearest(genes) for genes in self._algorithm.ask().get("X")]

    def tell(self, records: Sequence[Record]) -> None:
        """Let the records of one generation, or fewer, compete with the parents for the next population.

        Told one by one, as in a steady-state search, the first generation is random until so many have ended.
        """
        if self._first is not None:
            self._first += records
            if len(self._first) < self._population_size:
                return
            records = self._first
        told = self._told(records)
        if len(told.genes) == 0:
            return  # all failed: the parents stay, or the first generation is drawn again
        self._first = None
        self.tell_losses(told.genes, told.losses, told.violations)

    def tell_losses(self, genes: np.ndarray, losses: np.ndarray, violations: np.ndarray | None = None) -> None:
        """Let genotypes compete by numbers that need not come from records, e.g. predicted ones.

        Args:
            genes: `(n, n_genes)` integers, at least one row.
            losses: `(n, n_objectives)`, minimised.
            violations: `(n,)`, 0 for what is feasible; `None` where all is.
        """
        amounts = np.zeros(len(genes)) if violations is None else violations
        self._algorithm.tell(infills=Population.new(X=genes, F=losses, G=amounts[:, np.newaxis]))
