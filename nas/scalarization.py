"""One number for several losses, for controllers that follow a single one."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class ScalarizationKind(StrEnum):
    """How losses are joined."""

    WEIGHTED = "weighted"  # the weighted sum: finds the convex part of a front
    CHEBYSHEV = "chebyshev"  # the largest weighted loss: finds any part of it


@dataclass(frozen=True)
class Scalarization:
    """Joins losses, each scaled to 0 .. 1 by what is known, with weights that add up to 1.

    Attributes:
        kind: How.
        weights: One for each objective, positive; scaled to add up to 1.

    Source:
        Miettinen 1999, sections 3.1 and 3.4; the Chebyshev form with 5 % of the weighted sum, so that of two points
        with equal largest losses the better one wins (Knowles 2006, doi:10.1109/TEVC.2005.851274).
    """

    kind: ScalarizationKind
    weights: tuple[float, ...]
    _share_of_sum: float = field(default=0.05, repr=False)

    def __post_init__(self) -> None:
        if not self.weights or not all(0 <= weight < np.inf for weight in self.weights) or sum(self.weights) <= 0:
            raise ValueError(f"weights must be non-negative, one of them positive, got {self.weights}")

    def __call__(self, losses: np.ndarray, ideal: np.ndarray, nadir: np.ndarray) -> np.ndarray:
        """Return `(n,)`, smaller is better.

        Args:
            losses: `(n, n_objectives)`, minimised, finite.
            ideal: `(n_objectives,)`: what counts as 0.
            nadir: `(n_objectives,)`: what counts as 1; where it is no larger than `ideal`, the objective counts as 0.
        """
        width = nadir - ideal
        scaled = np.where(width > 0, (losses - ideal) / np.where(width > 0, width, 1.0), 0.0)
        weighted = scaled * (np.array(self.weights) / sum(self.weights))
        if self.kind is ScalarizationKind.WEIGHTED:
            return np.asarray(weighted.sum(axis=1))
        return np.asarray(weighted.max(axis=1) + self._share_of_sum * weighted.sum(axis=1))


def soft_constraint(score: np.ndarray, cost: np.ndarray, target: float, exponent: float) -> np.ndarray:
    """Return MnasNet's reward, larger is better: `score * (cost / target) ** exponent`.

    Args:
        score: `(n,)`, larger is better, non-negative.
        cost: `(n,)`, positive, in the unit of `target`.
        target: The cost to meet.
        exponent: Negative; how dear a cost is.

    Raises:
        ValueError: If `target` is not positive or `exponent` not negative.

    Source:
        Tan et al. 2019, arXiv:1807.11626, equation 2 with one exponent on both sides of the target (-0.07).
    """
    if not target > 0:
        raise ValueError(f"target must be positive, got {target}")
    if not exponent < 0:
        raise ValueError(f"exponent must be negative, got {exponent}")
    return np.asarray(score * (cost / target) ** exponent)


def adapted_exponent(exponent: float, costs: np.ndarray, target: float, rate: float = 0.2) -> float:
    """Return the exponent to go on with, so that the median cost of what is asked for comes to `target`.

    Args:
        exponent: The one in use, negative.
        costs: `(n,)` of the last candidates, positive.
        target: The cost to meet.
        rate: How fast: an exponent for a median twice the target grows by 2 ** rate.
    """
    return float(np.clip(exponent * (np.median(costs) / target) ** rate, -2.0, -0.005))
