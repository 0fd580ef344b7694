"""One number for several losses, for controllers that follow a single one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from nas.values.objectives import Direction, Objective

_EXPONENT = -0.07  # MnasNet's, to start from
_LEAST = 1e-12  # stands for 0 where a logarithm is taken


class ScalarizationKind(StrEnum):
    """How losses are joined."""

    WEIGHTED = "weighted"  # the weighted sum: finds the convex part of a front
    CHEBYSHEV = "chebyshev"  # the largest weighted loss: finds any part of it
    SOFT_CONSTRAINT = "soft_constraint"  # MnasNet's reward: finds the best score at target costs


@dataclass(frozen=True)
class Scalarization:
    """Joins losses, each scaled to 0 .. 1 by what is known, with weights that add up to 1.

    Attributes:
        kind: `WEIGHTED` or `CHEBYSHEV`.
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


@dataclass(frozen=True)
class SoftConstraints:
    """MnasNet's reward for any number of scores and costs, as a loss, with exponents that adapt until targets are met.

    A cost below its target earns nothing more, so that candidates come up to the target; while the median cost is over
    it, the exponent grows.

    Attributes:
        targets: One for each objective; `None` for a score, which has none.
        exponents: One for each objective, negative; those of scores are not used.

    Source:
        Tan et al. 2019, arXiv:1807.11626, equation 3 with exponent 0 up to the target.
        Differs: with one fixed exponent on both sides costs end anywhere; shrinking it again below the target makes
        them swing around it.
    """

    targets: tuple[float | None, ...]
    exponents: tuple[float, ...]

    @classmethod
    def of(cls, objectives: Sequence[Objective], targets: Mapping[str, float]) -> "SoftConstraints":
        """Return the reward in which the objectives that `targets` names are costs and the others scores.

        Raises:
            ValueError: If a minimised objective has no positive target, or something else has one.
        """
        costs = [objective.metric for objective in objectives if objective.direction is Direction.MINIMIZE]
        for metric, target in targets.items():
            if metric not in costs:
                known = ", ".join(costs) or "none"
                raise ValueError(f"targets must name objectives that are minimised, got {metric!r}; those are: {known}")
            if not target > 0:
                raise ValueError(f"targets must be positive, got {target} for {metric}")
        if missing := [metric for metric in costs if metric not in targets]:
            raise ValueError(f"targets must name every objective that is minimised; missing: {', '.join(missing)}")
        if len(costs) == len(objectives):
            raise ValueError("targets are for costs beside a score, and no objective is maximised")
        return cls(tuple(targets.get(objective.metric) for objective in objectives), (_EXPONENT,) * len(objectives))

    def __call__(self, losses: np.ndarray, ideal: np.ndarray, nadir: np.ndarray) -> np.ndarray:
        """Return `(n,)`: the reward's negative logarithm, smaller is better.

        Args:
            losses: `(n, n_objectives)`, minimised, finite; a score below 0 counts as 0.
            ideal: Not used: targets tell what is good.
            nadir: Not used.
        """
        reward = np.ones(len(losses))
        for column, target in enumerate(self.targets):
            if target is None:
                reward *= np.maximum(-losses[:, column], 0.0)
        for column, (target, exponent) in enumerate(zip(self.targets, self.exponents, strict=True)):
            if target is not None:
                reward = soft_constraint(reward, np.maximum(losses[:, column], target), target, exponent)
        return np.asarray(-np.log(np.maximum(reward, _LEAST)))

    def adapted(self, losses: np.ndarray) -> "SoftConstraints":
        """Return the reward to go on with after candidates with these `losses`, `(n, n_objectives)`."""
        if len(losses) == 0:
            return self
        exponents = [
            exponent if target is None else min(exponent, adapted_exponent(exponent, losses[:, column], target))
            for column, (target, exponent) in enumerate(zip(self.targets, self.exponents, strict=True))
        ]
        return replace(self, exponents=tuple(exponents))
