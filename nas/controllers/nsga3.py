"""NSGA-III: selection by reference directions, for three objectives and more."""

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.util.ref_dirs import get_reference_directions

from nas.controllers.nsga2 import Nsga2


class Nsga3(Nsga2):
    """NSGA-II's operators, its survivors chosen by reference directions, as many as the population has members at most.

    Options are those of `Nsga2`.

    Source:
        Deb & Jain 2014, doi:10.1109/TEVC.2013.2281535, as implemented by pymoo, with uniform crossover.
    """

    def _new_algorithm(self, **options: Any) -> Any:
        n_objectives = len(self._problem.objectives)
        if n_objectives == 1:
            directions = get_reference_directions("das-dennis", 1, n_partitions=1)
        else:
            n_partitions = 1
            while _n_directions(n_objectives, n_partitions + 1) <= options["pop_size"]:
                n_partitions += 1
            directions = get_reference_directions("das-dennis", n_objectives, n_partitions=n_partitions)
        sizes = {"pop_size": max(options["pop_size"], len(directions))}
        selection = TournamentSelection(func_comp=less_violating_or_random)
        return NSGA3(ref_dirs=directions, selection=selection, **{**options, **sizes})


def less_violating_or_random(
    population: Population, pairs: np.ndarray, *args: Any, random_state: np.random.Generator, **kwargs: Any
) -> np.ndarray:
    """Return `(n, 1)`: of each pair the member that violates less, any of the two if they are equal.

    pymoo's own comparison draws from a generator without a seed when two members violate equally.
    """
    amounts = population.get("CV")[:, 0][pairs]  # (n, 2)
    second = np.where(
        amounts[:, 0] == amounts[:, 1], random_state.random(len(pairs)) < 0.5, amounts.argmin(axis=1) == 1
    )
    return pairs[np.arange(len(pairs)), second.astype(np.int64)][:, np.newaxis]


def _n_directions(n_objectives: int, n_partitions: int) -> int:
    """Return how many points a simplex has with so many steps along each side (Das & Dennis 1998)."""
    count = 1
    for step in range(1, n_objectives):
        count = count * (n_partitions + step) // step
    return count
