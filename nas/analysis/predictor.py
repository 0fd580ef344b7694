"""Quality of predictors on a run, by cross-validation over its batches."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from nas.analysis.tables import cell
from nas.errors import InputError
from nas.predictors import FeatureEncoder, FeatureGroups, GaussianProcess, Predictor, Trees
from nas.predictors.base import Prediction
from nas.predictors.quality import PredictorQuality
from nas.store.run import Run
from nas.values.metrics import metric_info
from nas.values.objectives import Objective, to_losses
from nas.values.records import Record
from search_spaces.base import SearchSpace
from search_spaces.spaces.tabular import Tabular

PREDICTORS: dict[str, Callable[[], Predictor]] = {"gaussian_process": GaussianProcess, "trees": Trees}

_MAX_FOLDS = 10
_MIN_RECORDS = 10
_TOP_SHARE = 0.2  # the default of k, as a share of the records


@dataclasses.dataclass(frozen=True)
class PredictorReport:
    """Quality of the predictors on one run, by objective and predictor.

    Attributes:
        n_records: The number of COMPLETE records.
        n_folds: The number of folds, each of whole batches.
        k: The k of precision@k and n@k.
        qualities: By metric, then by predictor.
    """

    n_records: int
    n_folds: int
    k: int
    qualities: Mapping[str, Mapping[str, PredictorQuality]]

    @classmethod
    def of(cls, run: Run, space: SearchSpace, *, metric: str | None = None, k: int | None = None) -> "PredictorReport":
        """Cross-validate every predictor; a fold holds whole batches, as a search predicts whole batches too.

        Args:
            run: The run.
            space: Its search space.
            metric: The objective to predict; by default all that are unknown before training, or all if none is.
            k: The k of precision@k and n@k; by default a fifth of the records.

        Raises:
            InputError: If the run is too small, or has no such objective.
        """
        records = [record for record in run.records if record.is_complete]
        folds = _folds(records)
        if len(records) < _MIN_RECORDS or len(folds) < 2:
            n_batches = len({record.batch for record in records})
            raise InputError(
                f"{run.path}: a predictor is evaluated on at least {_MIN_RECORDS} complete candidates of two batches, "
                f"this run has {len(records)} of {n_batches}"
            )
        k = max(1, round(_TOP_SHARE * len(records))) if k is None else k
        if not 1 <= k <= len(records):
            raise InputError(f"k must lie in 1 .. {len(records)}, the number of complete candidates, got {k}")
        costs = _known_costs(run, space, records)
        encoded = FeatureEncoder(space).encode([record.candidate.genotype for record in records])
        qualities = {}
        for objective in _chosen(run, metric, costs):
            known = [name for name in costs if name != objective.metric]
            features = FeatureGroups({**encoded.columns, **_cost_columns(records, known)})
            losses = to_losses([objective], [record.metrics for record in records])[:, 0]
            if np.ptp(losses) == 0:
                raise InputError(
                    f"{run.path}: {objective.metric} is {losses[0] * objective.sign:g} for every candidate"
                )
            qualities[objective.metric] = {
                name: PredictorQuality.of(_held_out(make, features, losses, folds), losses, k)
                for name, make in PREDICTORS.items()
            }
        return cls(len(records), len(folds), k, qualities)

    def table(self, name: str) -> Table:
        """Return the report as a table for a terminal; `name` is the run's."""
        table = Table(title=cell(f"Predictors on {name}, cross-validated over batches"), title_justify="left")
        for column in ("objective", "predictor"):
            table.add_column(column, no_wrap=True)
        for column in ("tau", "rho", f"P@{self.k}", f"N@{self.k}", "calibration"):
            table.add_column(column, justify="right")
        for metric, by_predictor in self.qualities.items():
            for predictor, quality in by_predictor.items():
                shares = (quality.kendall_tau, quality.spearman, quality.precision_at_k)
                table.add_row(
                    cell(metric),
                    predictor,
                    *(f"{share:.3f}" for share in shares),
                    str(quality.n_at_k),
                    f"{quality.calibration_error:.3f}",
                )
        table.caption = (
            f"{self.n_records} complete candidates in {self.n_folds} folds. Kendall's tau, Spearman's rho: 1 is best. "
            f"P@{self.k}: the share of the predicted best {self.k} that are among the true best {self.k}; N@{self.k}: "
            f"the best true rank among the predicted best {self.k}. Calibration: error of the intervals' coverage, 0 "
            f"is best."
        )
        return table

    def to_plain(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return dataclasses.asdict(self)


def _folds(records: Sequence[Record]) -> list[np.ndarray]:
    """Return the row indices of each fold: whole batches, in order."""
    batches = np.array([record.batch for record in records])
    groups = np.array_split(np.unique(batches), min(_MAX_FOLDS, len(np.unique(batches))) or 1)
    return [np.flatnonzero(np.isin(batches, group)) for group in groups]


def _known_costs(run: Run, space: SearchSpace, records: Sequence[Record]) -> list[str]:
    """Return the metrics that every record has and that are known before training."""
    if isinstance(space, Tabular):
        names = list(space.costs)
    else:
        names = [name for name in records[0].metrics if (info := metric_info(name)) and not info.needs_training]
    return [name for name in names if all(name in record.metrics for record in records)]


def _chosen(run: Run, metric: str | None, costs: Sequence[str]) -> Sequence[Objective]:
    if metric is None:
        return [o for o in run.objectives if o.metric not in costs] or run.objectives
    found = [objective for objective in run.objectives if objective.metric == metric]
    if not found:
        known = ", ".join(objective.metric for objective in run.objectives)
        raise InputError(f"metric must be an objective of {run.path}, got {metric!r}; those are: {known}")
    return found


def _cost_columns(records: Sequence[Record], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the logarithms of the costs as a group of features; no group without costs."""
    if not names:
        return {}
    costs = np.array([[record.metrics[name] for name in names] for record in records])
    return {"costs": np.sign(costs) * np.log1p(np.abs(costs))}


def _held_out(
    make: Callable[[], Predictor], features: FeatureGroups, losses: np.ndarray, folds: Sequence[np.ndarray]
) -> Prediction:
    """Return the prediction for every fold by a predictor fitted to all other folds."""
    mean, spread = np.empty_like(losses), np.empty_like(losses)
    for rows in folds:
        others = np.setdiff1d(np.arange(len(losses)), rows)
        predictor = make()
        predictor.fit(features.take(others), losses[others])
        prediction = predictor.predict(features.take(rows))
        mean[rows], spread[rows] = prediction.mean, prediction.spread
    return Prediction(mean, spread)
