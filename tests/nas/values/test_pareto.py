import itertools

import numpy as np
import pytest

from nas.values.objectives import Constraint, Direction, Objective
from nas.values.pareto import ParetoArchive, hypervolume, knee, non_dominated, pareto_front
from nas.values.records import Candidate, Record, RecordState
from search_spaces.genotype import Genotype

OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))


def record(name, score, cost, state=RecordState.COMPLETE):
    candidate = Candidate(name, Genotype("space", ()), name, 0, name)
    return Record(candidate, state, {"score": score, "cost": cost}, number=0, batch=0)


def slow_non_dominated(losses):
    return [not any((other <= point).all() and (other < point).any() for other in losses) for point in losses]


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_non_dominated_equals_the_definition(n_objectives):
    rng = np.random.default_rng(n_objectives)
    losses = rng.integers(0, 6, size=(60, n_objectives)).astype(float)  # many equal points and values
    before = losses.copy()
    np.testing.assert_array_equal(non_dominated(losses), slow_non_dominated(losses))
    np.testing.assert_array_equal(losses, before)


def test_points_with_equal_losses_all_stay():
    losses = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])
    np.testing.assert_array_equal(non_dominated(losses), [True, True, True, False])


def test_hypervolume_of_boxes():
    losses = np.array([[1.0, 3.0], [2.0, 1.0], [5.0, 0.0]])  # the last lies outside
    assert hypervolume(losses, np.array([4.0, 4.0])) == pytest.approx(3 * 1 + 2 * 3 - 2 * 1)
    assert hypervolume(losses[2:], np.array([4.0, 4.0])) == 0.0


def test_archive_equals_the_front_of_all_in_any_order():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 8, size=(50, 2))
    records = [record(f"r{i}", *map(float, row)) for i, row in enumerate(values)]
    losses = values * np.array([-1, 1])
    expected = {f"r{i}" for i, stands in enumerate(slow_non_dominated(losses)) if stands}
    for order in (records, records[::-1], [records[i] for i in rng.permutation(50)]):
        archive = ParetoArchive(OBJECTIVES)
        for member in order:
            archive.add(member)
        assert {member.id for member in archive.front} == expected
    assert {member.id for member in pareto_front(records, OBJECTIVES)} == expected


@pytest.mark.parametrize("state", [state for state in RecordState if state is not RecordState.COMPLETE])
def test_only_complete_records_stand_on_the_front(state):
    ideal = record("ideal", 1.0, 0.0, state)
    plain = record("plain", 0.5, 1.0)
    assert [member.id for member in pareto_front([ideal, plain], OBJECTIVES)] == ["plain"]
    archive = ParetoArchive(OBJECTIVES)
    assert not archive.add(ideal)
    assert archive.front == ()


def test_a_member_whose_confirmed_cost_breaks_a_bound_leaves_the_front():
    records = [record("a", 0.9, 5.1), record("b", 0.8, 4.0)]
    front = pareto_front(records, OBJECTIVES, [Constraint("cost", max=5.0)])
    assert [member.id for member in front] == ["b"]


def test_knee_is_nearest_to_the_ideal_after_scaling():
    losses = np.array([[0.0, 1000.0], [0.2, 300.0], [1.0, 0.0]])
    distances = [np.hypot(*point) for point in ((0, 1), (0.2, 0.3), (1, 0))]
    assert knee(losses) == int(np.argmin(distances)) == 1
    assert knee(np.array([[3.0, 3.0]])) == 0
    assert all(knee(np.array(order)) == 0 for order in itertools.permutations([[0.0, 1.0], [1.0, 0.0]]))


def test_knee_weighs_squares_of_scaled_distances_from_the_ideal():
    # Scaled from the ideal (2, 30): (0.02, 0.7) has the least sum, (0.3, 0.58) that of squares, (0.47, 0.465) of
    # cubes.
    losses = np.array([[2.0, 130.0], [2.2, 100.0], [5.0, 88.0], [6.7, 76.5], [12.0, 30.0]])
    assert knee(losses) == 2
    assert knee(np.array([[100.0, 1.0], [101.0, 0.4], [110.0, 0.0]])) == 1  # by ranges, not by sizes


def test_knee_ignores_an_objective_in_which_all_are_equal():
    assert knee(np.array([[7.0, 3.0], [7.0, 1.0], [7.0, 2.0]])) == 1


def test_no_points_have_no_front():
    found = non_dominated(np.empty((0, 2)))
    assert found.shape == (0,)
    assert found.dtype == bool


def test_an_archive_says_whether_a_record_stands_and_keeps_equal_ones():
    archive = ParetoArchive(OBJECTIVES)
    assert archive.add(record("a", 0.5, 2.0))
    assert archive.add(record("equal", 0.5, 2.0))
    assert not archive.add(record("worse in one", 0.5, 2.5))
    assert not archive.add(record("worse in both", 0.4, 2.5))
    assert archive.add(record("other", 0.6, 3.0))
    assert [member.id for member in archive.front] == ["a", "equal", "other"]
    losses = archive.losses
    np.testing.assert_array_equal(losses, [[-0.5, 2.0], [-0.5, 2.0], [-0.6, 3.0]])
    losses[:] = 0
    np.testing.assert_array_equal(archive.losses[0], [-0.5, 2.0])
    assert archive.add(record("better in one", 0.5, 1.5))
    assert [member.id for member in archive.front] == ["other", "better in one"]
