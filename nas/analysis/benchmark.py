"""How good a search is where the truth is known: measured against the front of a whole table."""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from nas.values.pareto import hypervolume, non_dominated


@dataclass(frozen=True)
class TrueFront:
    """The front of everything that can be asked for, and the box in which searches are compared.

    Attributes:
        front: `(n_front, n_objectives)`, minimised: the usable part of the true front, equal points once.
        ideal: `(n_objectives,)`: the best value of each objective on it.
        reference_point: `(n_objectives,)`: the worst usable error, and the largest costs on the front.
    """

    front: np.ndarray
    ideal: np.ndarray
    reference_point: np.ndarray

    @classmethod
    def of(cls, losses: np.ndarray, usable: float) -> "TrueFront":
        """Return the truth of a table.

        Args:
            losses: `(n_rows, n_objectives)`, minimised, finite, the error in the first column.
            usable: How much larger than the best error one may be before nobody wants the network. With the whole
                front's nadir as reference point, broken networks would fill most of the volume.

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
        """Return the share of the true front's hypervolume that `losses`, `(n, n_objectives)`, reach; 0 .. 1.

        The front may have no volume: one point, or several with one cost. Then it is the share of its points.
        """
        whole = hypervolume(self.front, self.reference_point)
        return hypervolume(losses, self.reference_point) / whole if whole > 0 else self.front_share(losses)

    def igd_plus(self, losses: np.ndarray) -> float:
        """Return how far `losses` are from the true front on average, in widths of the box; 0 is best.

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
        """Return after how many of `losses`, in order, `share` of the hypervolume was reached; `None` if never."""
        if self.hypervolume_share(losses) < share:
            return None
        low, high = 0, len(losses)  # not reached after `low`, reached after `high`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.hypervolume_share(losses[:middle]) >= share else (middle, high)
        return high


def median_of_reached(counts: Sequence[int | None]) -> float | None:
    """Return the median of trainings, never getting there counted as the most; `None` if the median never does."""
    median = float(np.median([np.inf if count is None else count for count in counts]))
    return median if np.isfinite(median) else None
