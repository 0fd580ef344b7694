"""How good a predictor is: how well it ranks, whether it finds the best, and whether its spread is honest."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, norm, spearmanr

from nas.predictors.base import Prediction

_COVERAGES = np.arange(1, 10) / 10


@dataclass(frozen=True)
class PredictorQuality:
    """Figures over genotypes that a predictor had not seen. Losses: smaller is better.

    Attributes:
        kendall_tau: Of expected and true losses, -1 .. 1.
        spearman: The same by Spearman.
        precision_at_k: The share of the `k` that it expects the most of that are among the true best `k`.
        n_at_k: The true rank, from 1, of the best among the `k` that it expects the most of.
        calibration_error: The mean distance of how often the truth lies in its central 10 %, ..., 90 % intervals from
            how often it should; 0 is best.
    """

    kendall_tau: float
    spearman: float
    precision_at_k: float
    n_at_k: int
    calibration_error: float

    @classmethod
    def of(cls, prediction: Prediction, losses: np.ndarray, k: int) -> "PredictorQuality":
        """Compare what was expected of genotypes with their true `losses`, `(n,)`.

        Raises:
            ValueError: If `k` is not in 1 .. n, or there are fewer than two genotypes.
        """
        if len(losses) < 2:
            raise ValueError(f"losses must hold at least two values, got {len(losses)}")
        if not 1 <= k <= len(losses):
            raise ValueError(f"k must lie in 1 .. {len(losses)}, got {k}")
        expected_best = np.argsort(prediction.mean, kind="stable")[:k]
        order = np.argsort(losses, kind="stable")
        ranks = np.empty(len(losses), dtype=np.int64)
        ranks[order] = np.arange(1, len(losses) + 1)
        levels = np.abs(2 * norm.cdf((losses - prediction.mean) / prediction.spread) - 1)
        covered = (levels[:, np.newaxis] <= _COVERAGES).mean(axis=0)
        return cls(
            kendall_tau=float(kendalltau(prediction.mean, losses).statistic),
            spearman=float(spearmanr(prediction.mean, losses).statistic),
            precision_at_k=float((ranks[expected_best] <= k).mean()),
            n_at_k=int(ranks[expected_best].min()),
            calibration_error=float(np.abs(covered - _COVERAGES).mean()),
        )
