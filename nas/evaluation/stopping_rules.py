"""Rules for stopping trainings early: candidates far behind others of about the same cost.

A rule on the score alone would drop the cheap end of the front, whose scores are low but the best to be had there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from nas.values.bounds import check_bounds
from nas.values.records import Record


def interim_metric(metric: str, n_stages: int) -> str:
    """Return the name of `metric` as it is after the first `n_stages` stages of a training."""
    return f"{metric}@{n_stages}"


class StoppingRule(ABC):
    """Sets, before a candidate is trained, the scores that it must reach between the stages of its training.

    They depend on finished candidates alone, so that the order of trainings does not matter.
    """

    def thresholds(
        self,
        costs: Mapping[str, float],
        finished: Sequence[Record],
        cost_metrics: Sequence[str],
        interim_metrics: Sequence[str],
    ) -> dict[str, float]:
        """Return the score that a candidate must reach, by interim metric; none where it cannot be stopped.

        Args:
            costs: Known metrics of the candidate; without all of `cost_metrics` among them there are no thresholds.
            finished: Records to compare with, in the order in which they ended; those that did not come as far as a
                stage are not looked at there.
            cost_metrics: By which candidates are compared; smaller is better.
            interim_metrics: The scores after each stage but the last; higher is better.
        """
        if not set(cost_metrics) <= costs.keys():
            return {}
        own = np.array([costs[name] for name in cost_metrics])
        found = {}
        for metric in interim_metrics:
            known = [record.metrics for record in finished if {metric, *cost_metrics} <= record.metrics.keys()]
            theirs = np.array([[metrics[name] for name in cost_metrics] for metrics in known])
            scores = np.array([metrics[metric] for metrics in known])
            threshold = self._threshold(own, theirs.reshape(len(known), len(cost_metrics)), scores)
            if threshold is not None:
                found[metric] = threshold
        return found

    @abstractmethod
    def _threshold(self, own: np.ndarray, costs: np.ndarray, scores: np.ndarray) -> float | None:
        """Return the score that a candidate must reach; `None` if it goes on whatever it reaches.

        Args:
            own: `(n_costs,)`, the candidate's.
            costs: `(n, n_costs)`, those of the finished ones.
            scores: `(n,)`, theirs after the same stage.
        """


@dataclass(frozen=True)
class DropRule(StoppingRule):
    """Candidates behind their peers are dropped: the finished ones of nearest cost.

    Two candidates are as near as their ranks among the finished ones, averaged over the costs. At the ends of the
    range the nearest are on one side: the cheapest candidate's peers are all dearer, and better for it. Nobody is
    therefore dropped whom no finished candidate beats at the same or lower costs: it may be on the front.

    Attributes:
        quantile: A candidate goes on if its score is at least this quantile of its peers' scores after the same stage.
        n_peers: How many peers; nobody is dropped with fewer than twice as many finished ones, among which the
            nearest are not near.
    """

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.25
    n_peers: Annotated[int, Ge(1), Le(10**6)] = 8

    def __post_init__(self) -> None:
        check_bounds(self)

    def _threshold(self, own: np.ndarray, costs: np.ndarray, scores: np.ndarray) -> float | None:
        no_dearer = scores[(costs <= own).all(axis=1)]
        if len(scores) < 2 * self.n_peers or not len(no_dearer):
            return None
        distances = np.zeros(len(scores))
        for value, values in zip(own, costs.T, strict=True):
            distances += np.abs(_ranks(values, values) - _ranks(values, value))
        # Of equally near ones the latest.
        peers = np.argsort(distances[::-1], kind="stable")[: self.n_peers]
        return float(min(np.quantile(scores[::-1][peers], self.quantile), no_dearer.max()))


@dataclass(frozen=True)
class SuccessiveHalving(StoppingRule):
    """The best share of the candidates goes on.

    Best is who few others beat in everything, in costs and in the score so far.

    Attributes:
        reduction: One of so many goes on to each next stage.
        n_finished: With fewer finished candidates that came as far nobody is dropped.

    Source:
        Jamieson & Talwalkar 2016, arXiv:1502.07943; several objectives as in Schmucker et al. 2021, arXiv:2106.12639,
        ranked by how many dominate a candidate (Fonseca & Fleming 1993).
        Differs: thresholds come from finished candidates alone.
    """

    reduction: Annotated[float, Gt(1), Le(1e6)] = 2.0
    n_finished: Annotated[int, Ge(1), Le(10**6)] = 8

    def __post_init__(self) -> None:
        check_bounds(self)

    def _threshold(self, own: np.ndarray, costs: np.ndarray, scores: np.ndarray) -> float | None:
        if len(scores) < self.n_finished:
            return None
        may_be_ahead = np.quantile(_n_ahead(costs, scores), 1 / self.reduction, method="lower")
        no_dearer = np.sort(scores[(costs <= own).all(axis=1)])[::-1]
        if len(no_dearer) <= may_be_ahead:
            return None
        return float(no_dearer[int(may_be_ahead)])


def _ranks(among: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many of `among` are smaller than each of `values`, equal ones counted half."""
    ordered = np.sort(among)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _n_ahead(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return `(n,)`: how many candidates have a higher score than each at no higher cost."""
    no_dearer = (costs[np.newaxis] <= costs[:, np.newaxis]).all(axis=2)
    return np.asarray((no_dearer & (scores[np.newaxis] > scores[:, np.newaxis])).sum(axis=1))
