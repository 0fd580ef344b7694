"""Successive halving with thresholds that are fixed when a candidate is asked for, and fair to cheap candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.records import Record


@dataclass(frozen=True)
class SuccessiveHalving:
    """After each stage of a training but the last, the best share of the candidates goes on.

    Best is who few others beat in everything, in costs and in the score so far: by the score alone the cheap end of the
    front would be dropped, whose scores are the best to be had at their cost.

    Attributes:
        reduction: One of so many goes on to each next stage.
        n_finished: With fewer finished candidates that came as far nobody is dropped.

    Source:
        Jamieson & Talwalkar 2016, arXiv:1502.07943; several objectives as in Schmucker et al. 2021, arXiv:2106.12639,
        ranked by how many dominate a candidate (Fonseca & Fleming 1993).
        Differs: thresholds come from finished candidates alone, so that the order of trainings does not matter.
    """

    reduction: float = 2.0
    n_finished: int = 8

    def __post_init__(self) -> None:
        if not self.reduction > 1:
            raise ValueError(f"reduction must be more than 1, got {self.reduction}")
        if self.n_finished < 1:
            raise ValueError(f"n_finished must be at least 1, got {self.n_finished}")

    def thresholds(
        self,
        costs: Mapping[str, float],
        finished: Sequence[Record],
        cost_metrics: Sequence[str],
        interim_metrics: Sequence[str],
    ) -> dict[str, float]:
        """Return the score that a candidate must reach, by interim metric; none where it cannot be dropped.

        Args:
            costs: What is known of the candidate; without all of `cost_metrics` among it there are no thresholds.
            finished: Records to compare with; those that did not come as far as a stage are not looked at there.
            cost_metrics: Smaller is better.
            interim_metrics: The scores after each stage but the last; higher is better.
        """
        if not set(cost_metrics) <= costs.keys():
            return {}
        own = np.array([costs[name] for name in cost_metrics])
        thresholds = {}
        for metric in interim_metrics:
            known = [record.metrics for record in finished if {metric, *cost_metrics} <= record.metrics.keys()]
            if len(known) < self.n_finished:
                continue
            their_costs = np.array([[metrics[name] for name in cost_metrics] for metrics in known])
            scores = np.array([metrics[metric] for metrics in known])
            threshold = self._threshold(own, their_costs.reshape(len(known), len(cost_metrics)), scores)
            if threshold is not None:
                thresholds[metric] = threshold
        return thresholds

    def _threshold(self, own: np.ndarray, costs: np.ndarray, scores: np.ndarray) -> float | None:
        """Return the least score with which a candidate of cost `own` is among the best share."""
        may_be_ahead = np.quantile(_n_ahead(costs, scores), 1 / self.reduction, method="lower")
        no_dearer = np.sort(scores[(costs <= own).all(axis=1)])[::-1]
        if len(no_dearer) <= may_be_ahead:
            return None
        return float(no_dearer[int(may_be_ahead)])


def _n_ahead(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return `(n,)`: how many candidates have a higher score than each at no higher cost."""
    no_dearer = (costs[np.newaxis] <= costs[:, np.newaxis]).all(axis=2)
    return np.asarray((no_dearer & (scores[np.newaxis] > scores[:, np.newaxis])).sum(axis=1))
