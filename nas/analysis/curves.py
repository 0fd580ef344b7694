"""How early final scores can be predicted from learning curves, by leave-one-out cross-validation over a run."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from nas.analysis.tables import cell
from nas.errors import InputError
from nas.evaluation.stopping_rules import interim_metric
from nas.predictors.learning_curves import CurvePredictor, LearningCurve, training_speed
from nas.store.run import Run
from nas.values.metrics import metric_info
from nas.values.records import Record

_MIN_RECORDS = 10


@dataclasses.dataclass(frozen=True)
class CurveQuality:
    """How well final scores are predicted from the first epochs.

    Attributes:
        n_epochs: The number of epochs that the predictor sees.
        n_scores: The number of interim scores that it sees, taken between the training's stages.
        kendall_tau: Kendall's tau of final scores and leave-one-out predictions.
        spearman: Spearman's rho of the same.
        mean_absolute_error: Of the predictions, in the score's unit.
        training_speed_tau: Kendall's tau of final scores and the plain sum of losses, which needs no fitting; 1 if the
            smallest sum means the highest score.
    """

    n_epochs: int
    n_scores: int
    kendall_tau: float
    spearman: float
    mean_absolute_error: float
    training_speed_tau: float

    @classmethod
    def of(cls, curves: Sequence[LearningCurve], finals: np.ndarray) -> "CurveQuality":
        """Predict each of `finals`, `(n,)`, from equally long curves and the other final scores.

        Raises:
            ValueError: If there are fewer than three curves, or their lengths differ.
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
    """How well one run's final scores are predicted after 1, 2, ... epochs.

    Attributes:
        metric: The predicted score.
        n_records: The number of COMPLETE records with a curve.
        n_epochs: The length of a whole training.
        standard_deviation: Of the final scores, for comparison with the errors.
        qualities: One for each epoch but the last.
    """

    metric: str
    n_records: int
    n_epochs: int
    standard_deviation: float
    qualities: tuple[CurveQuality, ...]

    @classmethod
    def of(cls, run: Run, *, metric: str | None = None) -> "CurveReport":
        """Cross-validate the prediction of final scores after every number of epochs, leaving one candidate out.

        Args:
            run: The run.
            metric: A score on the validation split; by default the first objective that needs training.

        Raises:
            InputError: If there is no such score, too few curves, or curves of one epoch or of different lengths.
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
        """Return the report as a table for a terminal; `name` is the run's."""
        title = f"{self.metric} of {name}, predicted from the first epochs"
        table = Table(title=cell(title), title_justify="left")
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
            f"{self.n_records} complete candidates, each left out once. Scores: interim scores used, taken between "
            f"stages. Kendall's tau, Spearman's rho: 1 is best; far below 0, the curves carry no information and each "
            f"prediction is the mean of the other candidates. Error: mean absolute; the scores' standard deviation is "
            f"{self.standard_deviation:.4f}. Tau of speed: of the plain sum of losses."
        )
        return table

    def to_plain(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return dataclasses.asdict(self)


def _with_curves(run: Run) -> list[Record]:
    """Return the complete records with a learning curve."""
    complete = [record for record in run.records if record.is_complete]
    records = [record for record in complete if record.epoch_losses]
    if len(records) < _MIN_RECORDS:
        raise InputError(
            f"{run.path}: curves are evaluated on at least {_MIN_RECORDS} complete candidates with stored "
            f"losses of their epochs, this run has {len(records)} of {len(complete)} complete ones"
        )
    lengths = {len(record.epoch_losses) for record in records}
    if lengths == {1}:
        raise InputError(f"{run.path}: trainings must have at least 2 epochs to predict from the first, these have 1")
    if len(lengths) > 1:
        raise InputError(f"{run.path}: trainings must have the same number of epochs, these have {sorted(lengths)}")
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
    """Return the first epochs of each training, with the interim scores taken within them."""
    taken = [name for name in _interim_names(records, metric) if records[0].conditions[name]["epochs"] <= n_epochs]
    return [
        LearningCurve(record.epoch_losses[:n_epochs], tuple(record.metrics[name] for name in taken))
        for record in records
    ]


def _interim_names(records: Sequence[Record], metric: str) -> list[str]:
    """Return the names of the interim scores that all candidates have."""
    names = (interim_metric(metric, n_stages) for n_stages in itertools.count(1))
    return list(itertools.takewhile(lambda name: all(name in record.metrics for record in records), names))
