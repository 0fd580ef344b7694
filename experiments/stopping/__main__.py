"""How many trainings does `budget: {stop_when_converged: true}` save, and how much hypervolume does it give up?"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from experiments.tabular_search.__main__ import make_controller
from experiments.tabular_search.benchmark import Benchmark
from nas.errors import SpaceExhaustedError
from nas.search.convergence import expected_gain, joined_gain
from nas.values.budgets import Budget
from nas.values.pareto import ParetoArchive

CONTROLLERS = ("surrogate_nsga2", "nsga2", "random")
_TABLE = Path("nasbench201") / "nasbench201_cifar10.npz"


@dataclass(frozen=True)
class Searched:
    """One whole search.

    Attributes:
        volumes: Hypervolume after each training, `(n_trainings,)`.
        by_model: What the controller's model expected of the next candidates then; `None` without one.
    """

    volumes: np.ndarray
    by_model: list[float | None]


def searched(kind: str, benchmark: Benchmark, seed: int, n_trainings: int, n_next: int) -> Searched:
    """Run one whole search; the model is asked for what it expects of the next `n_next` candidates."""
    controller = make_controller(kind, benchmark, n_trainings)
    controller.setup(benchmark.problem(seed))
    point = benchmark.losses.max(axis=0)
    point[0] = benchmark.losses[:, 0].min() + benchmark.usable
    archive, volumes, by_model = ParetoArchive(benchmark.objectives), list[float](), list[float | None]()
    while len(volumes) < n_trainings:
        try:
            candidates = controller.ask(min(controller.batch_size, n_trainings - len(volumes)))
        except SpaceExhaustedError:
            break
        by_model += [controller.expected_gain(n_next)] * len(candidates)
        records = [benchmark.record(candidate) for candidate in candidates]
        controller.tell(records)
        for record in records:
            if archive.add(record) or not volumes:
                volumes.append(archive.hypervolume(point))
            else:
                volumes.append(volumes[-1])
    return Searched(np.array(volumes), by_model)


def stops_after(search: Searched, budget: Budget) -> int:
    """Return after how many trainings the rule ends the search."""
    volumes = search.volumes
    for n in range(1, len(volumes) + 1):
        by_history = expected_gain(volumes[:n], budget.converged_next)
        if budget.has_converged(joined_gain(by_history, search.by_model[n - 1])):
            return n
    return len(volumes)


def judged(searches: list[Searched], budget: Budget) -> dict[str, Any]:
    """Return what the rule saves and gives up in each search."""
    volumes = [search.volumes for search in searches]
    stops = [stops_after(search, budget) for search in searches]
    saved = [1 - stop / len(one) for stop, one in zip(stops, volumes, strict=True)]
    lost = [1 - one[stop - 1] / one[-1] for stop, one in zip(stops, volumes, strict=True)]
    return {
        "stops_after": stops,
        "saved_median": float(np.median(saved)),
        "saved_least": min(saved),
        "given_up_median": float(np.median(lost)),
        "given_up_most": max(lost),
    }


def main() -> None:
    """Run whole searches, and look back at where the rule would have ended each: it changes nothing before."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-seeds", type=int, default=20)
    arguments.add_argument("--n-trainings", type=int, default=500)
    arguments.add_argument("--controllers", nargs="+", default=CONTROLLERS, choices=CONTROLLERS)
    arguments.add_argument("--data-root", type=Path, default=Path(os.environ.get("NAS_DATA_ROOT", ".")))
    arguments.add_argument("--cost", default="lat_ms_1080ti_1", help="the second objective")
    arguments.add_argument("--usable", type=float, default=10.0, help="how far behind the best error one may be")
    options = arguments.parse_args()
    benchmark = Benchmark.load(options.data_root / _TABLE, "acc200_cifar10_valid", [options.cost], options.usable)
    budget = Budget(stop_when_converged=True)
    found = {}
    for kind in options.controllers:
        searches = [
            searched(kind, benchmark, seed, options.n_trainings, budget.converged_next)
            for seed in range(options.n_seeds)
        ]
        volumes = [search.volumes[9::10].round(3).tolist() for search in searches]
        found[kind] = {**judged(searches, budget), "volumes": volumes}
    rule = {"converged_next": budget.converged_next, "converged_gain": budget.converged_gain}
    report(
        {"n_seeds": options.n_seeds, "n_trainings": options.n_trainings, "rule": rule, "controllers": found}, options
    )


if __name__ == "__main__":
    main()
