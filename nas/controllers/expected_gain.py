"""Chooses a batch by the hypervolume that it is expected to add."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

_N_DRAWN = 2**14  # points of the box, of which those beyond the front are kept
_N_ROUGH, _N_POINTS = 96, 768  # points for a first look at all, and for those that it leaves
_N_SHORTLIST = 400
_OPTIMISM = 2.5  # spreads by which the most hopeful view lies below the mean


@dataclass(frozen=True)
class Outlook:
    """What is expected of each genotype of a pool; every objective is a normal one of its own.

    Attributes:
        means: `(n, n_objectives)`, minimised, on the scale that predictors were fitted to.
        spreads: `(n, n_objectives)`: 0 where a value is known exactly.
        chances: `(n,)`: the probability that it ends as a COMPLETE record.
    """

    means: np.ndarray
    spreads: np.ndarray
    chances: np.ndarray


def by_expected_gain(
    outlook: Outlook,
    front: np.ndarray,
    points: "BoxPoints",
) -> Iterator[int]:
    """Yield rows of `outlook`, the largest expected gain of hypervolume first, each given those before it.

    The gain is the share of points beyond the front that a genotype is expected to dominate; points that an earlier
    choice is expected to dominate count less for the next, which spreads a batch along the front. Ends when nothing
    is left to gain.

    Args:
        outlook: Of the pool.
        front: `(n_front, n_objectives)`, on the same scale as `outlook`.
        points: Where the hypervolume is measured, on the same scale.
    """
    return (row for row, _ in _rows_and_gains(outlook, front, points))


def expected_gain(outlook: Outlook, front: np.ndarray, points: "BoxPoints", n: int) -> float | None:
    """Return what the `n` genotypes chosen by `by_expected_gain` add together, as a share of the present hypervolume.

    Arguments as there. `None` where the front dominates nothing of the box.
    """
    if points.share == 1:
        return None
    gained = sum(gain for _, gain in itertools.islice(_rows_and_gains(outlook, front, points), n))
    return gained / max(len(points.beyond), 1) * points.share / (1 - points.share)


def _rows_and_gains(outlook: Outlook, front: np.ndarray, points: "BoxPoints") -> Iterator[tuple[int, float]]:
    """Yield the rows of `by_expected_gain`, each with the number of points that it is expected to add."""
    optimistic = outlook.means - _OPTIMISM * outlook.spreads
    hopeful = np.flatnonzero((optimistic < points.highest).all(axis=1))
    for member in front:
        hopeful = hopeful[~(member <= optimistic[hopeful]).all(axis=1)]
    if len(hopeful) > _N_SHORTLIST:
        rough = _dominating(outlook, hopeful, points.beyond[:_N_ROUGH]).sum(axis=1)
        hopeful = hopeful[np.argsort(-rough, kind="stable")[:_N_SHORTLIST]]
    dominating = _dominating(outlook, hopeful, points.beyond)
    left = np.ones(len(points.beyond), dtype=np.float32)
    for _ in range(len(hopeful)):
        gains = dominating @ left
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            return
        yield int(hopeful[best]), float(gains[best])
        left *= 1 - dominating[best]
        dominating[best] = 0


@dataclass(frozen=True)
class BoxPoints:
    """Points, uniform in the space of losses, that the front does not dominate.

    Attributes:
        beyond: `(n, n_objectives)`, on the predictors' scale.
        highest: `(n_objectives,)`: the reference point, on the same scale.
        share: Of the box: how much of it the front does not dominate.
    """

    beyond: np.ndarray
    highest: np.ndarray
    share: float


def points_beyond(front: np.ndarray, lowest: np.ndarray, highest: np.ndarray, rng: np.random.Generator) -> BoxPoints:
    """Return points of the box from `lowest` to `highest` that `front` does not dominate."""
    points = lowest + (highest - lowest) * qmc.Sobol(len(lowest), seed=rng).random(_N_DRAWN)
    for member in front:
        points = points[~(member <= points).all(axis=1)]
    return BoxPoints(points[:_N_POINTS], highest, len(points) / _N_DRAWN)


def _dominating(outlook: Outlook, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return `(n_rows, n_points)` float32: the probability that each row dominates each point."""
    probability = np.repeat(outlook.chances[rows].astype(np.float32)[:, np.newaxis], len(points), axis=1)
    for mean, spread, values in zip(outlook.means[rows].T, outlook.spreads[rows].T, points.T, strict=True):
        above = (values - mean[:, np.newaxis]).astype(np.float32)
        if (spread == 0).all():
            probability *= above >= 0
        else:
            probability *= ndtr(above / np.maximum(spread, 1e-9).astype(np.float32)[:, np.newaxis])
    return probability
