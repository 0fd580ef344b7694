import pytest

from latency.errors import MeasurementError
from latency.timing.calls import time_calls


class World:
    """A clock, and calls that take the seconds they are told to; the last one for ever after."""

    def __init__(self, *durations):
        self.now, self.durations, self.n_calls, self.log = 100.0, durations, 0, []

    def clock(self):
        return self.now

    def call(self):
        self.now += self.durations[min(self.n_calls, len(self.durations) - 1)]
        self.n_calls += 1
        self.log.append("call")


def test_steady_calls_warm_up_for_two_windows():
    world = World(0.5)
    times = time_calls(world.call, n_runs=4, clock=world.clock)
    assert times.times_s == (0.5, 0.5, 0.5, 0.5)
    assert (times.n_warmup, times.is_settled) == (6, True)
    assert world.n_calls == 10


def test_warm_up_goes_on_until_the_medians_of_two_windows_agree():
    # windows: (8 8 8) (4 4 4) (2 2 2) (2 2 2): settled only after the fourth
    world = World(*[8.0] * 3, *[4.0] * 3, 2.0)
    times = time_calls(world.call, n_runs=2, time_limit_s=1000, clock=world.clock)
    assert (times.n_warmup, times.is_settled, times.times_s) == (12, True, (2.0, 2.0))


def test_one_outlier_does_not_prolong_the_warm_up():
    world = World(1.0, 1.0, 1.0, 1.0, 9.0, 1.0)
    assert time_calls(world.call, n_runs=1, time_limit_s=1000, clock=world.clock).n_warmup == 6


def test_warm_up_that_never_settles_ends_at_its_bound():
    world = World(*[1.0, 1.0, 1.0, 2.0, 2.0, 2.0] * 20)
    times = time_calls(world.call, n_runs=3, time_limit_s=1000, clock=world.clock)
    assert (times.n_warmup, times.is_settled) == (30, False)


def test_a_fixed_warm_up_is_made_whole():
    world = World(9.0, 9.0, 1.0)
    times = time_calls(world.call, n_runs=2, n_warmup=2, time_limit_s=100, clock=world.clock)
    assert (times.times_s, times.n_warmup, times.is_settled) == ((1.0, 1.0), 2, True)
    assert time_calls(World(1.0).call, n_runs=1, n_warmup=0, clock=world.clock).n_warmup == 0


def test_the_time_limit_ends_the_readings():
    world = World(1.0)
    times = time_calls(world.call, n_runs=100, time_limit_s=10, clock=world.clock)
    assert (times.n_warmup, len(times.times_s)) == (5, 5)


def test_nothing_measured_within_the_limit_is_an_error():
    world = World(20.0)
    with pytest.raises(MeasurementError, match=r"nothing was measured within 10 s: 1 warm-up calls"):
        time_calls(world.call, time_limit_s=10, clock=world.clock)
    with pytest.raises(MeasurementError, match=r"1 warm-up calls .* \(time_limit_s\)"):
        time_calls(world.call, n_warmup=5, time_limit_s=10, clock=world.clock)


def test_every_call_is_synchronised_before_and_after():
    world = World(1.0)
    time_calls(world.call, n_runs=2, n_warmup=1, clock=world.clock, synchronize=lambda: world.log.append("wait"))
    assert world.log == ["wait", "call", "wait"] * 3


def test_a_stopwatch_replaces_the_clock():
    world = World(1.0)

    def stopwatch(call):
        call()
        return 0.25

    times = time_calls(world.call, n_runs=2, n_warmup=0, clock=world.clock, stopwatch=stopwatch)
    assert times.times_s == (0.25, 0.25)


def test_the_callers_exception_comes_through():
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_calls(fail)


@pytest.mark.parametrize("option", ["n_runs", "time_limit_s"])
def test_options_must_be_positive(option):
    with pytest.raises(ValueError, match=rf"^{option} must be positive, got 0"):
        time_calls(lambda: None, **{option: 0})
