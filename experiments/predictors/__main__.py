"""How well do predictors of trained metrics rank cells that they have not seen?"""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from experiments.common import parser, report
from nas.predictors import Ensemble, FeatureEncoder, FeatureGroups, GaussianProcess, Predictor, Trees
from nas.predictors.quality import PredictorQuality
from search_spaces.tabular import Tabular

SAMPLE_SIZES = (25, 50, 100, 200, 400)
K = 50
N_HELD_OUT = 3_000
PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "gaussian_process": lambda: GaussianProcess(n_max=400, n_steps=30),
    "trees": lambda: Trees(n_trees=100),
    "ensemble": lambda: Ensemble((GaussianProcess(n_max=400, n_steps=30), Trees(n_trees=100))),
}


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


def main() -> None:
    """Fit all predictors to all sample sizes and report the medians over seeds."""
    arguments_of = parser(__doc__ or "")
    arguments_of.add_argument("--table", type=Path, required=True, metavar="FILE", help="an npz table")
    arguments_of.add_argument(
        "--error", default="acc200_cifar10_valid", metavar="COLUMN", help="an accuracy in percent"
    )
    arguments_of.add_argument("--costs", default="params_m_cifar10_analytic", metavar="COLUMN,...", help="as features")
    arguments_of.add_argument("--seeds", type=int, default=10, metavar="N")
    arguments = arguments_of.parse_args()
    table = Tabular(arguments.table)
    losses = 100 - table.columns[arguments.error]
    costs = np.column_stack([np.log(table.columns[name]) for name in arguments.costs.split(",")])
    encoded = FeatureEncoder(table).encode([table.genotype(values) for values in table.rows.tolist()])
    features = FeatureGroups({**encoded.columns, "costs": costs})
    figures: dict[str, Any] = {}
    for name, make in PREDICTORS.items():
        for n_samples in SAMPLE_SIZES:
            runs = [one_run(make, features, losses, n_samples, seed) for seed in range(arguments.seeds)]
            figures.setdefault(name, {})[str(n_samples)] = {
                where: {
                    field.name: statistics.median(getattr(run[where], field.name) for run in runs)
                    for field in dataclasses.fields(PredictorQuality)
                }
                for where in ("all", "best_quarter")
            }
    report({"predictors": figures, "k": K, "n_held_out": N_HELD_OUT, "seeds": arguments.seeds}, arguments)


if __name__ == "__main__":
    main()
