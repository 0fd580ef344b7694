import sqlite3

import pytest

from nas.errors import RunFolderError
from nas.store.folding import CONFIRMATION, RETRAINING
from nas.store.run_folder import RunFolder
from nas.store.run_store import RunStore
from nas.values.objectives import Violation
from nas.values.records import Candidate, Failure, Observation, RecordState, Role
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=3, n_values=4)


def candidate(*genes):
    return Candidate.create(SPACE, SPACE.genotype(genes), run_seed=7)


def test_records_come_back_as_they_were_stored(tmp_path):
    a, b, c = candidate(0, 1, 2), candidate(3, 3, 3), candidate(1, 1, 1)
    violation = Violation("n_params", 300.0, None, 200.0, 0.5)
    failure = Failure("training", "loss became NaN", "Traceback ...")
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a, b], batch=0)
        store.add_batch([c], batch=1)
        store.add_observations([Observation(a.id, "training", 1, "accuracy", 0.9, {"epochs": 3})])
        store.add_verdict(a.id, RecordState.COMPLETE)
        store.add_verdict(b.id, RecordState.INFEASIBLE, violations=[violation])
        store.add_verdict(c.id, RecordState.FAILED, attempts=2, failure=failure)
    with RunStore(tmp_path / "store.sqlite", read_only=True) as store:
        first, second, third = store.records()
    assert [r.candidate for r in (first, second, third)] == [a, b, c]
    assert [(r.number, r.batch) for r in (first, second, third)] == [(0, 0), (1, 0), (2, 1)]
    assert (first.state, first.metrics, first.conditions["accuracy"]) == (
        "complete",
        {"accuracy": 0.9},
        {"epochs": 3},
    )
    assert (second.state, second.violations) == ("infeasible", (violation,))
    assert (third.state, third.failure, third.attempts) == ("failed", failure, 2)


def test_what_has_no_verdict_yet_is_asked(tmp_path):
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([candidate(0, 0, 0)], batch=0)
        assert store.records()[0].state is RecordState.ASKED


def test_a_verdict_is_final(tmp_path):
    a = candidate(0, 0, 0)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a], batch=0)
        store.add_verdict(a.id, RecordState.COMPLETE)
        with pytest.raises(sqlite3.IntegrityError):
            store.add_verdict(a.id, RecordState.FAILED)


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path):
    a, b = candidate(0, 0, 0), candidate(1, 0, 0)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a], batch=0)
        with pytest.raises(sqlite3.IntegrityError):
            store.add_batch([b, a], batch=1)
        assert [record.id for record in store.records()] == [a.id]


def test_confirmed_readings_are_shown_but_not_told_to_the_controller(tmp_path):
    a = candidate(0, 0, 0)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a], batch=0)
        store.add_observations([Observation(a.id, "device:cpu", 1, "latency_ms", 5.0)])
        store.add_observations([Observation(a.id, CONFIRMATION, 1, "latency_ms", 4.0, {"rounds": [4.0]})])
        assert store.record(a.id).metrics == {"latency_ms": 4.0}
        assert store.record(a.id, confirmed=False).metrics == {"latency_ms": 5.0}


def test_test_scores_stand_apart_and_every_reading_is_logged(tmp_path):
    a = candidate(0, 0, 0)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a], batch=0)
        store.add_observations([Observation(a.id, "training", 1, "accuracy", 0.8)])
        store.log_test_reading(a.id, "retraining, 30 epochs")
        store.add_observations([Observation(a.id, RETRAINING, 1, "accuracy", 0.9, {"split": "test"})])
        record = store.record(a.id)
        assert (record.metrics, record.retrained) == ({"accuracy": 0.8}, {"accuracy": 0.9})
        assert record.retrained_conditions == {"split": "test"}
        assert [row[:2] for row in store.test_readings()] == [(a.id, "retraining, 30 epochs")]


def test_references_stand_apart(tmp_path):
    a, b = candidate(0, 0, 0), candidate(1, 0, 0)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([a], batch=-1, role=Role.REFERENCE)
        store.add_batch([b], batch=0)
        assert [record.id for record in store.records()] == [b.id]
        assert [record.id for record in store.records(role=Role.REFERENCE)] == [a.id]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_observation_is_finite(value):
    with pytest.raises(ValueError, match="accuracy must be finite"):
        Observation("a", "training", 1, "accuracy", value)


def test_two_processes_cannot_write_to_one_run_but_one_can_read(tmp_path):
    with RunFolder.write(tmp_path / "run") as folder:
        folder.store.set_fact("name", "x")
        with pytest.raises(RunFolderError, match="in use"):
            RunFolder.write(tmp_path / "run")
        with RunFolder.read(tmp_path / "run") as reader:
            assert reader.store.fact("name") == "x"
    RunFolder.write(tmp_path / "run").close()


def test_folders_and_files_that_are_no_run_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="not the folder of a run"):
        RunFolder.read(tmp_path)
    (tmp_path / "store.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(RunFolderError, match="not a store of a run"):
        RunFolder.read(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "store.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RunFolderError, match="store version 99"):
        RunStore(tmp_path / "store.sqlite")


def test_conditions_may_be_truth_values_and_nothing(tmp_path):
    # As a measured device gives them.
    conditions = {"is_disturbed": True, "is_stable": False, "graph": None, "undisturbed_ms": 2.5}
    one = candidate(0, 1, 2)
    with RunStore(tmp_path / "store.sqlite") as store:
        store.add_batch([one], batch=0)
        store.add_observations([Observation(one.id, "device:phone", 1, "latency_ms", 12.0, conditions)])
        assert store.record(one.id).conditions == {"latency_ms": conditions}
        assert store.record(one.id).undisturbed == {"latency_ms": 2.5}
