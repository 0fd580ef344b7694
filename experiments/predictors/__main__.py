"""How well do predictors of trained metrics rank cells that they have not seen?"""

import dataclasses
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, norm, rankdata

from experiments.common import parser, report
from experiments.predictors.ensemble import Ensemble
from experiments.predictors.graph_network import GraphNetwork
from experiments.predictors.proxy_features import sample_with_proxies
from nas.predictors import FeatureEncoder, FeatureGroups, GaussianProcess, Prediction, Predictor, Trees
from nas.predictors.quality import PredictorQuality
from search_spaces import NasBench201
from search_spaces.spaces.tabular import Tabular

SAMPLE_SIZES = (25, 50, 100, 200, 400)
K = 50
N_HELD_OUT = 3_000
N_WITH_PROXIES, N_PROXY_SAMPLES = 400, 100
MAX_SEEDS = {"graph_network": 3}  # it takes seconds to fit, the others fractions of one
FLAT, CELL = ("genes", "operations", "costs"), ("paths", "flow")


def gaussian_process() -> GaussianProcess:
    """Return the process that guides the search, with room for all samples."""
    return GaussianProcess(n_max=max(SAMPLE_SIZES), n_steps=30)


def predictors(table: Tabular) -> dict[str, Callable[[], Predictor]]:
    """Return what is compared; the graph network where there is a graph."""
    found: dict[str, Callable[[], Predictor]] = {
        "gaussian_process": gaussian_process,
        "gaussian_process_without_paths": lambda: Selected(gaussian_process(), FLAT),
        "trees": lambda: Trees(n_trees=100),
        "ensemble": lambda: Ensemble((gaussian_process(), Trees(n_trees=100))),
    }
    graph = table.cell_graph
    return found if graph is None else {**found, "graph_network": lambda: GraphNetwork(graph)}


class Selected(Predictor):
    """A predictor that is shown some groups of features only."""

    def __init__(self, predictor: Predictor, groups: Collection[str]) -> None:
        self._predictor = predictor
        self._groups = groups

    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Fit to the groups."""
        self._predictor.fit(self._selected(features), values)

    def predict(self, features: FeatureGroups) -> Prediction:
        """Predict from the groups."""
        return self._predictor.predict(self._selected(features))

    def held_out(self) -> np.ndarray:
        """Return what the predictor says."""
        return self._predictor.held_out()

    def _selected(self, features: FeatureGroups) -> FeatureGroups:
        return FeatureGroups({name: columns for name, columns in features.columns.items() if name in self._groups})


def normal_scores(losses: np.ndarray) -> np.ndarray:
    """Return the normal quantiles of the ranks of `losses`: only ranks are predicted here."""
    return np.asarray(norm.ppf((rankdata(losses) - 0.5) / len(losses)))


def one_run(
    make: Callable[[], Predictor], features: FeatureGroups, losses: np.ndarray, n_samples: int, seed: int
) -> dict[str, PredictorQuality]:
    """Fit to random cells and compare on others, drawn from all cells and from the best quarter of them.

    The training cells are drawn from all cells in both cases.
    """
    order = np.random.default_rng(seed).permutation(len(losses))
    seen, others = order[:n_samples], order[n_samples:]
    best_quarter = others[losses[others] <= np.quantile(losses, 0.25)]
    predictor = make()
    predictor.fit(features.take(seen), normal_scores(losses[seen]))
    truth = normal_scores(losses)
    return {
        where: PredictorQuality.of(predictor.predict(features.take(rows[:N_HELD_OUT])), truth[rows[:N_HELD_OUT]], K)
        for where, rows in (("all", others), ("best_quarter", best_quarter))
    }


def compare(features: FeatureGroups, losses: np.ndarray, table: Tabular, seeds: int) -> dict[str, Any]:
    """Return medians over seeds by predictor, number of samples and where it is compared."""
    figures: dict[str, Any] = {}
    for name, make in predictors(table).items():
        for n_samples in SAMPLE_SIZES:
            runs = [
                one_run(make, features, losses, n_samples, seed)
                for seed in range(min(seeds, MAX_SEEDS.get(name, seeds)))
            ]
            figures.setdefault(name, {})[str(n_samples)] = {
                where: {
                    field.name: statistics.median(getattr(run[where], field.name) for run in runs)
                    for field in dataclasses.fields(PredictorQuality)
                }
                for where in ("all", "best_quarter")
            }
    return figures


def with_proxies(
    features: FeatureGroups, losses: np.ndarray, proxies: Mapping[str, np.ndarray], seeds: int
) -> dict[str, Any]:
    """Return whether proxies help: Kendall's tau after `N_PROXY_SAMPLES` of the sample, on the rest of it."""
    ranks = np.column_stack([normal_scores(values) for values in proxies.values()])
    both = FeatureGroups({**features.columns, "proxies": ranks})
    compared = {"without": FLAT + CELL, "with": (*FLAT, *CELL, "proxies"), "proxies_alone": ("proxies",)}
    found: dict[str, Any] = {
        f"tau_{name}": abs(float(kendalltau(values, losses).statistic)) for name, values in proxies.items()
    }
    for name, groups in compared.items():
        taus: dict[str, list[float]] = {"all": [], "best_quarter": []}
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(losses))
            seen, others = order[:N_PROXY_SAMPLES], order[N_PROXY_SAMPLES:]
            predictor = Selected(gaussian_process(), groups)
            predictor.fit(both.take(seen), normal_scores(losses[seen]))
            expected, truth = predictor.predict(both.take(others)).mean, losses[others]
            best = truth <= np.quantile(losses, 0.25)
            taus["all"].append(float(kendalltau(expected, truth).statistic))
            taus["best_quarter"].append(float(kendalltau(expected[best], truth[best]).statistic))
        found[name] = {where: statistics.median(values) for where, values in taus.items()}
    return found


def noise_ceiling(table: Tabular, losses: np.ndarray) -> dict[str, float]:
    """Return Kendall's tau of cells and the mean of the others that build the same network: the truth but for noise."""
    space, classes = NasBench201(), defaultdict(list)
    for row, values in enumerate(table.rows.tolist()):
        classes[space.canonical(space.genotype(values))].append(row)
    shared = [rows for rows in classes.values() if len(rows) > 1]
    means = {row: (losses[rows].sum() - losses[row]) / (len(rows) - 1) for rows in shared for row in rows}
    expected, truth = np.array(list(means.values())), losses[list(means)]
    best = truth <= np.quantile(losses, 0.25)
    return {
        "all": float(kendalltau(expected, truth).statistic),
        "best_quarter": float(kendalltau(expected[best], truth[best]).statistic),
    }


def main() -> None:
    """Fit all predictors to all sample sizes and report the medians over seeds."""
    arguments_of = parser(__doc__ or "")
    arguments_of.add_argument("--table", type=Path, metavar="FILE", help="an npz table; left out: of NAS_DATA_ROOT")
    arguments_of.add_argument(
        "--error", default="acc200_cifar10_valid", metavar="COLUMN", help="an accuracy in percent"
    )
    arguments_of.add_argument("--costs", default="params_m_cifar10_analytic", metavar="COLUMN,...", help="as features")
    arguments_of.add_argument("--seeds", type=int, default=10, metavar="N")
    arguments_of.add_argument(
        "--proxies",
        type=Path,
        metavar="FILE",
        help="also with zero-cost proxies of NAS-Bench-201's networks, kept here",
    )
    arguments = arguments_of.parse_args()
    table = Tabular(arguments.table or _default_table())
    losses = 100 - table.columns[arguments.error]
    costs = np.column_stack([np.log(table.columns[name]) for name in arguments.costs.split(",")])
    encoded = FeatureEncoder(table).encode([table.genotype(values) for values in table.rows.tolist()])
    features = FeatureGroups({**encoded.columns, "costs": costs})
    result: dict[str, Any] = {"predictors": compare(features, losses, table, arguments.seeds)}
    if arguments.proxies:
        rows, proxies, seconds_each = sample_with_proxies(table, N_WITH_PROXIES, 0, arguments.proxies)
        helped = with_proxies(features.take(rows), losses[rows], proxies, 2 * arguments.seeds)
        result["noise_ceiling"] = noise_ceiling(table, losses)
        result["proxies"] = {**helped, "n_networks": len(rows), "seconds_each": seconds_each}
    report({**result, "k": K, "n_held_out": N_HELD_OUT, "seeds": arguments.seeds}, arguments)


def _default_table() -> Path:
    root = os.environ.get("NAS_DATA_ROOT")
    if root is None:
        raise SystemExit("--table must name an npz table, or NAS_DATA_ROOT the folder of data")
    return Path(root) / "nasbench201" / "nasbench201_cifar10.npz"


if __name__ == "__main__":
    main()
