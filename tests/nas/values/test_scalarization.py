import numpy as np
import pytest

from nas.values.objectives import Direction, Objective
from nas.values.scalarization import (
    Scalarization,
    ScalarizationKind,
    SoftConstraints,
    adapted_exponent,
    soft_constraint,
)

LOSSES = np.array([[0.0, 10.0], [2.0, 5.0], [4.0, 0.0]])
BOX = (np.array([0.0, 0.0]), np.array([4.0, 10.0]))


def test_weighted_sum_by_hand():
    values = Scalarization(ScalarizationKind.WEIGHTED, (3.0, 1.0))(LOSSES, *BOX)
    np.testing.assert_allclose(values, [0.25, 0.5, 0.75])


def test_chebyshev_by_hand():
    values = Scalarization(ScalarizationKind.CHEBYSHEV, (1.0, 1.0))(LOSSES, *BOX)
    np.testing.assert_allclose(values, [0.5 + 0.025, 0.25 + 0.025, 0.5 + 0.025])


def test_chebyshev_finds_a_point_in_a_dent_that_no_weighted_sum_finds():
    losses, box = np.array([[0.0, 1.0], [0.6, 0.6], [1.0, 0.0]]), (np.zeros(2), np.ones(2))
    for first in np.linspace(0.01, 0.99, 50):
        assert np.argmin(Scalarization(ScalarizationKind.WEIGHTED, (first, 1 - first))(losses, *box)) != 1
    assert np.argmin(Scalarization(ScalarizationKind.CHEBYSHEV, (0.5, 0.5))(losses, *box)) == 1


def test_an_objective_without_range_counts_nothing():
    values = Scalarization(ScalarizationKind.WEIGHTED, (1.0, 1.0))(LOSSES, np.zeros(2), np.array([0.0, 10.0]))
    np.testing.assert_allclose(values, [0.5, 0.25, 0.0])


def test_soft_constraint_is_the_papers():
    # Doubling latency costs 5 % of accuracy: 0.95 = 2 ** -0.074.
    rewards = soft_constraint(np.array([0.75, 0.75]), np.array([80.0, 160.0]), 80.0, -0.07)
    np.testing.assert_allclose(rewards, [0.75, 0.75 * 2**-0.07])


def test_the_exponent_grows_while_costs_are_over_the_target_and_shrinks_below():
    assert adapted_exponent(-0.07, np.array([1.0, 20.0, 30.0]), 10.0) == pytest.approx(-0.07 * 2**0.2)
    assert adapted_exponent(-0.07, np.array([5.0]), 10.0) == pytest.approx(-0.07 * 2**-0.2)
    assert adapted_exponent(-0.07, np.array([10.0]), 10.0) == -0.07


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scalarization(ScalarizationKind.WEIGHTED, (0.0, 0.0)), r"weights must be non-negative"),
        (lambda: soft_constraint(np.ones(1), np.ones(1), 0.0, -1.0), "target must be positive, got 0.0"),
        (lambda: soft_constraint(np.ones(1), np.ones(1), 1.0, 0.5), "exponent must be negative, got 0.5"),
    ],
)
def test_values_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


OBJECTIVES = (
    Objective("accuracy", Direction.MAXIMIZE),
    Objective("latency_ms", Direction.MINIMIZE),
    Objective("n_params", Direction.MINIMIZE),
)


def test_soft_constraints_are_the_logarithm_of_the_papers_reward():
    reward = SoftConstraints.of(OBJECTIVES, {"latency_ms": 80.0, "n_params": 10.0})
    assert reward.targets == (None, 80.0, 10.0)
    values = reward(np.array([[-0.75, 160.0, 10.0], [-0.5, 20.0, 20.0], [0.1, 1.0, 1.0]]), np.zeros(3), np.ones(3))
    np.testing.assert_allclose(np.exp(-values), [0.75 * 2**-0.07, 0.5 * 2**-0.07, 1e-12])


def test_the_exponent_of_each_cost_that_is_over_its_target_grows():
    reward = SoftConstraints.of(OBJECTIVES, {"latency_ms": 80.0, "n_params": 10.0})
    adapted = reward.adapted(np.array([[-0.5, 160.0, 5.0]]))
    assert adapted.exponents[1:] == (pytest.approx(-0.07 * 2**0.2), -0.07)
    assert reward.adapted(np.empty((0, 3))) == reward


@pytest.mark.parametrize(
    ("objectives", "targets", "message"),
    [
        (OBJECTIVES, {"latency_ms": 1.0}, "targets must name every objective that is minimised; missing: n_params"),
        (
            OBJECTIVES,
            {"accuracy": 1.0},
            "targets must name objectives that are minimised, got 'accuracy'; those",
        ),
        (OBJECTIVES, {"latency_ms": 0.0}, "targets must be positive, got 0.0 for latency_ms"),
        (OBJECTIVES[1:2], {"latency_ms": 1.0}, "targets are for costs beside a score"),
    ],
)
def test_targets_that_fit_no_objective_are_refused(objectives, targets, message):
    with pytest.raises(ValueError, match=message):
        SoftConstraints.of(objectives, targets)
