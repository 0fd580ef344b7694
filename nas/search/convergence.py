"""Whether a search has converged: what the next candidates can be expected to add, from the archive's own history."""

from collections.abc import Callable, Sequence

import numpy as np

from nas.values.objectives import Objective
from nas.values.pareto import ParetoArchive
from nas.values.records import Record


class VolumeHistory:
    """The hypervolume after each trained candidate: in the order of asking, as far as candidates have ended.

    So a search that is killed and goes on ends where it would have.

    Args:
        objectives: Of the search.
        reference_point: Returns it, `(n_objectives,)`, minimised.
    """

    def __init__(self, objectives: Sequence[Objective], reference_point: Callable[[], np.ndarray]) -> None:
        self._archive = ParetoArchive(objectives)
        self._reference_point = reference_point
        self._new: list[Record] = []
        self._volumes: list[float] = []

    def add(self, record: Record) -> None:
        """Take in a trained candidate that ended."""
        self._new.append(record)

    def expected_gain(self, n_next: int) -> float | None:
        """Return what the next `n_next` candidates can be expected to add: see the function of this name."""
        for record in sorted(self._new, key=lambda record: record.number):
            grew = self._archive.add(record)
            volume = self._archive.hypervolume(self._reference_point()) if grew or not self._volumes else None
            self._volumes.append(self._volumes[-1] if volume is None else volume)
        self._new.clear()
        return expected_gain(np.array(self._volumes), n_next)


def joined_gain(by_history: float | None, by_model: float | None) -> float | None:
    """Return the larger of two expectations, of which a model's alone says nothing; `None` without a history."""
    return None if by_history is None else max(by_history, by_model or 0.0)


def expected_gain(volumes: np.ndarray, n_next: int) -> float | None:
    """Return the hypervolume that the next candidates can be expected to add, as a share of the present one.

    The distance to the limit is taken to fall as 1 / n, the slower of the usual laws: then what the latter half of the
    candidates added shrinks by n_next / (n + n_next) for the next ones. Since progress comes in steps, the largest
    of these expectations counts that the search had after each of its last `n_next` candidates.

    Args:
        volumes: `(n,)`: hypervolume after each candidate that was trained, in the order of their ends.
        n_next: How many candidates are thought of.

    Returns:
        `None` while there are fewer than twice `n_next` candidates, or no hypervolume.
    """
    n = len(volumes)
    if n < 2 * n_next or volumes[n - n_next] <= 0:
        return None
    sizes = np.arange(n - n_next + 1, n + 1)
    latter_halves = 1 - volumes[sizes // 2 - 1] / volumes[sizes - 1]
    return float((latter_halves * n_next / (sizes + n_next)).max())
