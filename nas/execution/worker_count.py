"""How many candidates at a time: from cores, free memory and measured throughput."""

import os
from collections.abc import Callable, Mapping

_MIN_GAIN = 1.1  # more workers stay only if candidates an hour grow by so much
_MEMORY_RESERVE = 0.1  # share of the free memory left unused: later candidates may be larger
_WINDOW = 2  # candidates for each worker, before a rate is believed


def n_cpu_workers(n_threads: int, n_cores: int | None = None) -> int:
    """Return one worker for each group of `n_threads` of this process's cores, at least one."""
    return max(1, (n_cores or available_cores()) // n_threads)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_that_fit(n_now: int, free_bytes: float, worker_bytes: float) -> int:
    """Return how many workers fit into memory, at least one.

    Args:
        n_now: Workers there are.
        free_bytes: Memory that they leave free.
        worker_bytes: Memory of the largest of them.
    """
    if worker_bytes <= 0:
        return max(1, n_now)
    return max(1, n_now + int(free_bytes * (1 - _MEMORY_RESERVE) / worker_bytes))


def next_n_workers(rates: Mapping[int, float], limit: int) -> int:
    """Return how many workers to go on with: twice as many while that pays, then the best number seen.

    Args:
        rates: Candidates a second, by the number of workers with which they were measured.
        limit: As many as memory and cores allow.
    """
    if not rates:
        return 1
    within = {n: rate for n, rate in rates.items() if n <= limit}
    if not within:
        return max(1, limit)
    best = min(within)
    for n in sorted(within):
        if within[n] >= _MIN_GAIN * within[best]:
            best = n
    tried_more = any(n > best for n in within)
    return best if tried_more else min(2 * best, max(limit, 1))


class WorkerCount:
    """Finds the number of workers while they work: results do not depend on it, so it may change at any time.

    A rate is taken over the time in which all workers worked: time spent starting, or waiting for the slowest of a
    generation, is left out. A window may span several generations.

    Args:
        limit: Returns as many as memory, cores and work allow at the moment.
        clock: Seconds.
    """

    def __init__(self, limit: Callable[[int], int], clock: Callable[[], float]) -> None:
        self.n = 1
        self._limit = limit
        self._clock = clock
        self._rates: dict[int, float] = {}
        self._all_work = False
        self._since = clock()
        self._begin_window()

    def note_working(self, *, all_work: bool) -> None:
        """Take note of whether all workers, as many as `n`, work from now on."""
        now = self._clock()
        if self._all_work:
            self._seconds += now - self._since
        self._all_work, self._since = all_work, now

    def note_end(self) -> None:
        """Count a candidate that ended; after enough of them, choose again."""
        if not self._all_work:
            return
        self.note_working(all_work=True)
        self._n_ended += 1
        if self._n_ended < _WINDOW * self.n:
            return
        self._rates[self.n] = self._n_ended / max(self._seconds, 1e-9)
        self.n = next_n_workers(self._rates, self._limit(self.n))
        self._begin_window()

    def note_memory_fault(self) -> None:
        """Go on with fewer workers: as many as there are did not fit."""
        self._rates = {n: rate for n, rate in self._rates.items() if n < self.n}
        self.n = max(1, self.n - 1)
        self._rates[self.n + 1] = 0.0
        self._begin_window()

    def _begin_window(self) -> None:
        self._n_ended, self._seconds = 0, 0.0
