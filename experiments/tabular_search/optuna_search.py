"""Optuna's samplers on the same tables; only this experiment needs Optuna."""

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from experiments.tabular_search.benchmark import Benchmark


def optuna_losses(kind: str, benchmark: "Benchmark", seed: int, n_trainings: int) -> tuple[np.ndarray, float]:
    """Run one search by `optuna_nsga2` or `optuna_tpe`.

    A genotype that was trained before is told its known values and is no training. One that is no row of the table
    is replaced by the nearest row, as for our own controllers.

    Returns:
        `(n, n_objectives)`: the losses in the order of the trainings; and the most processor time of an ask, in s.
    """
    import optuna  # noqa: PLC0415 - so that the other controllers run without it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers: dict[str, Any] = {
        "optuna_nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
        "optuna_tpe": lambda: optuna.samplers.TPESampler(multivariate=True, seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multivariate is experimental"
        sampler = samplers[kind]()
    study = optuna.create_study(directions=["minimize"] * benchmark.losses.shape[1], sampler=sampler)
    space = benchmark.table
    rows: dict[int, None] = {}
    longest_s = 0.0
    for number in range(20 * n_trainings):
        start = time.process_time()
        trial = study.ask()
        values = [trial.suggest_categorical(gene.name, range(gene.n_values)) for gene in space.genes]
        longest_s = max(longest_s, time.process_time() - start)
        row = space.row(space.nearest(values))
        rows.setdefault(row)
        study.tell(trial, list(benchmark.metrics(row).values()))
        if len(rows) == n_trainings or (number % 20 == 0 and benchmark.is_done(benchmark.losses[list(rows)])):
            break
    return benchmark.losses[list(rows)], longest_s
