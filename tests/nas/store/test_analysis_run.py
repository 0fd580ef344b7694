"""A run as it is read: front, knee, ties, hypervolume, rows. Three candidates whose numbers can be checked by hand."""

from pathlib import Path

import pandas as pd
import pytest

from nas.analysis import Run
from nas.analysis.tables import summary_lines
from nas.errors import InputError
from nas.values.objectives import Constraint, Direction, Objective, Violation
from nas.values.records import Candidate, Failure, Record, RecordState
from search_spaces import Integers

SPACE = Integers(n_genes=1, n_values=100)
OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))


def record(number, score=None, cost=None, state=RecordState.COMPLETE, rounds=None, **more):
    metrics = {name: value for name, value in (("score", score), ("cost", cost)) if value is not None}
    conditions = {"cost": {"rounds": rounds}} if rounds else {}
    candidate = Candidate.create(SPACE, SPACE.genotype((number,)), 0)
    return Record(candidate, state, metrics, number=number, batch=0, conditions=conditions, **more)


def run(*records, **changes):
    given = {
        "path": Path("runs/x"),
        "name": "x",
        "objectives": OBJECTIVES,
        "constraints": (),
        "records": records,
        "references": (),
        "reference_point": {"score": 0.0, "cost": 10.0},
        "teacher": None,
        "finished_size": len(records),
    }
    return Run(**{**given, **changes})


A, B, C = record(0, 1.0, 2.0), record(1, 3.0, 6.0), record(2, 0.5, 4.0)
FAILED = record(3, cost=1.0, state=RecordState.FAILED, failure=Failure("training", "NaN", ""))
ASKED = record(4, state=RecordState.ASKED)


def test_the_front_is_sorted_by_the_first_objective():
    assert run(A, C, B, FAILED).front == (B, A)


def test_a_record_outside_the_bounds_when_measured_again_leaves_the_front():
    bounded = run(A, B, C, constraints=(Constraint("cost", max=5.0),))
    assert bounded.front == (A,)
    assert bounded.hypervolumes().tolist() == [8.0, 8.0, 8.0]


def test_the_hypervolume_grows_by_hand_counted_areas():
    # A covers (1 - 0) x (10 - 2) = 8; B adds (3 - 0) x (10 - 6) minus what A covers of it, 1 x 4
    assert run(C, A, FAILED, B, ASKED).hypervolumes().tolist() == [3.0, 8.0, 8.0, 16.0]
    assert run(ASKED).hypervolumes().tolist() == []
    assert run(FAILED, A).hypervolumes().tolist() == [0.0, 8.0]
    assert run(A, reference_point=None).hypervolumes().tolist() == []


def test_the_knee_is_nearest_to_the_ideal_point():
    corner = record(5, 2.9, 2.5)
    assert run(A, B, corner).knee == corner  # scaled distances 1, 1, and about 0.13
    with pytest.raises(InputError, match="the front is empty: no candidate is complete"):
        _ = run(FAILED).knee


def test_an_empty_front_says_which_bound_emptied_it():
    def outside(number, cost):
        violation = Violation("cost", cost, None, 1.0, cost - 1.0)
        return record(number, cost=cost, state=RecordState.INFEASIBLE, violations=(violation,))

    emptied = run(outside(0, 3.0), outside(1, 2.0), FAILED)
    expected = "2 of 3 candidates broke the bound on cost, which must be at most 1; the nearest had 2"
    assert emptied.why_empty() == f"the front is empty: {expected}"
    assert any(expected in line for line in summary_lines(emptied))
    with pytest.raises(InputError, match="the nearest had 2"):
        _ = emptied.knee


def test_a_member_outside_the_reference_point_is_told_in_words():
    (line,) = [line for line in summary_lines(run(A, reference_point={"score": 0.0, "cost": 2.0})) if "limit" in line]
    assert "so far out in cost (the limit is 2)" in line


def test_members_outside_the_reference_point():
    point = {"score": 1.0, "cost": 10.0}
    assert run(A, B, reference_point=point).outside_reference_point() == (A,)  # on its edge adds nothing either
    assert run(A, B, reference_point=None).outside_reference_point() == ()


def test_ties_are_members_that_noise_alone_puts_ahead():
    better = record(6, 3.1, 6.2, rounds=[5.9, 6.2, 6.4])
    ahead = record(1, 3.0, 6.0, rounds=[5.8, 6.0, 6.3])
    far = record(0, 1.0, 2.0, rounds=[1.9, 2.0, 2.1])
    assert run(far, ahead, better).ties() == {ahead.id: (better.id,)}
    assert run(A, B).ties() == {}


def test_equal_points_read_once_are_no_ties():
    twin = record(7, 1.0, 2.0)
    assert run(A, twin).front == (A, twin)
    assert run(A, twin).ties() == {}


def test_a_candidate_is_found_by_a_unique_beginning():
    everybody = run(A, B, C, references=(FAILED,))
    assert everybody.find(B.id[:8]) == B
    assert everybody.find(FAILED.id) == everybody.find(FAILED.candidate.description) == FAILED
    with pytest.raises(InputError, match="4 candidates whose ids start with ''"):
        everybody.find("")
    with pytest.raises(InputError, match="no candidate whose id starts with 'xyz'; nas show runs/x --all"):
        everybody.find("xyz")


def test_rows_are_for_pandas():
    tested = record(1, 3.0, 6.0, retrained={"score": 3.5})
    frame = pd.DataFrame(run(A, tested, FAILED).rows()).set_index("candidate")
    assert frame["state"].to_dict() == {A.id: "complete", tested.id: "complete", FAILED.id: "failed"}
    assert frame["on_front"].to_dict() == {A.id: True, tested.id: True, FAILED.id: False}
    assert frame.loc[tested.id, "test_score"] == 3.5
    assert frame["score"].isna().to_dict() == {A.id: False, tested.id: False, FAILED.id: True}


def test_counts_name_the_states_that_occur():
    assert run(A, FAILED, B).counts() == {"complete": 2, "failed": 1}
