"""Budgets: what is counted, what is left, what it pays for. The clock is a list of one number."""

import pytest

from nas.search.budget_meter import BudgetMeter
from nas.values.budgets import Budget, Usage

HOUR = 3600.0


def meter(budget, used=Usage(), n_gpus=0.0, **options):  # noqa: B008
    now = [100.0]
    return BudgetMeter(budget, used, lambda: n_gpus, lambda: now[0], **options), now


@pytest.mark.parametrize("name", ["hours", "n_trained", "gpu_hours"])
def test_a_part_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
        Budget(**{name: 0})


def test_time_and_gpu_time_are_added_to_what_earlier_processes_used():
    counted, now = meter(Budget(), Usage(hours=1.0, gpu_hours=2.0, n_trained=3), n_gpus=4.0)
    now[0] += HOUR / 2
    counted.note_end(was_trained=True)
    counted.note_end(was_trained=False)
    now[0] += HOUR
    assert counted.usage == Usage(hours=2.5, gpu_hours=8.0, n_trained=4)
    assert not counted.is_used_up


@pytest.mark.parametrize(
    ("budget", "is_used_up"),
    [
        (Budget(hours=2.5), True),
        (Budget(hours=2.6), False),
        (Budget(gpu_hours=8.0, hours=9), True),
        (Budget(n_trained=4), True),
        (Budget(n_trained=5), False),
        (Budget(), False),
    ],
)
def test_the_first_part_that_is_reached_ends_it(budget, is_used_up):
    assert budget.is_used_up(Usage(hours=2.5, gpu_hours=8.0, n_trained=4)) is is_used_up


def test_trainings_that_run_are_spoken_for():
    counted, _ = meter(Budget(n_trained=10), Usage(n_trained=4))
    assert [counted.n_affordable(8, n_running) for n_running in (0, 4, 6, 7)] == [6, 2, 0, 0]


def test_a_batch_is_no_larger_than_the_time_left_pays_for():
    counted, now = meter(Budget(hours=1))
    assert counted.n_affordable(50) == 1  # nothing measured yet
    for _ in range(4):
        now[0] += HOUR / 8
        counted.note_end(was_trained=True)
    assert counted.n_affordable(50) == 4
    now[0] += HOUR * 0.45
    assert counted.n_affordable(50) == 1
    now[0] += HOUR * 0.05
    assert counted.n_affordable(50) == 0


def test_gpu_hours_last_as_long_as_the_gpus_held_let_them():
    counted, now = meter(Budget(gpu_hours=4), n_gpus=4.0)
    for _ in range(2):
        now[0] += HOUR / 8
        counted.note_end(was_trained=True)
    assert counted.remaining_s(1000) == pytest.approx(0.75 * HOUR)


def test_what_is_left_is_the_shortest_of_candidates_hours_and_trainings():
    counted, now = meter(Budget(hours=10, n_trained=20))
    assert counted.remaining_s(100) is None
    for index in range(10):
        now[0] += 60.0
        counted.note_end(was_trained=index < 5)
    assert counted.remaining_s(7) == pytest.approx(7 * 60.0)
    assert counted.remaining_s(100) == pytest.approx(15 * 120.0)  # each training costs two candidates


def test_while_no_pace_is_known_so_many_are_asked_for_as_run_at_once():
    assert meter(Budget(hours=1), n_at_once=lambda: 6)[0].n_affordable(50) == 6
    assert meter(Budget(hours=1), n_at_once=lambda: 6)[0].n_affordable(4) == 4
    assert meter(Budget(n_trained=40), n_at_once=lambda: 6)[0].n_affordable(50) == 40  # no time to tell
    assert meter(Budget(gpu_hours=9), Usage(hours=1.0), n_ended=4, n_at_once=lambda: 6)[0].n_affordable(50) == 6


def test_a_resumed_run_has_the_pace_of_those_before_until_it_has_its_own():
    counted, now = meter(Budget(hours=3), Usage(hours=2.5, n_trained=10), n_ended=20)  # one in 450 s
    assert counted.n_affordable(50) == 4
    assert counted.remaining_s(2) == pytest.approx(2 * 450)
    assert counted.remaining_s(50) == pytest.approx(0.5 * HOUR)
    now[0] += HOUR / 40
    counted.note_end(was_trained=True)
    assert counted.remaining_s(2) == pytest.approx(2 * 90)
    trainings, _ = meter(Budget(n_trained=12), Usage(hours=2.5, n_trained=10), n_ended=20)
    assert trainings.remaining_s(50) == pytest.approx(2 * 900)


def test_how_many_will_end_follows_from_what_the_budget_pays():
    assert meter(Budget())[0].n_expected(50) == 50
    assert meter(Budget(n_trained=12))[0].n_expected(50) == 12
    half, _ = meter(Budget(n_trained=12), Usage(hours=1.0, n_trained=10), n_ended=20)
    assert half.n_expected(50) == 4  # every other one is outside its bounds
    assert half.n_expected(50, n_running=6) == 6
    timed, now = meter(Budget(hours=2), Usage(hours=1.0), n_ended=20)
    assert timed.n_expected(50) == 20
    now[0] += 2 * HOUR
    assert (timed.n_expected(50), timed.n_expected(50, n_running=3)) == (0, 3)


def test_gpus_given_back_just_before_a_reading_are_counted():
    now, held = [0.0], [4.0]
    counted = BudgetMeter(Budget(), Usage(), lambda: held[0], lambda: now[0])
    now[0] += HOUR
    assert counted.usage.gpu_hours == pytest.approx(4.0)
    now[0], held[0] = now[0] + HOUR, 0.0
    assert counted.usage.gpu_hours == pytest.approx(8.0)
    now[0] += HOUR
    assert counted.usage.gpu_hours == pytest.approx(8.0)
