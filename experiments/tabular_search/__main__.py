"""How many trainings does each controller need? Whole searches on a table of known results, against its exact front."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from experiments.tabular_search.benchmark import CHECKPOINTS, SHARES, Benchmark
from experiments.tabular_search.optuna_search import optuna_losses
from nas.analysis.benchmark import median_of_reached
from nas.controllers import CONTROLLERS, Controller
from nas.errors import SpaceExhaustedError

BATCH = 20  # trainings between two looks at whether all is reached


def controller_losses(kind: str, benchmark: Benchmark, seed: int, n_trainings: int) -> tuple[np.ndarray, float]:
    """Run one search.

    Returns:
        `(n, n_objectives)`: the losses in the order of the trainings; and the most processor time of an ask, in s.
    """
    controller = make_controller(kind, benchmark, n_trainings)
    table = benchmark.table

    controller.setup(benchmark.problem(seed))
    rows: list[int] = []
    longest_s = 0.0
    while len(rows) < n_trainings:
        start = time.process_time()
        try:
            candidates = controller.ask(min(controller.batch_size, n_trainings - len(rows)))
        except SpaceExhaustedError:
            break
        longest_s = max(longest_s, time.process_time() - start)
        controller.tell([benchmark.record(candidate) for candidate in candidates])
        before = len(rows)
        rows += [table.row(candidate.genotype) for candidate in candidates]
        if before // BATCH != len(rows) // BATCH and benchmark.is_done(benchmark.losses[rows]):
            break
    return benchmark.losses[rows], longest_s


def make_controller(kind: str, benchmark: Benchmark, n_trainings: int) -> Controller:
    """Return a controller with the options that it has here, large enough for `n_trainings`."""
    options: dict[str, dict[str, Any]] = {
        "nsga2": {"population_size": 20, "n_generations": -(-n_trainings // 20)},
        "random": {"n_candidates": n_trainings, "batch_size": 20},
        "surrogate_nsga2": {"n_candidates": n_trainings, "interest": {"error": benchmark.usable}},
    }
    if benchmark.is_blind:
        del options["surrogate_nsga2"]["interest"]
    return CONTROLLERS[kind](**options[kind])


def summary(benchmark: Benchmark, runs: Sequence[np.ndarray], n_trainings: int) -> dict[str, Any]:
    """Return medians over `runs`, quartiles beside them; `None` for what lies beyond `n_trainings`."""
    truth = benchmark.truth
    figures: dict[str, Any] = {"hypervolume": {}, "hypervolume_quartiles": {}}
    for n in CHECKPOINTS:
        if n > n_trainings:
            figures["hypervolume"][str(n)] = figures["hypervolume_quartiles"][str(n)] = None
            continue
        shares = [truth.hypervolume_share(losses[:n]) for losses in runs]
        figures["hypervolume"][str(n)] = statistics.median(shares)
        figures["hypervolume_quartiles"][str(n)] = _quartiles(shares)
    by_name: dict[str, Callable[[np.ndarray], float]] = {
        "igd_plus_100": truth.igd_plus,
        "front_found_100": truth.front_share,
    }
    for name, measure in by_name.items():
        values = [measure(losses[:100]) for losses in runs]
        figures[name], figures[f"{name}_quartiles"] = statistics.median(values), _quartiles(values)
    for share in SHARES:
        name = f"trainings_to_{round(100 * share)}"
        counts = [truth.trainings_to(losses, share) for losses in runs]
        figures[name] = median_of_reached(counts)
        figures[f"{name}_quartiles"] = [_reached_quantile(counts, q) for q in (0.25, 0.75)]
    return figures


def spread_of_seeds(benchmark: Benchmark, arguments: argparse.Namespace) -> np.ndarray | float:
    """Return the standard deviation between trainings of a row, in points: the table's own where it has one.

    Raises:
        SystemExit: If neither the table nor `--noise-std` tells it.
    """
    column = benchmark.table.columns.get(f"{arguments.error}_seedstd")
    if column is not None:
        return column
    if arguments.noise_std is None:
        raise SystemExit(f"the table has no column {arguments.error}_seedstd: give --noise-std POINTS")
    return float(arguments.noise_std)


def _quartiles(values: Sequence[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.25, 0.75))]


def _reached_quantile(counts: Sequence[int | None], q: float) -> float | None:
    """Return a quantile of `counts`, `None` where that many never got there."""
    ordered = sorted(np.inf if count is None else float(count) for count in counts)
    value = ordered[min(int(q * len(ordered)), len(ordered) - 1)]
    return value if np.isfinite(value) else None


def main() -> None:
    """Run all searches and report how they fared."""
    arguments_of = parser(__doc__ or "")
    arguments_of.add_argument("--table", type=Path, required=True, metavar="FILE", help="an npz table")
    arguments_of.add_argument("--error", required=True, metavar="COLUMN", help="an accuracy in percent")
    arguments_of.add_argument("--usable", type=float, required=True, metavar="POINTS", help="above the best error")
    arguments_of.add_argument("--costs", required=True, metavar="COLUMN,...")
    arguments_of.add_argument("--controllers", default="random,nsga2,surrogate_nsga2", metavar="A,B")
    arguments_of.add_argument("--seeds", type=int, default=20, metavar="N", help="how many, from --first-seed on")
    arguments_of.add_argument("--first-seed", type=int, default=0, metavar="SEED")
    arguments_of.add_argument("--trainings", type=int, metavar="N", help="at most, instead of each controller's own")
    arguments_of.add_argument(
        "--league",
        choices=("told", "blind"),
        default="told",
        help="blind: costs of what was asked alone, no region of use",
    )
    arguments_of.add_argument(
        "--noise", choices=("mean", "single-seed"), default="mean", help="whether a training tells the mean over seeds"
    )
    arguments_of.add_argument("--noise-std", type=float, metavar="POINTS", help="where the table has no column of it")
    arguments = arguments_of.parse_args()
    benchmark = Benchmark.load(arguments.table, arguments.error, arguments.costs.split(","), arguments.usable)
    benchmark = replace(benchmark, is_blind=arguments.league == "blind")
    noise_std = spread_of_seeds(benchmark, arguments) if arguments.noise == "single-seed" else None
    kinds = arguments.controllers.split(",")
    if unknown := [kind for kind in kinds if kind not in MAX_TRAININGS]:
        raise SystemExit(f"unknown controllers {', '.join(unknown)}; known: {', '.join(MAX_TRAININGS)}")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    figures = {}
    for kind in kinds:
        n_trainings = arguments.trainings or MAX_TRAININGS[kind]
        search = optuna_losses if kind.startswith("optuna_") else controller_losses
        runs = [
            search(kind, benchmark if noise_std is None else benchmark.trained_once(noise_std, seed), seed, n_trainings)
            for seed in seeds
        ]
        figures[kind] = summary(benchmark, [losses for losses, _ in runs], n_trainings)
        figures[kind]["longest_ask_cpu_s"] = max(longest_s for _, longest_s in runs)
    report(
        {
            "controllers": figures,
            "table": arguments.table.name,
            "error": arguments.error,
            "costs": list(benchmark.costs),
            "usable": arguments.usable,
            "seeds": list(seeds),
            "league": arguments.league,
            "noise": arguments.noise,
        },
        arguments,
    )


MAX_TRAININGS = {
    "random": 12_000,
    "nsga2": 3_000,
    "surrogate_nsga2": 500,
    "optuna_nsga2": 500,
    "optuna_tpe": 300,
}
"""How long each searches on, unless 99 % is reached before; what they cannot reach by then is reported as null."""

if __name__ == "__main__":
    main()
