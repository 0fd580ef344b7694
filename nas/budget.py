"""What a search may use up, what it has used up, and what is left by the candidates measured so far."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_S_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Usage:
    """What a search has used up since its first candidate, in all of its processes together.

    Attributes:
        hours: Of wall-clock time, while a process searched.
        gpu_hours: The same, times the GPUs that were held.
        n_trained: Candidates that went beyond the measuring of costs, whatever came of it.
    """

    hours: float = 0.0
    gpu_hours: float = 0.0
    n_trained: int = 0


@dataclass(frozen=True)
class Budget:
    """What a search may use up: it asks for nothing new once one of these is reached.

    What was asked for until then is finished, and the front is measured again. Making a teacher or an encoder
    is not counted: they are kept for other runs.

    Attributes:
        hours: Of wall-clock time; `None` for any.
        n_trained: Candidates trained; those outside the bounds cost no training and are not counted.
        gpu_hours: Wall-clock hours times the GPUs held, busy or not.
    """

    hours: float | None = None
    n_trained: int | None = None
    gpu_hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def is_used_up(self, usage: Usage) -> bool:
        """Return whether nothing is left of one of its parts."""
        limits = dataclasses.asdict(self)
        return any(limit is not None and getattr(usage, name) >= limit for name, limit in limits.items())

    def seconds_left(self, usage: Usage, n_gpus: float) -> float | None:
        """Return how long hours and GPU-hours last while `n_gpus` are held; `None` where neither is limited."""
        left: list[float] = []
        if self.hours is not None:
            left.append(self.hours - usage.hours)
        if self.gpu_hours is not None and n_gpus:
            left.append((self.gpu_hours - usage.gpu_hours) / n_gpus)
        return max(0.0, min(left)) * _S_PER_HOUR if left else None

    def __str__(self) -> str:
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "none"


class BudgetMeter:
    """Counts what a search uses up, and says how many candidates the rest of its budget pays.

    Args:
        budget: What there is.
        used: What earlier processes of the run used up.
        n_gpus: Returns the GPUs that are held at the moment.
        clock: Seconds.
    """

    def __init__(
        self,
        budget: Budget,
        used: Usage = Usage(),
        n_gpus: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._used = self._before = used
        self._n_gpus = n_gpus
        self._clock = clock
        self._last = clock()
        self._n_ended = 0

    @property
    def usage(self) -> Usage:
        """All that was used up until now."""
        now = self._clock()
        hours, self._last = (now - self._last) / _S_PER_HOUR, now
        self._used = dataclasses.replace(
            self._used,
            hours=self._used.hours + hours,
            gpu_hours=self._used.gpu_hours + hours * self._n_gpus(),
        )
        return self._used

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more may be asked for."""
        return self.budget.is_used_up(self.usage)

    def note_end(self, *, was_trained: bool) -> None:
        """Count a candidate that ended."""
        self._n_ended += 1
        self._used = dataclasses.replace(self._used, n_trained=self._used.n_trained + was_trained)

    def n_affordable(self, n: int, n_running: int = 0) -> int:
        """Return how many of `n` candidates to ask for; at least one while something is left.

        Args:
            n: Wanted.
            n_running: Trainings that are not yet counted.
        """
        usage = self.usage
        if self.budget.is_used_up(usage):
            return 0
        affordable = float(n)
        if self.budget.n_trained is not None:
            affordable = min(affordable, self.budget.n_trained - usage.n_trained - n_running)
        seconds = self.budget.seconds_left(usage, self._n_gpus())
        if seconds is not None and (pace := self._seconds_per(self._n_ended)) is not None:
            affordable = min(affordable, max(1, math.ceil(seconds / pace)))
        return max(0, int(affordable))

    def remaining_s(self, n_left: int) -> float | None:
        """Return the seconds until `n_left` candidates have ended or the budget is used up, at the pace so far.

        `None` before this process has seen one end.
        """
        usage = self.usage
        pace = self._seconds_per(self._n_ended)
        if pace is None:
            return None
        ends = [n_left * pace]
        if (seconds := self.budget.seconds_left(usage, self._n_gpus())) is not None:
            ends.append(seconds)
        n_trained = usage.n_trained - self._before.n_trained
        if self.budget.n_trained is not None and (training_pace := self._seconds_per(n_trained)) is not None:
            ends.append((self.budget.n_trained - usage.n_trained) * training_pace)
        return max(0.0, min(ends))

    def _seconds_per(self, n: int) -> float | None:
        return (self._used.hours - self._before.hours) * _S_PER_HOUR / n if n else None
