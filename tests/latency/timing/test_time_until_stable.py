from math import comb

import pytest

from latency.timing.calls import CallTimes, median_interval, time_calls, time_until_stable
from latency.timing.conditions import is_disturbed, undisturbed_ms
from latency.timing.stats import LatencyStats


class World:
    """A clock, and calls that take the given seconds, over and over."""

    def __init__(self, *durations):
        self.now, self.durations, self.n_calls, self.n_interruptions = 0.0, durations, 0, 0

    def clock(self):
        return self.now

    def call(self):
        self.now += self.durations[self.n_calls % len(self.durations)]
        self.n_calls += 1


def coverage(n, rank):
    """The chance that the median lies between the rank-th smallest and the rank-th largest of n readings."""
    return 1 - 2 * sum(comb(n, k) for k in range(rank)) / 2**n


@pytest.mark.parametrize("n", [6, 9, 10, 20, 37, 100, 501])
def test_the_interval_is_the_narrowest_that_holds_the_median_with_95_percent(n):
    low, high = median_interval(range(1, n + 1))
    assert low + high == n + 1
    assert coverage(n, low) >= 0.95 > coverage(n, low + 1)


def test_the_interval_of_few_readings_is_their_range_in_any_order():
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert median_interval([4.0]) == (4.0, 4.0)


def test_equal_readings_end_at_the_first_look():
    world = World(0.5)
    times = time_calls(world.call, n_runs=100, n_warmup=0, relative_interval=0.01, clock=world.clock)
    assert times.times_s == (0.5,) * 10


def test_readings_go_on_until_the_interval_is_narrow():
    # A period of 1, 2, 1: the median's interval holds a 2 until it is certain that the median is 1.
    world = World(1.0, 2.0, 1.0)
    times = time_calls(world.call, n_runs=500, n_warmup=0, relative_interval=0.5, time_limit_s=1e6, clock=world.clock)
    n = len(times.times_s)
    readings = [1.0, 2.0, 1.0] * 200
    looks = [10, 12, 15, 18, 22, 27, 33, 41, 51, 63, 78, 97]
    assert n == next(look for look in looks if median_interval(readings[:look]) == (1.0, 1.0))
    assert n > 10


def test_a_wide_interval_ends_at_the_number_of_runs():
    world = World(1.0, 2.0)
    times = time_calls(world.call, n_runs=40, n_warmup=0, relative_interval=0.1, time_limit_s=1e6, clock=world.clock)
    assert len(times.times_s) == 40
    assert times.relative_interval == pytest.approx(1 / 1.5)
    assert not times.is_stable(0.1)


def test_an_unstable_reading_is_repeated_once_and_the_narrower_one_kept():
    unsteady = [1.0, 2.0] * 10
    world = World(*unsteady, *[1.0] * 40)
    options = {"n_runs": 20, "n_warmup": 0, "relative_interval": 0.1, "time_limit_s": 1000, "clock": world.clock}
    times, n_readings = time_until_stable(world.call, **options)
    assert (n_readings, times.times_s) == (2, (1.0,) * 10)
    world = World(*unsteady, *unsteady)
    times, n_readings = time_until_stable(world.call, **{**options, "clock": world.clock})
    assert (n_readings, world.n_calls, times.is_stable(0.1)) == (2, 40, False)


def test_fewer_than_six_readings_never_count_as_stable():
    assert not CallTimes((1.0,), n_warmup=0, is_settled=True).is_stable(0.1)
    assert not CallTimes((1.0,) * 5, n_warmup=0, is_settled=True).is_stable(0.1)
    assert CallTimes((1.0,) * 6, n_warmup=0, is_settled=True).is_stable(0.1)


def test_no_second_reading_where_nobody_asked_or_no_time_is_left():
    world = World(1.0, 2.0)
    assert time_until_stable(world.call, relative_interval=None, n_runs=20, n_warmup=0, clock=world.clock)[1] == 1
    world = World(1.0, 2.0)
    _, n_readings = time_until_stable(
        world.call, relative_interval=0.1, n_runs=20, n_warmup=0, time_limit_s=40, clock=world.clock
    )
    assert (n_readings, world.now) == (1, 30.0)


def test_interrupted_calls_are_set_aside_and_made_up_for():
    world = World(1.0, 1.0, 9.0)

    def call():
        world.call()
        world.n_interruptions += world.n_calls % 3 == 0

    count = lambda: world.n_interruptions  # noqa: E731
    times = time_calls(call, n_runs=20, n_warmup=0, time_limit_s=1e6, clock=world.clock, n_interruptions=count)
    assert (times.times_s, times.n_disturbed, times.is_disturbed) == ((1.0,) * 20, 9, False)


def test_where_every_call_is_interrupted_the_readings_say_so():
    world = World(3.0)

    def call():
        world.call()
        world.n_interruptions += 1

    count = lambda: world.n_interruptions  # noqa: E731
    times = time_calls(call, n_runs=20, n_warmup=0, time_limit_s=1e6, clock=world.clock, n_interruptions=count)
    assert (times.times_s, times.n_disturbed, times.is_disturbed) == ((3.0,) * 20, 20, True)
    assert not times.is_stable(1.0)


def test_of_interrupted_calls_the_threads_own_time_tells_what_they_would_take():
    # Every call takes 2 s, and other processes run for 10 s in the middle of three calls out of four.
    world = World(2.0, 12.0, 12.0, 12.0)

    def call():
        world.call()
        world.n_interruptions += world.n_calls % 4 != 1

    def read(n_runs):
        world.n_calls = 0
        return time_calls(
            call,
            n_runs=n_runs,
            time_limit_s=1e6,
            clock=world.clock,
            n_interruptions=lambda: world.n_interruptions,
            own_clock=lambda: 2.0 * world.n_calls,
        )

    few, many = read(8), read(60)
    assert (few.is_disturbed, few.undisturbed_s) == (True, 2.0)
    assert sorted(few.times_s) == [2.0] * 2 + [12.0] * 6
    assert (few.n_warmup, few.is_settled) == (6, True)  # the interruptions do not prolong the warm-up
    assert (many.is_disturbed, many.undisturbed_s, set(many.times_s)) == (False, 2.0, {2.0})


def test_an_own_clock_too_coarse_to_tell_is_not_believed():
    world = World(3.0)

    def call():
        world.call()
        world.n_interruptions += 1

    count = lambda: world.n_interruptions  # noqa: E731
    times = time_calls(call, n_runs=5, clock=world.clock, n_interruptions=count, own_clock=lambda: 7.0, n_warmup=0)
    assert times.undisturbed_s == 3.0


def test_a_stored_reading_tells_of_its_disturbance():
    times = CallTimes((0.012, 0.010, 0.014), 6, True, 3, True, (0.002, 0.003, 0.004))
    stats = LatencyStats.from_reading(times, 1, 0.01, {})
    assert (stats.median_ms, stats.is_disturbed, stats.undisturbed_ms) == pytest.approx((12.0, True, 3.0))
    assert is_disturbed(stats.conditions)
    assert undisturbed_ms(12.0, stats.conditions) == pytest.approx(3.0)
    assert undisturbed_ms(2.0, stats.conditions) == 2.0  # a median of later readings may be lower
    assert not is_disturbed({})
    assert undisturbed_ms(5.0, {}) == 5.0


def test_statistics_tell_how_sure_the_median_is():
    times = CallTimes(tuple(n / 1000 for n in range(1, 11)), n_warmup=4, is_settled=True)
    stats = LatencyStats.from_reading(times, 2, 0.5, {"device": "x"})
    assert stats.median_ms == pytest.approx(5.5)
    assert stats.conditions == {
        "device": "x", "median_interval_ms": [2.0, 9.0], "n_readings": 2, "n_warmup": 4, "is_warm_up_settled": True,
        "n_disturbed": 0, "is_disturbed": False, "is_stable": False, "undisturbed_ms": pytest.approx(5.5),
    }  # fmt: skip
    assert "is_stable" not in LatencyStats.from_reading(times, 1, None, {}).conditions
