"""Which models to measure: those whose readings say most of all others."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from latency.predictors.base import Encodings
from latency.predictors.gaussian_process import GaussianProcess

_MAX_POOL = 600  # models that a choice is made among: it takes the square of their number


def measured_in_rounds(
    pool: Encodings, sizes: Iterable[int], read: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of `pool` that were chosen and measured, and their latencies, for each of growing `sizes`.

    Args:
        pool: The models that can be measured.
        sizes: How many are to be measured, rising; each set holds the smaller ones.
        read: Measures models: takes rows of `pool`, returns latencies in ms.
        rng: As for `most_informative`.
    """
    measured, latencies = np.empty(0, int), np.empty(0)
    process = None
    for size in sizes:
        more = most_informative(pool, size - len(measured), measured=measured, process=process, rng=rng)
        measured, latencies = np.concatenate([measured, more]), np.concatenate([latencies, read(more)])
        process = GaussianProcess(pool)
        process.fit(pool.take(measured), latencies)
        yield measured, latencies


def most_informative(
    pool: Encodings,
    n: int,
    *,
    measured: np.ndarray,
    process: GaussianProcess | None = None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return which `n` models of `pool` to measure next, the most informative first.

    Each choice is the model whose reading lowers the summed variance of the predictions of all most (A-optimality).
    Before any reading the variance is the prior's, in which counts of operations weigh most: the choice then spreads
    over shallow and deep models. Afterwards it is what `process` is unsure of.

    Args:
        pool: The models that can be measured.
        n: How many to choose.
        measured: Rows of `pool` that have been measured.
        process: Fitted to them; `None` before.
        rng: Chooses among equals, and those beyond what is worth comparing.

    Returns:
        `(n,)` rows of `pool`, none of `measured`.

    Raises:
        ValueError: If the pool has too few models left.

    Source:
        Active learning of Cohn et al. 1996, arXiv:cs/9603104.
    """
    left = np.setdiff1d(np.arange(len(pool)), measured)
    if n > len(left):
        raise ValueError(f"n must be at most the {len(left)} models that are left, got {n}")
    compared = rng.permutation(left)[: max(_MAX_POOL, n)]
    if n > _MAX_POOL // 2:  # with so many readings any choice is as good
        return compared[:n]
    if process is None:
        prior = GaussianProcess()
        covariance = prior.prior_covariance(pool.take(compared))
        noise = prior.noise**2
    else:
        covariance, noise = process.covariance(pool.take(compared)), process.noise**2
    chosen: list[int] = []
    for _ in range(n):
        gains = (covariance**2).sum(axis=0) / (covariance.diagonal() + noise)
        gains[chosen] = -np.inf
        best = int(gains.argmax())
        chosen.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (column[best] + noise)
    return compared[chosen]
