import dataclasses

import numpy as np
import pytest

from nas.values.objectives import Constraint, Direction, Objective, Violation, to_losses, violations

SCORE = Objective("mean_iou", Direction.MAXIMIZE)
LATENCY = Objective("latency_ms", Direction.MINIMIZE)


def test_signs_flip_for_maximised_metrics_alone():
    losses = to_losses([SCORE, LATENCY], [{"mean_iou": 0.75, "latency_ms": 4.0}, {"mean_iou": 0.5, "latency_ms": 1}])
    np.testing.assert_array_equal(losses, [[-0.75, 4.0], [-0.5, 1.0]])


def test_no_records_give_an_empty_matrix_of_the_right_width():
    assert to_losses([SCORE, LATENCY], []).shape == (0, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        to_losses([SCORE], [{"mean_iou": value}])


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        ({"max": 200.0}, 300.0, 0.5),
        ({"max": 200.0}, 200.0, 0.0),
        ({"min": 50.0}, 40.0, 0.2),
        ({"min": 50.0, "max": 200.0}, 100.0, 0.0),
        ({"max": 0.0}, 3.0, 3.0),
        ({"min": -10.0}, -15.0, 0.5),
    ],
)
def test_violation_is_the_share_of_the_bound(bounds, value, expected):
    assert Constraint("n_params", **bounds).violation(value) == pytest.approx(expected)


def test_violations_name_the_bound_and_ignore_unknown_metrics():
    bounds = [
        Constraint("n_params", max=100),
        Constraint("latency_ms", min=2),
        Constraint("accuracy", min=0.5),
    ]
    broken = violations(bounds, {"n_params": 150.0, "latency_ms": 1.0})
    assert [str(violation) for violation in broken] == [
        "n_params = 150 is over its maximum 100",
        "latency_ms = 1 is under its minimum 2",
    ]
    assert [violation.amount for violation in broken] == [0.5, 0.5]


def test_a_constraint_that_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="min must be at most max, got 5 and 4"):
        Constraint("n_params", min=5, max=4)
    with pytest.raises(ValueError, match="min or max"):
        Constraint("n_params")


def test_best_is_the_smallest_or_the_largest():
    assert LATENCY.best([2.0, 1.0, 3.0]) == 1.0
    assert SCORE.best([0.2, 0.9, 0.3]) == 0.9


def test_the_unit_makes_no_other_objective():
    assert Objective("latency_ms", Direction.MINIMIZE, "ms") == LATENCY


def test_both_bounds_may_be_one_value_which_alone_keeps_them():
    constraint = Constraint("n_params", min=100, max=100)
    assert [constraint.violation(value) for value in (99.5, 100, 100.5)] == pytest.approx([0.005, 0, 0.005])


def test_a_value_just_inside_breaks_nothing():
    assert Constraint("accuracy", min=0.5, max=0.9).violation(0.899) == 0.0
    assert Constraint("accuracy", min=0.5, max=0.9).violation(0.501) == 0.0


def test_with_both_bounds_the_broken_one_is_named():
    both = [Constraint("latency_ms", min=2.0, max=5.0)]
    assert [str(v) for v in violations(both, {"latency_ms": 1.0})] == ["latency_ms = 1 is under its minimum 2"]
    assert [str(v) for v in violations(both, {"latency_ms": 6.0})] == ["latency_ms = 6 is over its maximum 5"]


def test_a_metric_that_is_not_known_hides_no_other():
    bounds = [Constraint("accuracy", min=0.5), Constraint("n_params", max=100)]
    assert [v.metric for v in violations(bounds, {"n_params": 150.0})] == ["n_params"]


@pytest.mark.parametrize(
    ("value", "undisturbed", "expected"),
    [
        (12.0, 2.0, None),  # the truth may keep the bound
        (12.0, 5.0, None),
        (12.0, 8.0, 8.0),  # all of the range is outside
        (4.0, 2.0, None),
        (12.0, 12.0, 12.0),
    ],
)
def test_a_disturbed_reading_breaks_an_upper_bound_by_its_undisturbed_part(value, undisturbed, expected):
    broken = violations([Constraint("latency_ms", max=5.0)], {"latency_ms": value}, {"latency_ms": undisturbed})
    assert [v.value for v in broken] == ([] if expected is None else [expected])


def test_a_disturbed_reading_under_a_lower_bound_breaks_it():
    broken = violations([Constraint("latency_ms", min=5.0)], {"latency_ms": 4.0}, {"latency_ms": 2.0})
    assert [v.value for v in broken] == [4.0]


@pytest.mark.parametrize("value", [LATENCY, Constraint("n_params", max=1), Violation("n_params", 2, None, 1, 1.0)])
def test_values_cannot_be_changed(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.metric = "another"
