"""Budgets: what is counted, what is left, what it pays for. The clock is a list of one number."""

import pytest

from nas.budget import Budget, BudgetMeter, Usage

HOUR = 3600.0


def meter(budget, used=Usage(), n_gpus=0.0):  # noqa: B008
    now = [100.0]
    return BudgetMeter(budget, used, lambda: n_gpus, lambda: now[0]), now


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
    assert counted.n_affordable(50) == 50  # nothing measured yet
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
