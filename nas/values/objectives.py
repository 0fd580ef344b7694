"""Metrics as objectives and constraints. Signs flip here, once: below `to_losses` everything minimises."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class Direction(StrEnum):
    """Which way a metric is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True)
class Objective:
    """A metric to optimise.

    Attributes:
        metric: Its key in a record's metrics, e.g. `"mean_iou"` or `"latency_ms[phone]"`.
        direction: Which way it is better.
        unit: As `MetricInfo.unit`; only shown.
    """

    metric: str
    direction: Direction
    unit: str = field(default="", compare=False)

    @property
    def sign(self) -> float:
        """+1 where smaller is better, -1 where larger is."""
        return 1.0 if self.direction is Direction.MINIMIZE else -1.0

    def best(self, values: Iterable[float]) -> float:
        """Return the best of its values."""
        return min(values) if self.direction is Direction.MINIMIZE else max(values)


@dataclass(frozen=True)
class Constraint:
    """Bounds that a metric must keep, both inclusive; at least one is given.

    Attributes:
        metric: Its key in a record's metrics.
        min: The lower bound.
        max: The upper bound.
    """

    metric: str
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError(f"constraint on {self.metric!r} must have min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min} and {self.max}")

    def violation(self, value: float) -> float:
        """Return by what share of the violated bound `value` lies outside; 0.0 inside.

        The share makes metrics of different units comparable; a bound of 0 counts as 1.
        """
        for bound, excess in ((self.min, -1.0), (self.max, 1.0)):
            if bound is not None and (value - bound) * excess > 0:
                return abs(value - bound) / (abs(bound) or 1.0)
        return 0.0


@dataclass(frozen=True)
class Violation:
    """One bound that a candidate broke: `value` of `metric` lay outside by the share `amount`."""

    metric: str
    value: float
    min: float | None
    max: float | None
    amount: float

    def __str__(self) -> str:
        if self.max is not None and self.value > self.max:
            return f"{self.metric} = {self.value:g} is over its maximum {self.max:g}"
        return f"{self.metric} = {self.value:g} is under its minimum {self.min:g}"


def violations(
    constraints: Sequence[Constraint], metrics: Mapping[str, float], undisturbed: Mapping[str, float] | None = None
) -> tuple[Violation, ...]:
    """Return the bounds that the known `metrics` break; metrics not yet known break none.

    Args:
        constraints: The bounds.
        metrics: By name.
        undisturbed: As `Record.undisturbed`: the truth lies somewhere from here to the value in `metrics`, so a
            bound is broken only if all of that range is outside.
    """
    broken = []
    for constraint in constraints:
        value = metrics.get(constraint.metric)
        if value is None:
            continue
        lowest = (undisturbed or {}).get(constraint.metric, value)
        if constraint.max is not None and value > constraint.max:
            value = max(lowest, constraint.max)
        if (amount := constraint.violation(value)) > 0:
            broken.append(Violation(constraint.metric, value, constraint.min, constraint.max, amount))
    return tuple(broken)


def to_losses(objectives: Sequence[Objective], metrics: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return the objective vectors with signs flipped so that smaller is better.

    Returns:
        `(n_records, n_objectives)` float64.

    Raises:
        KeyError: If a metric is missing.
        ValueError: If a value is not finite.
    """
    losses = np.array(
        [[objective.sign * values[objective.metric] for objective in objectives] for values in metrics],
        dtype=np.float64,
    ).reshape(len(metrics), len(objectives))
    if not np.isfinite(losses).all():
        raise ValueError("objective values must be finite; a NaN or infinity is a failure, not a value")
    return losses
