"""How good predicted latencies are."""

import numpy as np
from scipy.stats import kendalltau, spearmanr


def scores(mean_ms: np.ndarray, low_ms: np.ndarray, high_ms: np.ndarray, latencies_ms: np.ndarray) -> dict[str, float]:
    """Return rank correlations, the shares within 5 and 10 %, and the coverage of the interval; arrays are `(n,)`."""
    error = np.abs(mean_ms / latencies_ms - 1)
    return {
        "spearman": float(spearmanr(mean_ms, latencies_ms).statistic),
        "kendall": float(kendalltau(mean_ms, latencies_ms).statistic),
        "within_5": float((error <= 0.05).mean()),
        "within_10": float((error <= 0.1).mean()),
        "coverage_90": float(((low_ms <= latencies_ms) & (latencies_ms <= high_ms)).mean()),
    }
