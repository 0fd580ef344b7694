"""The budget of a search: what is used up, and how many candidates the rest pays for."""

import dataclasses
import math
import time
from collections.abc import Callable

from nas.values.budgets import _S_PER_HOUR, Budget, Usage


class BudgetMeter:
    """Counts what a search uses up, and estimates how many candidates the rest of its budget pays for.

    The pace is that of this process; until a candidate has ended in it, that of earlier processes.

    Args:
        budget: The limits.
        used: What earlier processes of the run used up.
        n_gpus: Returns how many GPUs are held at the moment.
        clock: Returns seconds.
        n_ended: Candidates that ended in earlier processes.
        n_at_once: Returns how many candidates run side by side; called only while no pace is known.
        has_converged: Returns whether the search has converged, which ends it like a limit.
    """

    def __init__(
        self,
        budget: Budget,
        used: Usage | None = None,
        n_gpus: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        n_ended: int = 0,
        n_at_once: Callable[[], int] = lambda: 1,
        has_converged: Callable[[], bool] = lambda: False,
    ) -> None:
        self.budget = budget
        self._used = self._before = used or Usage()
        self._n_gpus = n_gpus
        self._clock = clock
        self._last = clock()
        self._held = 0.0  # GPUs at the last reading
        self._n_ended = self._n_ended_before = n_ended
        self._n_at_once = n_at_once
        self._has_converged = has_converged

    @property
    def usage(self) -> Usage:
        """All that was used up until now."""
        now, n_gpus = self._clock(), self._n_gpus()
        hours, self._last = (now - self._last) / _S_PER_HOUR, now
        # What was held at one end of an interval counts for all of it: workers may just have been closed.
        held, self._held = max(self._held, n_gpus), n_gpus
        self._used = dataclasses.replace(
            self._used,
            hours=self._used.hours + hours,
            gpu_hours=self._used.gpu_hours + hours * held,
        )
        return self._used

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more may be asked for."""
        return self.budget.is_used_up(self.usage) or self._has_converged()

    def note_end(self, *, was_trained: bool) -> None:
        """Count a candidate that ended."""
        self._n_ended += 1
        self._used = dataclasses.replace(self._used, n_trained=self._used.n_trained + was_trained)

    def n_affordable(self, n: int, n_running: int = 0) -> int:
        """Return how many of `n` candidates to ask for; at least one while something is left.

        Where time is limited and no pace is known yet, as many as run side by side: they show the pace.

        Args:
            n: Wanted.
            n_running: Candidates under way, whose trainings are not counted yet.
        """
        usage = self.usage
        if self.budget.is_used_up(usage) or self._has_converged():
            return 0
        affordable = n
        if self.budget.n_trained is not None:
            affordable = min(affordable, self.budget.n_trained - usage.n_trained - n_running)
        if self.budget.hours is not None or self.budget.gpu_hours is not None:
            seconds, pace = self.budget.seconds_left(usage, self._n_gpus()), self._pace_s
            if seconds is None or pace is None:
                affordable = min(affordable, max(1, self._n_at_once()))
            else:
                affordable = min(affordable, max(1, math.ceil(seconds / pace)))
        return max(0, affordable)

    def n_expected(self, n_left: int, n_running: int = 0) -> int:
        """Return how many of `n_left` candidates will end before the budget is used up, at the pace so far.

        Args:
            n_left: Candidates that would end without a budget.
            n_running: Those of them that are under way; they are finished whatever is left of the budget.
        """
        usage = self.usage
        expected = float(n_left)
        if self.budget.n_trained is not None:
            n_each = self._n_ended / usage.n_trained if usage.n_trained else 1.0  # others are outside their bounds
            expected = min(expected, (self.budget.n_trained - usage.n_trained) * n_each)
        seconds, pace = self.budget.seconds_left(usage, self._n_gpus()), self._pace_s
        if seconds is not None and pace is not None:
            expected = min(expected, seconds / pace)
        return min(n_left, max(n_running, math.ceil(expected)))

    def remaining_s(self, n_left: int) -> float | None:
        """Return the seconds until `n_left` candidates have ended or the budget is used up, at the pace so far.

        `None` before one has ended.
        """
        usage = self.usage
        pace = self._pace_s
        if pace is None:
            return None
        ends = [n_left * pace]
        if (seconds := self.budget.seconds_left(usage, self._n_gpus())) is not None:
            ends.append(seconds)
        training_pace = self._seconds_per(usage.n_trained, self._before.n_trained)
        if self.budget.n_trained is not None and training_pace is not None:
            ends.append((self.budget.n_trained - usage.n_trained) * training_pace)
        return max(0.0, min(ends))

    @property
    def _pace_s(self) -> float | None:
        """Seconds from one candidate's end to the next one's; `None` before one has ended."""
        return self._seconds_per(self._n_ended, self._n_ended_before)

    def _seconds_per(self, n: int, n_before: int) -> float | None:
        """Return the seconds for each of `n` events: in this process, else in earlier ones."""
        if n > n_before:
            return (self._used.hours - self._before.hours) * _S_PER_HOUR / (n - n_before) or None
        return self._before.hours * _S_PER_HOUR / n_before or None if n_before else None
