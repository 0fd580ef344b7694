"""Which member of a run's front to take: by its id, the knee, or a preference in words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from nas.analysis.tables import format_value
from nas.errors import InputError
from nas.store.run import Run
from nas.values.objectives import Direction, to_losses
from nas.values.pareto import knee
from nas.values.records import Record

GRAMMAR = "bounds METRIC >= NUMBER and METRIC <= NUMBER, then min METRIC or max METRIC, with commas between them"

_BOUND = re.compile(r"(?P<metric>[^\s<>=]+)\s*(?P<sign>>=|<=|>|<)\s*(?P<number>\S+)")
_BEST = re.compile(r"(?P<which>min|max)\s+(?P<metric>[^\s<>=]+)")
_KEEPS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}


@dataclass(frozen=True)
class Bound:
    """`metric sign number`, such as `mean_iou >= 0.6`."""

    metric: str
    sign: str
    number: float

    def keeps(self, record: Record) -> bool:
        """Return whether a record keeps it."""
        return _KEEPS[self.sign](record.metrics[self.metric], self.number)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {format_value(self.metric, self.number)}"


@dataclass(frozen=True)
class Preference:
    """What somebody wants of a network: bounds first, then what is to be least or most.

    Attributes:
        bounds: All are kept.
        best: Metrics with the direction wanted; a later one decides among equals. Empty: the knee of what is left.
    """

    bounds: tuple[Bound, ...]
    best: tuple[tuple[str, Direction], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read e.g. `mean_iou >= 0.6, min latency_ms`.

        Raises:
            InputError: If it cannot be read, naming the part.
        """
        bounds: list[Bound] = []
        best: list[tuple[str, Direction]] = []
        for part in _parts(text):
            if match := _BEST.fullmatch(part):
                direction = Direction.MINIMIZE if match["which"] == "min" else Direction.MAXIMIZE
                best.append((match["metric"], direction))
            elif match := _BOUND.fullmatch(part):
                bounds.append(Bound(match["metric"], match["sign"], _number(match["number"], part)))
            else:
                raise InputError(f"--prefer: {part!r} cannot be read; write {GRAMMAR}")
        return cls(tuple(bounds), tuple(best))


@dataclass(frozen=True)
class Choice:
    """A record, and why it was taken; `reason` continues "taken: "."""

    record: Record
    reason: str


def choose(run: Run, preference: Preference) -> Choice:
    """Return the member of the front that a preference asks for.

    Raises:
        InputError: If the front is empty, a metric is unknown, or a bound leaves nothing: it says which, and the
            nearest member.
    """
    left: Sequence[Record] = run.front
    if not left:
        raise InputError(f"{run.path}: {run.why_empty()}")
    metrics = [bound.metric for bound in preference.bounds] + [metric for metric, _ in preference.best]
    _check_known(metrics, left)
    told = [f"{len(left)} on the front"]
    for bound in preference.bounds:
        kept = [record for record in left if bound.keeps(record)]
        if not kept:
            raise InputError(_nothing_left(bound, left, run))
        told.append(f"{len(kept)} with {bound}")
        left = kept
    if not preference.best:
        taken = left[knee(to_losses(run.objectives, [record.metrics for record in left]))]
        return Choice(taken, f"of {', '.join(told)}: the one nearest to their ideal point")
    losses = np.array([[_sign(which) * record.metrics[metric] for metric, which in preference.best] for record in left])
    taken = left[int(np.lexsort(losses.T[::-1])[0])]
    wanted = ", then ".join(
        f"{'least' if which is Direction.MINIMIZE else 'most'} {metric} ({format_value(metric, taken.metrics[metric])})"
        for metric, which in preference.best
    )
    return Choice(taken, f"of {', '.join(told)}: the one with {wanted}")


def chosen(run: Run, candidate: str | None, *, is_knee: bool = False, prefer: str | None = None) -> Choice:
    """Return the record that exactly one of the three ways names.

    Args:
        run: Of which.
        candidate: An id, a unique prefix of one, or the name of a reference model.
        is_knee: The front's knee.
        prefer: A preference, as `Preference.parse` reads it.

    Raises:
        InputError: If none or several ways are given, or they lead to no record.
    """
    if sum((candidate is not None, is_knee, prefer is not None)) != 1:
        raise InputError(
            "say which network: give either --candidate ID or --knee, or --prefer 'METRIC >= NUMBER, min METRIC'; "
            f"nas show {run.path} lists the front"
        )
    if candidate is not None:
        return Choice(run.find(candidate), "as asked for")
    if is_knee:
        return Choice(run.knee, f"the knee of {len(run.front)} on the front")
    return choose(run, Preference.parse(str(prefer)))


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"--prefer: {text!r} has an empty part; write {GRAMMAR}")
    return parts


def _number(text: str, part: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"--prefer: {text!r} in {part!r} must be a number such as 0.6 or 300_000") from None
    if not np.isfinite(number):
        raise InputError(f"--prefer: the number in {part!r} must be finite")
    return number


def _check_known(metrics: Sequence[str], records: Sequence[Record]) -> None:
    known = set.intersection(*(set(record.metrics) for record in records))
    if unknown := [metric for metric in metrics if metric not in known]:
        raise InputError(f"--prefer: {unknown[0]!r} must be a metric of this run: {', '.join(sorted(known))}")


def _nothing_left(bound: Bound, left: Sequence[Record], run: Run) -> str:
    wants_more = bound.sign[0] == ">"
    nearest = (max if wants_more else min)(left, key=lambda record: record.metrics[bound.metric])
    value = format_value(bound.metric, nearest.metrics[bound.metric])
    among = (
        f"the {len(left)} members" if len(left) == len(run.front) else f"the {len(left)} left by the bounds before it"
    )
    return f"--prefer: {bound} leaves nothing of {among}: the nearest has {value} ({nearest.id}); loosen it"


def _sign(direction: Direction) -> float:
    return 1.0 if direction is Direction.MINIMIZE else -1.0
