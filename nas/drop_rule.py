"""Which candidates a training stops early: those far behind others that cost about the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.records import Record


def interim_metric(metric: str, n_stages: int) -> str:
    """Return the name of `metric` as it is after the first `n_stages` stages of a training."""
    return f"{metric}@{n_stages}"


@dataclass(frozen=True)
class DropRule:
    """After each stage of a training but the last, candidates behind their peers are dropped.

    A candidate's peers are the finished ones of nearest cost. A rule on the score alone would drop the cheap end of
    the front, whose scores are low but the best to be had at their cost.

    Attributes:
        quantile: A candidate goes on if its score is at least this quantile of its peers' scores after the same stage.
        n_peers: How many peers; with fewer finished ones nobody is dropped.
    """

    quantile: float = 0.25
    n_peers: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile must be more than 0 and less than 1, got {self.quantile}")
        if self.n_peers < 1:
            raise ValueError(f"n_peers must be at least 1, got {self.n_peers}")

    def thresholds(
        self,
        costs: Mapping[str, float],
        finished: Sequence[Record],
        cost_metrics: Sequence[str],
        interim_metrics: Sequence[str],
    ) -> dict[str, float]:
        """Return the score that a candidate must reach, by interim metric; none where there are too few peers.

        Args:
            costs: What is known of the candidate; without all of `cost_metrics` among it there are no thresholds.
            finished: Records to compare with; those without the metrics in question are not looked at.
            cost_metrics: What makes candidates comparable. Two are as near as their ranks among the finished ones,
                averaged over these metrics.
            interim_metrics: The scores after each stage but the last; higher is better.
        """
        thresholds = {}
        for metric in interim_metrics:
            known = [
                record.metrics for record in reversed(finished) if {metric, *cost_metrics} <= record.metrics.keys()
            ]
            if len(known) < self.n_peers or not set(cost_metrics) <= costs.keys():
                continue
            distances = np.zeros(len(known))
            for cost in cost_metrics:
                values = np.array([metrics[cost] for metrics in known])
                distances += np.abs(_ranks(values, values) - _ranks(values, np.array([costs[cost]])))
            peers = np.argsort(distances, kind="stable")[: self.n_peers]
            thresholds[metric] = float(np.quantile([known[peer][metric] for peer in peers], self.quantile))
        return thresholds


def _ranks(among: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many of `among` are smaller than each of `values`, equal ones counted half."""
    ordered = np.sort(among)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
