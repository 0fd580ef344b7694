"""Quality of a search whose true front is known, because a table holds every network."""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from nas.values.pareto import hypervolume, non_dominated


@dataclass(frozen=True)
class TrueFront:
    """The true front of a table, and the box in which searches are compared.

    Attributes:
        front: `(n_front, n_objectives)`, minimised: the usable part of the true front, without duplicates.
        ideal: `(n_objectives,)`: the best value of each objective on it.
        reference_point: `(n_objectives,)`: the worst usable error, and the largest costs on the front.
    """

    front: np.ndarray
    ideal: np.ndarray
    reference_point: np.ndarray

    @classmethod
    def of(cls, losses: np.ndarray, usable: float) -> "TrueFront":
        """Return the true front of a table.

        Args:
            losses: `(n_rows, n_objectives)`, minimised, finite, the error in the first column.
            usable: The largest acceptable error, minus the best one. With the nadir of the whole front as reference
                point, useless networks would fill most of the volume.

        Raises:
            ValueError: If `usable` is not positive.
        """
        if not usable > 0:
            raise ValueError(f"usable must be positive, got {usable}")
        limit = losses[:, 0].min() + usable
        front = np.unique(losses[non_dominated(losses)], axis=0)
        front = front[front[:, 0] <= limit]
        return cls(front, front.min(axis=0), np.array([limit, *front[:, 1:].max(axis=0)]))

    def hypervolume_share(self, losses: np.ndarray) -> float:
        """Return the hypervolume of `losses`, `(n, n_objectives)`, as a share of the true front's; 0 .. 1.

        A front without volume (one point, or several of equal cost) is compared by `front_share` instead.
        """
        whole = hypervolume(self.front, self.reference_point)
        return hypervolume(losses, self.reference_point) / whole if whole > 0 else self.front_share(losses)

    def igd_plus(self, losses: np.ndarray) -> float:
        """Return the mean distance of the true front from `losses` (IGD+), each objective scaled by the box; 0 is best.

        Source:
            Ishibuchi et al. 2015, doi:10.1007/978-3-319-15892-1_8; computed by moocore.
        """
        width = self.reference_point - self.ideal
        width = np.where(width > 0, width, 1.0)
        return float(moocore.igd_plus((losses - self.ideal) / width, ref=(self.front - self.ideal) / width))

    def front_share(self, losses: np.ndarray) -> float:
        """Return the share of the true front's points that are among `losses`."""
        found = (self.front[:, np.newaxis] == losses[np.newaxis]).all(axis=2).any(axis=1)
        return float(found.mean())

    def trainings_to(self, losses: np.ndarray, share: float) -> int | None:
        """Return how many of `losses`, in order, reach `share` of the true hypervolume; `None` if all do not."""
        if self.hypervolume_share(losses) < share:
            return None
        low, high = 0, len(losses)  # not reached after `low`, reached after `high`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.hypervolume_share(losses[:middle]) >= share else (middle, high)
        return high


def median_of_reached(counts: Sequence[int | None]) -> float | None:
    """Return the median of the counts, `None` sorted last; `None` if the median itself is `None`."""
    median = float(np.median([np.inf if count is None else count for count in counts]))
    return median if np.isfinite(median) else None
