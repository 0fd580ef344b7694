"""Pareto fronts of losses: who stands on them, how large they are, and which point to take."""

from collections.abc import Sequence

import moocore
import numpy as np

from nas.values.objectives import Constraint, Objective, to_losses, violations
from nas.values.records import Record


def non_dominated(losses: np.ndarray) -> np.ndarray:
    """Return which points no other point dominates. Points with equal losses stand or fall together.

    Args:
        losses: `(n_points, n_objectives)`, minimised, finite. Not modified.

    Returns:
        `(n_points,)` bool.
    """
    if len(losses) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(losses, keep_weakly=True), dtype=bool)


def hypervolume(losses: np.ndarray, reference_point: np.ndarray) -> float:
    """Return the volume that `losses` dominate within `reference_point`; points outside it add nothing.

    Args:
        losses: `(n_points, n_objectives)`, minimised, finite.
        reference_point: `(n_objectives,)`, minimised.

    Source:
        Zitzler and Thiele 1998, doi:10.1007/BFb0056872; computed by moocore.
    """
    inside = losses[(losses < reference_point).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference_point)) if len(inside) else 0.0


def knee(losses: np.ndarray) -> int:
    """Return the index of the front's point nearest to its ideal point, each objective scaled to 0 .. 1.

    Args:
        losses: `(n_points, n_objectives)` of one front, minimised; at least one point. The first of equally near
            points wins.
    """
    ideal, nadir = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0)
    return int(np.argmin((scaled**2).sum(axis=1)))


class ParetoArchive:
    """The all-time front: the non-dominated records of all that were ever COMPLETE.

    Grows by one record at a time, at the cost of one comparison with the front as it stands.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = tuple(objectives)
        self._records: list[Record] = []
        self._losses = np.empty((0, len(self._objectives)))

    @property
    def front(self) -> tuple[Record, ...]:
        """The non-dominated records, in the order in which they came."""
        return tuple(self._records)

    @property
    def losses(self) -> np.ndarray:
        """`(n_members, n_objectives)` of the front, minimised; a copy."""
        return self._losses.copy()

    def add(self, record: Record) -> bool:
        """Take in `record` and return whether it stands on the front now; only COMPLETE ones can."""
        if not record.is_complete:
            return False
        losses = to_losses(self._objectives, [record.metrics])[0]
        no_worse = (self._losses <= losses).all(axis=1)
        better = (self._losses < losses).any(axis=1)
        if (no_worse & better).any():
            return False
        dominated = (losses <= self._losses).all(axis=1) & (losses < self._losses).any(axis=1)
        self._records = [kept for kept, out in zip(self._records, dominated, strict=True) if not out]
        self._losses = np.vstack([self._losses[~dominated], losses])
        self._records.append(record)
        return True

    def hypervolume(self, reference_point: np.ndarray) -> float:
        """Return the front's hypervolume; `reference_point` as in `hypervolume`."""
        return hypervolume(self._losses, reference_point)


def pareto_front(
    records: Sequence[Record], objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> tuple[Record, ...]:
    """Return the non-dominated COMPLETE records, in the order given.

    A record whose metrics, measured again, no longer keep `constraints` does not stand on the front.
    """
    kept = [r for r in records if r.is_complete and not violations(constraints, r.metrics, r.undisturbed)]
    on_front = non_dominated(to_losses(objectives, [record.metrics for record in kept]))
    return tuple(record for record, stands in zip(kept, on_front, strict=True) if stands)
