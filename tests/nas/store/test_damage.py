"""A store that is damaged, and one that is taken away while it is written."""

import contextlib
import shutil
import sqlite3

import pytest

from nas.errors import MachineError, RunFolderError
from nas.store.damage import check_shape
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.store.run_store import RunStore
from nas.values.objectives import Violation
from nas.values.records import Candidate, Failure, Observation, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=3, n_values=4)


def candidate(*genes):
    return Candidate.create(SPACE, SPACE.genotype(genes), run_seed=7)


A, B = candidate(0, 1, 2), candidate(3, 3, 3)


@pytest.fixture
def path(tmp_path):
    """The folder of a small run that has ended."""
    with RunFolder.write(tmp_path / "run") as folder:
        store = folder.store
        store.set_fact("name", "small")
        store.set_fact("objectives", [{"metric": "gain", "direction": "maximize"}])
        store.set_fact("constraints", [{"metric": "gain", "min": 0.0, "max": None}])
        store.set_fact("reference_point", {"gain": 0.0})
        store.set_fact("usage", {"hours": 1.0, "gpu_hours": 0.0, "n_trained": 2})
        store.add_batch([A, B], batch=0)
        store.add_observations([Observation(A.id, "function:gain", 1, "gain", 0.9, {"rounds": [0.9, 0.8]})])
        store.add_verdict(A.id, RecordState.COMPLETE)
        store.add_verdict(B.id, RecordState.INFEASIBLE, violations=[Violation("gain", -1.0, 0.0, None, 1.0)])
    return tmp_path / "run"


def test_the_run_itself_is_read(path):
    assert [record.state for record in Run.load(path).records] == [RecordState.COMPLETE, RecordState.INFEASIBLE]


def edited(path, sql, *values):
    with contextlib.closing(sqlite3.connect(path / "store.sqlite")) as db:
        db.execute(sql, values)
        db.commit()


DAMAGE = [
    ("UPDATE facts SET value = ? WHERE key = 'objectives'", "{[garbage"),
    ("UPDATE facts SET value = ? WHERE key = 'objectives'", "5"),
    ("UPDATE facts SET value = ? WHERE key = 'objectives'", '[{"metric": "gain", "direction": "sideways"}]'),
    ("UPDATE facts SET value = ? WHERE key = 'constraints'", '[{"metric": "gain"}]'),
    ("UPDATE facts SET value = ? WHERE key = 'constraints'", '[{"metric": "gain", "min": "much"}]'),
    ("UPDATE facts SET value = ? WHERE key = 'reference_point'", '{"gain": NaN}'),
    ("UPDATE facts SET value = ? WHERE key = 'reference_point'", '{"gain": "0"}'),
    ("UPDATE facts SET value = ? WHERE key = 'usage'", '{"hours": true}'),
    ("UPDATE facts SET value = ? WHERE key = 'usage'", '{"hours": 1.0, "gpu_hours": 0.0, "n_trained": 2, "more": 1}'),
    ("UPDATE facts SET value = ? WHERE key = 'name'", "[" * 5000),
    ("UPDATE facts SET value = ? WHERE key = 'name'", b"\xff\xfe"),
    ("UPDATE verdicts SET state = ?", "bogus"),
    ("UPDATE verdicts SET state = ?", 7),
    ("UPDATE verdicts SET detail = ?", "null"),
    ("UPDATE verdicts SET detail = ?", '{"violations": [], "failure": {"stage": 1}, "pruning": null}'),
    ("UPDATE verdicts SET detail = ?", '{"violations": [], "failure": null, "pruning": null, "earlier_failures": 3}'),
    ("UPDATE verdicts SET attempts = ?", "many"),
    ("UPDATE asks SET role = ?", "extra"),
    ("UPDATE asks SET genes = ?", "[1, 2"),
    ("UPDATE asks SET genes = ?", '["1"]'),
    ("UPDATE asks SET seed = ?", "seed"),
    ("UPDATE asks SET description = ?", b"\x00\xff"),
    ("UPDATE observations SET value = ?", "much"),
    ("UPDATE observations SET value = ?", float("inf")),
    ("UPDATE observations SET conditions = ?", "[]"),
    ("UPDATE observations SET conditions = ?", '{"rounds": "0.9"}'),
    ("UPDATE observations SET conditions = ?", '{"spread": []}'),
    ("DROP TABLE asks",),
    ("DROP TABLE verdicts",),
    ("DROP TABLE observations",),
    ("DROP TABLE facts",),
    ("ALTER TABLE asks RENAME COLUMN genes TO jeans",),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: " ".join(map(str, damage))[:70])
def test_whatever_is_damaged_is_one_error_that_names_the_file_and_what_can_be_saved(path, damage):
    edited(path, *damage)
    with pytest.raises(RunFolderError, match=r"store\.sqlite is damaged.* What can be saved: weights and config\.yaml"):
        Run.load(path)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", bytes(4096), b"no database at all" * 200])
@pytest.mark.parametrize("read", [Run.load, RunFolder.write])
def test_a_file_that_is_no_store_is_never_a_new_start(path, content, read):
    store = path / "store.sqlite"
    store.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"store\.sqlite is damaged, or not a store of a run"):
        read(path)
    assert store.read_bytes() == content


def test_a_store_with_torn_pages_is_not_written_to(path):
    store = path / "store.sqlite"
    content = bytearray(store.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start + 8 : start + 200] = b"\xa5" * 192
    store.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"store\.sqlite is damaged"):
        RunFolder.write(path)
    with pytest.raises(RunFolderError, match=r"store\.sqlite is damaged"):
        Run.load(path)


def test_a_truncated_store_is_damaged(path):
    store = path / "store.sqlite"
    store.write_bytes(store.read_bytes()[:8192])
    for read in (Run.load, RunFolder.write):
        with pytest.raises(RunFolderError, match=r"store\.sqlite is damaged"):
            read(path)


def test_a_missing_batch_is_damage(path):
    edited(path, "DELETE FROM batches")
    with RunFolder.write(path) as folder, pytest.raises(RunFolderError, match="is damaged"):
        folder.store.n_requested(0)


def test_after_an_error_the_run_can_be_opened_again(path):
    edited(path, "UPDATE verdicts SET state = 'bogus' WHERE candidate = ?", A.id)
    with pytest.raises(RunFolderError):
        Run.load(path)
    edited(path, "UPDATE verdicts SET state = 'complete' WHERE candidate = ?", A.id)
    RunFolder.write(path).close()


def test_another_program_that_writes_is_no_damage(path, monkeypatch):
    with contextlib.closing(sqlite3.connect(path / "store.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *given, **options: connect(*given, timeout=0.01, **options))
        with pytest.raises(RunFolderError, match=r"store\.sqlite is in use by another program"):
            Run.load(path)


@pytest.mark.parametrize(
    ("value", "shape", "fits"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1.0, int, False),
        (10**400, int, True),
        ([], [int], True),
        ([1, "2"], [int], False),
        ({"a": 1}, {str: float}, True),
        ({"a": None}, {"a": (float, None)}, True),
        ({}, {"a": (float, None)}, True),
        ({}, {"a": float}, False),
        ([], {"a": float}, False),
        ("", object, True),
    ],
)
def test_shapes(value, shape, fits):
    if fits:
        check_shape("x", value, shape)
    else:
        with pytest.raises(ValueError, match="x is not what a run stores there"):
            check_shape("x", value, shape)


# Taken away while it is written


def removed(path):
    shutil.rmtree(path)


def renamed(path):
    path.rename(path.with_name("elsewhere"))


def store_removed(path):
    (path / "store.sqlite").unlink()


def store_renamed(path):
    (path / "store.sqlite").rename(path / "old.sqlite")


def store_replaced(path):
    shutil.copy(path / "store.sqlite", path / "copy")
    (path / "copy").replace(path / "store.sqlite")


def weights_removed(path):
    (path / "weights").rmdir()


def lock_removed(path):
    (path / ".lock").unlink()


def folder_read_only(path):
    path.chmod(0o555)


def store_read_only(path):
    (path / "store.sqlite").chmod(0o444)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed, "is gone: it was deleted, renamed or replaced"),
        (renamed, "is gone: it was deleted, renamed or replaced"),
        (store_removed, r"store\.sqlite is gone"),
        (store_renamed, r"store\.sqlite is gone"),
        (store_replaced, r"store\.sqlite is another one now"),
        (weights_removed, "weights is gone"),
        (lock_removed, r"\.lock is gone"),
        (folder_read_only, "run was made read-only .* make it writable again"),
        (store_read_only, r"store\.sqlite was made read-only"),
    ],
)
def test_the_next_write_notices_that_a_runs_files_are_not_where_they_were(path, change, message):
    folder = RunFolder.write(path)
    folder.store.set_fact("name", "still here")
    change(path)
    writes = [
        lambda store: store.set_fact("name", "gone"),
        lambda store: store.add_batch([candidate(1, 1, 1)], batch=1),
        lambda store: store.add_observations([Observation(A.id, "x", 1, "y", 1.0)]),
        lambda store: store.log_test_reading(A.id, "x"),
        lambda store: store.check_in_place(),
    ]
    for write in writes:
        with pytest.raises(MachineError, match=message):
            write(folder.store)
    folder.close()
    if path.exists():
        path.chmod(0o755)


def test_what_was_only_renamed_is_not_lost(path):
    folder = RunFolder.write(path)
    folder.store.set_fact("name", "before")
    renamed(path)
    with pytest.raises(MachineError):
        folder.store.set_fact("name", "after")
    folder.close()
    assert Run.load(path.with_name("elsewhere")).name in ("before", "after")


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("database or disk is full", "make room on that disk"),
        ("disk I/O error", "see whether that disk is failing"),
        ("attempt to write a readonly database", "make that file system writable"),
    ],
)
def test_a_store_that_cannot_be_written_is_the_machines_fault_and_nothing_of_it_is_half(path, says, advice):
    class FailingConnection:
        def __init__(self, db):
            self.db = db

        def execute(self, sql, *values):
            if sql == "COMMIT":
                raise sqlite3.OperationalError(says)
            return self.db.execute(sql, *values)

        def executemany(self, sql, values):
            return self.db.executemany(sql, values)

        def close(self):
            self.db.close()

    with RunStore(path / "store.sqlite") as store:
        store._db = FailingConnection(store._db)
        with pytest.raises(MachineError, match=rf"store\.sqlite cannot be written: .*{says}.* {advice}"):
            store.add_observations([Observation(B.id, "x", 1, "y", value) for value in (1.0, 2.0)])
    with RunStore(path / "store.sqlite") as store:
        assert store.observations(B.id) == []


# Asked anew


def test_a_failure_that_is_asked_for_anew_stays_in_the_record(path):
    failure = Failure("training", "loss became NaN", "Traceback ...")
    c = candidate(1, 1, 1)
    with RunFolder.write(path) as folder:
        store = folder.store
        store.add_batch([c], batch=1)
        store.add_verdict(c.id, RecordState.FAILED, attempts=2, failure=failure)
        store.reopen([store.record(c.id)])
        open_again = store.record(c.id)
        assert (open_again.state, open_again.attempts, open_again.failure) == (RecordState.ASKED, 2, None)
        assert open_again.earlier_failures == (failure,)
        assert [candidate for candidate, _ in store.endings()] == [A.id, B.id]
        store.add_batch([candidate(2, 2, 2)], batch=2)
        store.add_verdict(c.id, RecordState.FAILED, attempts=3, failure=failure)
        assert store.endings()[-1] == (c.id, 3)  # after all who were asked for until then
        store.reopen([store.record(c.id)])
        store.add_verdict(c.id, RecordState.COMPLETE, attempts=4)
        assert store.record(c.id).earlier_failures == (failure, failure)
        with pytest.raises(sqlite3.IntegrityError):
            store.add_verdict(c.id, RecordState.FAILED)


def test_only_failures_are_asked_for_anew(path):
    with RunFolder.write(path) as folder:
        folder.store.reopen(folder.store.records())
        assert [r.state for r in folder.store.records()] == [RecordState.COMPLETE, RecordState.INFEASIBLE]
