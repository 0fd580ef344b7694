"""Times repeated calls: warms up until the times settle, then repeats until the median is known well enough."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from latency.errors import MeasurementError
from latency.sizes import require_positive

_WINDOW = 3  # calls whose median tells whether the warm-up goes on
_SETTLED = 0.1  # the largest relative change between the medians of two windows that counts as settled
_MAX_WARMUP = 30
_WARMUP_SHARE = 0.5  # of the time limit; the rest is kept for the timed calls
_MIN_FOR_INTERVAL = 6  # fewer readings hold the median with less than 95 %, whatever they are
_MIN_RUNS = 10  # readings before their interval is looked at

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
        n_disturbed: Calls that something else interrupted; they are not among `times_s` unless too few others
            were left, which `is_disturbed` tells.
        is_disturbed: Whether `times_s` holds such calls.
        own_times_s: Of each of `times_s` what the calling thread ran of it: the same for calls that nothing
            interrupted, near to what the call takes on an idle machine for the others (a little more, since caches were
            lost; less where other threads work for it).
    """

    times_s: tuple[float, ...]
    n_warmup: int
    is_settled: bool
    n_disturbed: int = 0
    is_disturbed: bool = False
    own_times_s: tuple[float, ...] = ()

    @property
    def undisturbed_s(self) -> float:
        """The median of what the calls would have taken with nothing beside them; that of `times_s` if undisturbed."""
        return median(self.own_times_s or self.times_s)

    @property
    def relative_interval(self) -> float:
        """The width of the median's 95 % interval as a share of the median."""
        return _relative_width(sorted(self.times_s))

    def is_stable(self, relative_interval: float) -> bool:
        """Return whether the warm-up settled and the median of undisturbed calls has so narrow an interval.

        Fewer than 6 calls never do: they have no such interval.
        """
        is_known = len(self.times_s) >= _MIN_FOR_INTERVAL and self.relative_interval <= relative_interval
        return self.is_settled and not self.is_disturbed and is_known


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median of the distribution that `values` come from.

    From order statistics, so no shape of the distribution is assumed; that the readings are independent is. With
    fewer than 6 no such interval exists: the smallest and the largest are returned, which hold less.

    Source:
        Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2, with the exact binomial tail.
    """
    return _interval_of_sorted(sorted(values))


@functools.cache
def _lower_rank(n: int) -> int:
    """Return the largest rank, from 1, that at most 2.5 % of all samples of `n` have above the median."""
    rank, tail = 0, 1
    while tail * 40 <= 2**n:
        rank += 1
        tail += math.comb(n, rank)
    return max(rank, 1)


def _interval_of_sorted(ordered: Sequence[float]) -> tuple[float, float]:
    rank = _lower_rank(len(ordered))
    return ordered[rank - 1], ordered[-rank]


def _relative_width(ordered: Sequence[float]) -> float:
    low, high = _interval_of_sorted(ordered)
    middle = median(ordered)
    return (high - low) / middle if middle > 0 else math.inf


def time_until_stable(
    call: Callable[[], object],
    *,
    relative_interval: float | None,
    time_limit_s: float = 30.0,
    clock: Clock = time.perf_counter,
    **options: Any,
) -> tuple[CallTimes, int]:
    """Time `call`, and once more from the warm-up on if the first reading is unstable and the limit leaves time.

    Args:
        call: What to time.
        relative_interval: What counts as stable, see `CallTimes.is_stable`; `None` for one reading of `n_runs`.
        time_limit_s: Seconds for all of it.
        clock: Returns the time in seconds.
        options: The others of `time_calls`.

    Returns:
        The reading with the narrower interval, and how many were taken.

    Raises:
        ValueError: As `time_calls`.
        MeasurementError: As `time_calls`.
    """
    options |= {"relative_interval": relative_interval, "clock": clock}
    start = clock()
    first = time_calls(call, time_limit_s=time_limit_s, **options)
    took_s = clock() - start
    if relative_interval is None or first.is_stable(relative_interval) or took_s > time_limit_s / 2:
        return first, 1
    second = time_calls(call, time_limit_s=time_limit_s - took_s, **options)
    return min(first, second, key=lambda times: (times.is_disturbed, not times.is_settled, times.relative_interval)), 2


def time_calls(
    call: Callable[[], object],
    *,
    n_runs: int = 30,
    relative_interval: float | None = None,
    n_warmup: int | None = None,
    time_limit_s: float = 30.0,
    clock: Clock = time.perf_counter,
    synchronize: Callable[[], object] | None = None,
    stopwatch: Stopwatch | None = None,
    n_interruptions: Callable[[], int] | None = None,
    own_clock: Clock = time.thread_time,
) -> CallTimes:
    """Time `call` until the median is known well enough, there are `n_runs` readings or the time limit is reached.

    The limit is looked at between calls: a call in progress is not interrupted.

    Args:
        call: What to time.
        n_runs: Readings to take, at most.
        relative_interval: Stop once the 95 % interval of the median is at most this share of it wide, looked at
            whenever there are a quarter more readings than before, 10 first; `None` to take all `n_runs`.
        n_warmup: Calls before the first reading; by default as many as it takes until the medians of two
            windows of 3 calls differ by at most 10 %, at most 30 calls and half the time limit. Of interrupted calls
            what the calling thread ran counts here.
        time_limit_s: Seconds for warm-up and readings together.
        clock: Returns the time in seconds.
        synchronize: Waits until the device is idle; called before the clock is read.
        stopwatch: Runs a call and returns its seconds, in place of `clock` and `synchronize`.
        n_interruptions: Counts what takes the device away from this process. A call during which it grows tells
            more of the others than of `call`: it is set aside, and others are made in its place, at most
            `n_runs` of them.
        own_clock: Returns the seconds that the calling thread has run.

    Raises:
        ValueError: If a count or the limit is not positive.
        MeasurementError: If the limit passes before the first reading.
    """
    require_positive(n_runs=n_runs, relative_interval=relative_interval, time_limit_s=time_limit_s)
    watch = _Watch(stopwatch or _stopwatch(clock, synchronize), n_interruptions, own_clock)
    start = clock()
    warmup, is_settled = _warm_up(lambda: watch(call).own_s, n_warmup, lambda: clock() - start, time_limit_s)
    times, disturbed = _read(lambda: watch(call), n_runs, relative_interval, lambda: clock() - start < time_limit_s)
    if not times and not disturbed:
        raise MeasurementError(
            f"nothing was measured within {time_limit_s:g} s: {warmup} warm-up calls took all of it. "
            "Give more time (time_limit_s), a smaller input or a smaller batch_size"
        )
    is_disturbed = len(disturbed) > 0 and len(times) < min(n_runs, _MIN_RUNS)
    kept = (*times, *disturbed)[:n_runs] if is_disturbed else times
    return CallTimes(
        tuple(one.seconds for one in kept),
        warmup,
        is_settled,
        len(disturbed),
        is_disturbed,
        tuple(one.own_s for one in kept),
    )


def _read(
    measure: Callable[[], "_Duration"], n_runs: int, relative_interval: float | None, has_time: Callable[[], bool]
) -> tuple[list["_Duration"], list["_Duration"]]:
    """Return the undisturbed and the disturbed readings: at most `n_runs` of each."""
    times: list[_Duration] = []
    disturbed: list[_Duration] = []
    next_look = _MIN_RUNS
    while len(times) < n_runs > len(disturbed) and has_time():
        duration = measure()
        if duration.is_disturbed:
            disturbed.append(duration)
            continue
        times.append(duration)
        if relative_interval is not None and len(times) == next_look:
            if _relative_width(sorted(one.seconds for one in times)) <= relative_interval:
                break
            next_look += max(1, next_look // 4)  # not after each reading: that would stop at the luckiest
    return times, disturbed


@dataclass(frozen=True)
class _Duration:
    seconds: float
    own_s: float
    is_disturbed: bool


class _Watch:
    """Times a call, and tells whether something interrupted it."""

    def __init__(self, measure: Stopwatch, n_interruptions: Callable[[], int] | None, own_clock: Clock) -> None:
        self._measure = measure
        self._count = n_interruptions or (lambda: 0)
        self._own_clock = own_clock

    def __call__(self, call: Callable[[], object]) -> _Duration:
        before, own_start = self._count(), self._own_clock()
        seconds = self._measure(call)
        own_s = self._own_clock() - own_start
        is_disturbed = self._count() != before
        is_told = is_disturbed and own_s > 0  # a clock may be coarse
        return _Duration(seconds, min(own_s, seconds) if is_told else seconds, is_disturbed)


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
    measure: Callable[[], float], n_warmup: int | None, elapsed: Clock, time_limit_s: float
) -> tuple[int, bool]:
    """Return the number of calls made and whether they did what they were to."""
    if n_warmup is not None:
        for done in range(n_warmup):
            if elapsed() >= time_limit_s:
                return done, False
            measure()
        return n_warmup, True
    times: list[float] = []
    while len(times) < _MAX_WARMUP and elapsed() < _WARMUP_SHARE * time_limit_s:
        times.append(measure())
        if len(times) % _WINDOW == 0 and _is_settled(times):
            return len(times), True
    return len(times), False


def _is_settled(times: list[float]) -> bool:
    if len(times) < 2 * _WINDOW:
        return False
    before, now = median(times[-2 * _WINDOW : -_WINDOW]), median(times[-_WINDOW:])
    return abs(now - before) <= _SETTLED * before
