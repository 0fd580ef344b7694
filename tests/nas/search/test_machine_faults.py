"""Faults of the machine during a search: it stops, says why, blames nobody, and goes on once they are mended."""

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path

import pytest

import nas
from nas import files
from nas.analysis import to_json
from nas.errors import MachineError, RunFolderError
from nas.evaluation import stages
from nas.store.run_folder import RunFolder
from nas.store.run_store import RunStore
from nas.values.records import RecordState

HERE = "execution={kind: serial, isolated: false}"  # where a test can make writing fail
WRITERS = ("nas.files", "nas.torch_tools", "nas.store.artifacts", "nas.store.run_folder")


class Disk:
    """Counts writes, of files as wholes and of transactions, and is full at one of them."""

    def __init__(self, monkeypatch):
        self.n_writes, self.full_at = 0, 0
        atomic_path, transaction = files.atomic_path.__wrapped__, RunStore._transaction.__wrapped__
        for module in WRITERS:
            monkeypatch.setattr(f"{module}.atomic_path", self.counted(atomic_path))
        monkeypatch.setattr(RunStore, "_transaction", self.counted(transaction))

    def counted(self, write):
        @contextlib.contextmanager
        def counted(target):
            self.n_writes += 1
            if self.n_writes == self.full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            yield from write(target)

        return counted


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_at_any_write_stops_the_search_and_blames_nobody(
    tiny_config, tiny_run, tmp_path, monkeypatch, step
):
    disk, path = Disk(monkeypatch), tmp_path / "runs" / "run"
    nas.run_search(tiny_config, path, overrides=[HERE])
    n_in_all = disk.n_writes
    assert n_in_all > 50
    for full_at in range(1, n_in_all, step):
        shutil.rmtree(path.parent)
        disk.n_writes, disk.full_at = 0, full_at
        with contextlib.suppress(MachineError, OSError):  # at the end only what shows the search is written
            nas.run_search(tiny_config, path, overrides=[HERE])
        assert disk.n_writes >= full_at
        if RunFolder.exists(path):
            assert RecordState.FAILED not in {record.state for record in nas.load_run(path).records}
        disk.full_at = 0
        run = nas.run_search(tiny_config, path, resume=True, overrides=[HERE])
        assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)


def run_of_one_generation(tiny_config, path):
    nas.run_search(tiny_config, path, overrides=["controller.n_generations=1"])


def resumed(tiny_config, path):
    return nas.run_search(tiny_config, path, resume=True)


def assert_stopped(path, n_ended=4):
    states = [record.state for record in nas.load_run(path).records]
    assert states.count(RecordState.ASKED) == len(states) - n_ended > 0
    assert RecordState.FAILED not in states


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def test_a_truncated_file_that_trainings_read_is_made_again(tiny_config, tiny_run, tmp_path):
    path = tmp_path / "runs" / "run"
    run_of_one_generation(tiny_config, path)
    logits = max((path.parent / "artifacts").glob("teacher-logits-*.npy"))
    whole = logits.read_bytes()
    truncate(logits)
    run = resumed(tiny_config, path)
    assert logits.read_bytes() == whole
    assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)


class Scissors(stages.TrainingStage):
    """Deletes what `CUT` names when the third training starts."""

    def run(self, subject):
        cut(self)
        return super().run(subject)


def cut(stage):
    counter = Path(os.environ["CUT"] + ".count")
    counter.write_text(counter.read_text() + "x" if counter.exists() else "x")
    if counter.read_text() == "xxx":
        target = Path(os.environ["CUT"])
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        vars(stage).pop("_image_data", None)  # as in a worker that was just started


@pytest.mark.parametrize("what", ["weights", "logits"])
def test_what_is_deleted_while_candidates_are_trained_stops_the_search(
    tiny_config, tiny_run, tmp_path, monkeypatch, what
):
    path = tmp_path / "runs" / "run"
    monkeypatch.setattr("nas.assembly.training.TrainingStage", Scissors)
    target = path / "weights"
    if what == "logits":
        run_of_one_generation(tiny_config, tmp_path / "runs" / "earlier")
        target = max((path.parent / "artifacts").glob("teacher-logits-*.npy"))
    monkeypatch.setenv("CUT", str(target))
    Path(f"{target}.count").unlink(missing_ok=True)
    with pytest.raises(MachineError, match=target.name):
        nas.run_search(tiny_config, path)
    assert RecordState.FAILED not in {record.state for record in nas.load_run(path).records}
    assert any(record.state is RecordState.ASKED for record in nas.load_run(path).records)
    monkeypatch.setattr("nas.assembly.training.TrainingStage", stages.TrainingStage)
    run = resumed(tiny_config, path)
    assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)


# Functions instead of trainings


def fails_while_the_file_is_there(subject):
    if subject.genotype.genes[0] == 1 and Path(os.environ["FAULT"]).exists():
        raise ValueError("the licence server is down")
    return float(subject.genotype.genes[0] * 2 + subject.genotype.genes[1] % 3)


def fails_always_at_two(subject):
    if subject.genotype.genes[1] == 2:
        raise ZeroDivisionError("two")
    return float(sum(subject.genotype.genes))


def grid(**changes):
    return {
        "name": "grid",
        "search_space": {"kind": "integers", "n_genes": 3, "n_values": 4},
        "metrics": {
            "gain": {"function": f"{__name__}:fails_while_the_file_is_there"},
            "price": {"function": f"{__name__}:fails_always_at_two"},
        },
        "objectives": [{"metric": "gain", "direction": "maximize"}, {"metric": "price", "direction": "minimize"}],
        "reference_point": {"gain": 0.0, "price": 20.0},
        "controller": {"kind": "nsga2", "population_size": 8, "n_generations": 4},
        "execution": {"kind": "serial", "isolated": False},
        "tensorboard": False,
        **changes,
    }


def run_grid(path, scheduling="generational", **options):
    return nas.run_search(grid(scheduling=scheduling), path, trust_code=True, **options)


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """A file whose being there is the cause of failures."""
    path = tmp_path / "fault"
    path.write_text("")
    monkeypatch.setenv("FAULT", str(path))
    return path


def failed(run, text):
    return {record.id for record in run.records if record.failure and text in record.failure.reason}


class KilledError(BaseException):
    """Stands for a `kill -9`."""


@pytest.mark.parametrize("scheduling", ["generational", "steady_state"])
def test_failed_candidates_are_asked_for_anew_by_cause_and_the_replay_knows(tmp_path, fault, monkeypatch, scheduling):
    path = tmp_path / "run"
    run = run_grid(path, scheduling)
    licence, two = failed(run, "licence"), failed(run, "two")
    assert licence
    assert two
    assert to_json(run_grid(path, scheduling, resume=True)) == to_json(run)  # it is finished
    assert failed(run_grid(path, scheduling, retry_failed="LICENCE"), "licence") == licence  # the cause is still there
    fault.unlink()
    shutil.copytree(path, tmp_path / "killed")
    again = run_grid(path, scheduling, retry_failed="function:gain")
    assert failed(again, "licence") == set()
    assert failed(again, "two") >= two
    retried = [record for record in again.records if record.id in licence]
    assert {(record.attempts, len(record.earlier_failures)) for record in retried} == {(3, 2)}
    assert "licence" in retried[0].earlier_failures[0].reason
    # killed in the middle of that, it ends the same
    verdict, left = RunStore.add_verdict, [len(licence) // 2]

    def counted(store, *arguments, **options):
        if not left[0]:
            raise KilledError
        left[0] -= 1
        verdict(store, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(RunStore, "add_verdict", counted)
        run_grid(tmp_path / "killed", scheduling, retry_failed="function:gain")
    resumed = run_grid(tmp_path / "killed", scheduling, resume=True)
    assert to_json(resumed, all_records=True) == to_json(again, all_records=True)
    assert [r.attempts for r in resumed.records] == [r.attempts for r in again.records]


def test_all_failed_ones_are_asked_for_anew_where_no_cause_is_given(tmp_path, fault):
    run = run_grid(tmp_path / "run")
    n_failed = len(failed(run, ""))
    again = run_grid(tmp_path / "run", retry_failed="")
    assert sum(record.attempts == 2 for record in again.records) == n_failed
    assert (
        sum(record.attempts == 2 for record in run_grid(tmp_path / "run", retry_failed="no such").records) == n_failed
    )


def test_two_processes_cannot_write_to_one_run_and_the_first_is_not_disturbed(tmp_path, fault):
    fault.unlink()
    path = tmp_path / "run"
    with (
        RunFolder.write(path),
        pytest.raises(RunFolderError, match="is in use: another process is writing to this run"),
    ):
        run_grid(path)
    assert run_grid(path, resume=True).finished_size == 32


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path, fault, monkeypatch):
    fault.unlink()
    expected = to_json(run_grid(tmp_path / "steady"), all_records=True)
    times = iter(range(10**9))
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 86_400 * (-1) ** (n := next(times)) * (n % 400))
    jumping = run_grid(tmp_path / "jumping")
    assert to_json(jumping, all_records=True) == expected
    assert 0 <= jumping.usage.hours < 1


def folder_deleted(path):
    shutil.rmtree(path)


def store_deleted(path):
    (path / "store.sqlite").unlink()


def folder_read_only(path):
    path.chmod(0o555)


@pytest.mark.parametrize("act", [folder_deleted, store_deleted, folder_read_only])
def test_a_search_notices_within_a_candidate_that_its_files_are_taken_away(tmp_path, fault, monkeypatch, act):
    fault.unlink()
    path, evaluated = tmp_path / "run", []

    def counting(subject):
        evaluated.append(subject)
        if len(evaluated) == 5:
            act(path)
        return 1.0

    monkeypatch.setattr(f"{__name__}.fails_while_the_file_is_there", counting)
    with pytest.raises(MachineError):
        run_grid(path)
    assert len(evaluated) == 5
    if path.exists():
        path.chmod(0o755)
