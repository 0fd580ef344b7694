"""The short form of experiments/soak, and the experiment's own counting."""

import sqlite3

import pytest

from experiments.soak.__main__ import added, judged, quarters, soak
from experiments.soak.faults import FAULTS, fault_of
from nas.values.records import RecordState


def test_nothing_is_lost_repeated_or_misjudged_when_most_candidates_do_harm():
    result = soak(24, seed=3, share=0.1, timeout_s=4.0)
    assert result.items() >= {"n": 24, "lost": 0, "duplicated": 0, "misjudged": 0, "orphans": 0}.items()
    assert set(result) == {"n", "lost", "duplicated", "misjudged", "orphans", "memory_growth", "rate_change"}


def test_each_fault_meets_its_share():
    kinds = [fault_of(seed * 7919, 0.02) for seed in range(20_000)]
    for name in FAULTS:
        assert kinds.count(name) / len(kinds) == pytest.approx(0.02, rel=0.2)
    assert kinds.count(None) / len(kinds) == pytest.approx(0.84, rel=0.02)


@pytest.fixture
def store(tmp_path):
    """Write a store of four candidates that meet no fault, with verdicts and scores as told."""

    def write(verdicts, scores):
        connection = sqlite3.connect(tmp_path / "store.sqlite")
        connection.execute("CREATE TABLE asks (candidate, seed, role)")
        connection.execute("CREATE TABLE verdicts (candidate, state)")
        connection.execute("CREATE TABLE observations (candidate, metric)")
        connection.executemany("INSERT INTO asks VALUES (?, ?, 'candidate')", [(name, 0) for name in "abcd"])
        connection.executemany("INSERT INTO verdicts VALUES (?, ?)", verdicts)
        connection.executemany("INSERT INTO observations VALUES (?, 'score')", [(name,) for name in scores])
        connection.commit()
        connection.close()
        return tmp_path / "store.sqlite"

    return write


COMPLETE, FAILED = str(RecordState.COMPLETE), str(RecordState.FAILED)


@pytest.mark.parametrize(
    ("verdicts", "scores", "expected"),
    [
        ([(name, COMPLETE) for name in "abcd"], "abcd", (0, 0, 0)),
        ([(name, COMPLETE) for name in "abc"], "abc", (1, 0, 0)),  # no verdict
        ([(name, COMPLETE) for name in "abcd"], "abc", (1, 0, 0)),  # no score
        ([(name, COMPLETE) for name in "abcdd"], "abcd", (0, 1, 0)),
        ([(name, COMPLETE) for name in "abcd"], "aabcd", (0, 1, 0)),
        ([("a", FAILED), *((name, COMPLETE) for name in "bcd")], "bcd", (0, 0, 1)),
    ],
)
def test_faults_of_a_search_are_counted(store, verdicts, scores, expected):
    assert fault_of(0, 0.0) is None
    result = judged(store(verdicts, scores), 4, share=0.0)
    assert result == {"n": 4, **dict(zip(("lost", "duplicated", "misjudged"), expected, strict=True))}


def test_results_add_up_and_the_worse_change_stays():
    one = {"n": 4, "lost": 1, "duplicated": 0, "misjudged": 0, "orphans": 2, "memory_growth": -0.03, "rate_change": 0.0}
    other = {**one, "memory_growth": 0.02, "rate_change": -0.1}
    assert added({}, one) == one
    assert added(one, other) == {**one, "n": 8, "lost": 2, "orphans": 4, "rate_change": -0.1}
    assert quarters(range(12)) == (range(3), range(9, 12))
    assert quarters([5, 6, 7]) == ([5, 6], [6, 7])
