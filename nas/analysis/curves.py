"""How early in a run's trainings their final scores could have been told: each training left out once."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from nas.errors import InputError
from nas.evaluation.stopping_rules import interim_metric
from nas.predictors.learning_curves import CurvePredictor, LearningCurve, training_speed
from nas.store.run import Run
from nas.values.metrics import metric_info
from nas.values.records import Record

_MIN_RECORDS = 10


@dataclasses.dataclass(frozen=True)
class CurveQuality:
    """How well final scores are told after some epochs.

    Attributes:
        n_epochs: How many.
        n_scores: How many scores had been taken by then, between the training's stages.
        kendall_tau: Of final scores and those that a predictor expects which was fitted to all other candidates.
        spearman: The same by Spearman.
        mean_absolute_error: Of what it expects, in the score's units.
        training_speed_tau: Kendall's tau of final scores and the plain sum of losses, which is fitted to nothing; 1
            where the smallest sum means the highest score.
    """

    n_epochs: int
    n_scores: int
    kendall_tau: float
    spearman: float
    mean_absolute_error: float
    training_speed_tau: float

    @classmethod
    def of(cls, curves: Sequence[LearningCurve], finals: np.ndarray) -> "CurveQuality":
        """Predict each of `finals`, `(n,)`, from the curves of all, equally long, and the other finals.

        Raises:
            ValueError: If there are fewer than three, or they are not alike.
        """
        predictor = CurvePredictor()
        predictor.fit(curves, finals)
        expected = predictor.held_out()
        speeds = [-training_speed(curve.losses) for curve in curves]
        return cls(
            n_epochs=len(curves[0].losses),
            n_scores=len(curves[0].scores),
            kendall_tau=float(kendalltau(expected, finals).statistic),
            spearman=float(spearmanr(expected, finals).statistic),
            mean_absolute_error=float(np.abs(expected - finals).mean()),
            training_speed_tau=float(kendalltau(speeds, finals).statistic),
        )


@dataclasses.dataclass(frozen=True)
class CurveReport:
    """How well one run's final scores are told after 1, 2, ... epochs.

    Attributes:
        metric: The score.
        n_records: COMPLETE ones with a curve.
        n_epochs: Of a whole training.
        standard_deviation: Of the final scores: what the errors are to be compared with.
        qualities: After each epoch but the last.
    """

    metric: str
    n_records: int
    n_epochs: int
    standard_deviation: float
    qualities: tuple[CurveQuality, ...]

    @classmethod
    def of(cls, run: Run, *, metric: str | None = None) -> "CurveReport":
        """Predict the final score of each complete candidate from the first epochs of all and the others' scores.

        Args:
            run: The run.
            metric: A score on the validation split; by default the first objective that networks are trained for.

        Raises:
            InputError: If there is no such score, or there are too few curves, or they have one epoch.
        """
        records = _with_curves(run)
        metric = _chosen(run, records, metric)
        finals = np.array([record.metrics[metric] for record in records])
        if np.ptp(finals) == 0:
            raise InputError(f"{run.path}: {metric} is {finals[0]:g} for every candidate")
        n_epochs = len(records[0].epoch_losses)
        qualities = [CurveQuality.of(_curves(records, metric, n), finals) for n in range(1, n_epochs)]
        return cls(metric, len(records), n_epochs, float(finals.std()), tuple(qualities))

    def table(self, name: str) -> Table:
        """Return the report for a terminal; `name` is the run's."""
        title = f"{self.metric} of {name}, told from the first epochs"
        table = Table(title=escape(title), title_justify="left")
        for column in ("epochs", "scores", "tau", "rho", "error", "tau of speed"):
            table.add_column(column, justify="right")
        for quality in self.qualities:
            table.add_row(
                f"{quality.n_epochs} of {self.n_epochs}",
                str(quality.n_scores),
                f"{quality.kendall_tau:.3f}",
                f"{quality.spearman:.3f}",
                f"{quality.mean_absolute_error:.4f}",
                f"{quality.training_speed_tau:.3f}",
            )
        table.caption = (
            f"{self.n_records} complete candidates, each left out once. Scores: taken by then, between stages. "
            f"Kendall's tau, Spearman's rho: 1 is best; far below 0, the curves tell nothing and each is expected at "
            f"the others' mean. Error: mean absolute; the scores' standard deviation is "
            f"{self.standard_deviation:.4f}. Tau of speed: of the plain sum of losses."
        )
        return table

    def to_plain(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return dataclasses.asdict(self)


def _with_curves(run: Run) -> list[Record]:
    """Return the complete records with a curve."""
    records = [record for record in run.records if record.is_complete and record.epoch_losses]
    if len(records) < _MIN_RECORDS:
        raise InputError(
            f"{run.path}: curves are judged on at least {_MIN_RECORDS} complete candidates whose epochs' losses are "
            f"stored, this run has {len(records)} of {sum(record.is_complete for record in run.records)} complete ones"
        )
    lengths = {len(record.epoch_losses) for record in records}
    if lengths == {1}:
        raise InputError(f"{run.path}: trainings must have at least 2 epochs to be told from the first, these have 1")
    if len(lengths) > 1:
        raise InputError(f"{run.path}: trainings must have equally many epochs, these have {sorted(lengths)}")
    return records


def _chosen(run: Run, records: Sequence[Record], metric: str | None) -> str:
    known = [name for name in records[0].metrics if _is_score(run, name) and all(name in r.metrics for r in records)]
    if metric is None:
        metric = next((o.metric for o in run.objectives if o.metric in known), None)
        if metric is None:
            raise InputError(f"{run.path}: no objective is a score; choose a metric: {', '.join(known)}")
    if metric not in known:
        raise InputError(f"metric must be a score of {run.path}, got {metric!r}; those are: {', '.join(known)}")
    return metric


def _is_score(run: Run, metric: str) -> bool:
    info = metric_info(metric)
    return metric in run.scores or (info is not None and info.needs_training)


def _curves(records: Sequence[Record], metric: str, n_epochs: int) -> list[LearningCurve]:
    """Return the first epochs of each training, with the scores taken by then."""
    taken = [name for name in _interim_names(records, metric) if records[0].conditions[name]["epochs"] <= n_epochs]
    return [
        LearningCurve(record.epoch_losses[:n_epochs], tuple(record.metrics[name] for name in taken))
        for record in records
    ]


def _interim_names(records: Sequence[Record], metric: str) -> list[str]:
    """Return the names of the scores that all candidates have from between their trainings' stages."""
    names = (interim_metric(metric, n_stages) for n_stages in itertools.count(1))
    return list(itertools.takewhile(lambda name: all(name in record.metrics for record in records), names))
