"""Times repeated calls: warms up until the times settle, then repeats up to a count or a time limit."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from latency.checks import require_positive
from latency.errors import MeasurementError

_WINDOW = 3  # calls whose median tells whether the warm-up goes on
_SETTLED = 0.1  # the largest relative change between the medians of two windows that counts as settled
_MAX_WARMUP = 30
_WARMUP_SHARE = 0.5  # of the time limit; the rest is kept for the timed calls

Clock = Callable[[], float]
Stopwatch = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class CallTimes:
    """The durations of repeated calls.

    Attributes:
        times_s: Seconds of each timed call, in order; at least one.
        n_warmup: Calls that were made before.
        is_settled: Whether the warm-up ended because the times had settled, or as many calls as asked for
            were made; otherwise it ran into its bound.
    """

    times_s: tuple[float, ...]
    n_warmup: int
    is_settled: bool


def time_calls(
    call: Callable[[], object],
    *,
    n_runs: int = 30,
    n_warmup: int | None = None,
    time_limit_s: float = 30.0,
    clock: Clock = time.perf_counter,
    synchronize: Callable[[], object] | None = None,
    stopwatch: Stopwatch | None = None,
) -> CallTimes:
    """Time `call` until there are `n_runs` readings or the time limit is reached.

    The limit is looked at between calls: a call in progress is not interrupted.

    Args:
        call: What to time.
        n_runs: Readings to take, at most.
        n_warmup: Calls before the first reading; by default as many as it takes until the medians of two
            windows of 3 calls differ by at most 10 %, at most 30 calls and half the time limit.
        time_limit_s: Seconds for warm-up and readings together.
        clock: Returns the time in seconds.
        synchronize: Waits until the device is idle; called before the clock is read.
        stopwatch: Runs a call and returns its seconds, in place of `clock` and `synchronize`.

    Raises:
        ValueError: If a count or the limit is not positive.
        MeasurementError: If the limit passes before the first reading.
    """
    require_positive(n_runs=n_runs, time_limit_s=time_limit_s)
    measure = stopwatch or _stopwatch(clock, synchronize)
    start = clock()
    warmup, is_settled = _warm_up(call, measure, n_warmup, lambda: clock() - start, time_limit_s)
    times: list[float] = []
    while len(times) < n_runs and clock() - start < time_limit_s:
        times.append(measure(call))
    if not times:
        raise MeasurementError(
            f"nothing was measured within {time_limit_s:g} s: {warmup} warm-up calls took all of it. "
            "Give more time (time_limit_s), a smaller input or a smaller batch_size"
        )
    return CallTimes(tuple(times), warmup, is_settled)


def _stopwatch(clock: Clock, synchronize: Callable[[], object] | None) -> Stopwatch:
    def measure(call: Callable[[], object]) -> float:
        if synchronize:
            synchronize()
        start = clock()
        call()
        if synchronize:
            synchronize()
        return clock() - start

    return measure


def _warm_up(
    call: Callable[[], object],
    measure: Stopwatch,
    n_warmup: int | None,
    elapsed: Clock,
    time_limit_s: float,
) -> tuple[int, bool]:
    """Return the number of calls made and whether they did what they were to."""
    if n_warmup is not None:
        for done in range(n_warmup):
            if elapsed() >= time_limit_s:
                return done, False
            measure(call)
        return n_warmup, True
    times: list[float] = []
    while len(times) < _MAX_WARMUP and elapsed() < _WARMUP_SHARE * time_limit_s:
        times.append(measure(call))
        if len(times) % _WINDOW == 0 and _is_settled(times):
            return len(times), True
    return len(times), False


def _is_settled(times: list[float]) -> bool:
    if len(times) < 2 * _WINDOW:
        return False
    before, now = median(times[-2 * _WINDOW : -_WINDOW]), median(times[-_WINDOW:])
    return abs(now - before) <= _SETTLED * before
