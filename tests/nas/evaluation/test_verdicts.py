"""The rules of verdicts, each by itself; executors' tests hold them together."""

import dataclasses

import pytest

from nas.errors import DataError
from nas.evaluation import Ended, Job, verdicts
from nas.evaluation.base import PrunedError
from nas.values.objectives import Constraint
from nas.values.records import Candidate, Failure, Pruning, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=3, n_values=4)
CANDIDATE = Candidate.create(SPACE, SPACE.genotype((0, 1, 2)), 0)
JOB = Job(CANDIDATE, attempt=2, constraints=(Constraint("cost", max=3.0),))


def error_handled(error):
    try:
        raise error
    except type(error) as raised:
        return verdicts.after_error(JOB, "training", raised)


def test_bounds_hold_for_what_is_known_alone():
    def after(**metrics):
        return verdicts.after_readings(dataclasses.replace(JOB, metrics=metrics))

    assert after(score=9.0) is None
    assert after(cost=3.0) is None
    end = after(cost=3.5)
    assert (end.candidate, end.state, end.attempts) == (CANDIDATE.id, RecordState.INFEASIBLE, 2)
    assert [(v.metric, v.value, v.max) for v in end.violations] == [("cost", 3.5, 3.0)]


def test_a_disturbed_reading_breaks_a_bound_by_its_undisturbed_part_alone_and_none_before_it_is_repeated():
    def after(cost, undisturbed, **options):
        job = dataclasses.replace(JOB, metrics={"cost": cost}, undisturbed={"cost": undisturbed})
        return verdicts.after_readings(job, **options)

    assert after(12.3, 2.6) is None
    assert after(12.3, 3.0) is None
    (violation,) = after(12.3, 4.5).violations
    assert (violation.value, violation.amount) == (4.5, 0.5)
    assert after(12.3, 4.5, repeats_follow=True) is None


def test_a_range_of_readings_that_touches_both_bounds_breaks_none():
    narrow = dataclasses.replace(JOB, constraints=(Constraint("cost", min=2.0, max=3.0),))
    job = dataclasses.replace(narrow, metrics={"cost": 5.0}, undisturbed={"cost": 1.0})
    assert verdicts.after_readings(job) is None


def test_an_error_is_the_candidates_failure_unless_it_stops_it_early_or_is_the_users():
    end = error_handled(ZeroDivisionError("zero"))
    assert (end.state, end.attempts, end.failure.stage) == (RecordState.FAILED, 2, "training")
    assert end.failure.reason == "ZeroDivisionError: zero"
    assert "in error_handled" in end.failure.traceback
    pruning = Pruning("training", "score@1", 0.1)
    assert error_handled(PrunedError(pruning, ())) == Ended(CANDIDATE.id, RecordState.PRUNED, 2, pruning=pruning)
    with pytest.raises(DataError):
        error_handled(DataError(["x.png: unreadable"]))


def test_complete_needs_every_required_metric():
    required = frozenset({"cost", "score", "latency_ms"})
    assert verdicts.after_all_stages(JOB, {"cost", "score", "latency_ms"}, required).state is RecordState.COMPLETE
    end = verdicts.after_all_stages(JOB, {"score"}, required)
    assert (end.state, end.failure) == (RecordState.FAILED, Failure("metrics", "no stage gave cost, latency_ms", ""))


def test_a_lost_attempt_is_tried_again_once():
    again = verdicts.after_lost_attempt(Job(CANDIDATE), "its process died")
    assert again == Job(CANDIDATE, attempt=2, n_lost=1)
    end = verdicts.after_lost_attempt(again, "its process died")
    assert (end.state, end.attempts) == (RecordState.FAILED, 2)
    assert end.failure.reason == "given up after 2 attempts; in the last one its process died"
