"""The command line where something is wrong: faults of the user's, of ours, a stop."""

import os
from pathlib import Path

import pytest

from nas.store.run_folder import RunFolder
from tests.nas.cli.faults import assert_fault
from tests.nas.cli.test_stopping import start

ROOT = Path(__file__).parents[3]


# A fault of the user's: 2, one message, no traceback


def test_faults_of_a_configuration_are_named_with_their_lines(command, tiny_config, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(tiny_config.read_text().replace("latency_ms", "latencyms").replace("size: 4", "size: 7"))
    expected = (f"{path}:10: ", "Did you mean 'latency_ms'?", f"{path}:12: ", "population_size must be an even integer")
    assert_fault(command("search", path, "--run-dir", tmp_path / "run"), *expected)
    assert_fault(command("validate", path), *expected)
    assert not (tmp_path / "run").exists()


def test_files_and_folders_that_are_not_there(command, tiny_config, tmp_path):
    assert_fault(command("search", tmp_path / "none.yaml"), "none.yaml: no such file")
    for name in ("show", "plot"):
        assert_fault(command(name, tmp_path), f"{tmp_path} is not the folder of a run")
    assert_fault(command("retrain", tmp_path, "--candidate", "a", "--epochs", 1), "is not the folder of a run")
    assert_fault(command("export", tmp_path, "--knee"), "is not the folder of a run")
    (tmp_path / "file").touch()
    assert_fault(command("search", tiny_config, "--run-dir", tmp_path / "file"), "cannot be made here")


def test_data_that_is_not_there_is_named_file_by_file(command, tiny_config, tmp_path):
    options = ("--run-dir", tmp_path / "run", "--set", f"data.root={tmp_path}")
    assert_fault(command("search", tiny_config, *options), "train-images-idx3", "train-labels-idx1")
    # and once the fault is mended the same folder will do
    code, _, _ = command("search", tiny_config, "--run-dir", tmp_path / "run", "--set", "controller.n_generations=1")
    assert code == 0


def test_candidates_that_are_not_there(command, run, copy):
    assert_fault(command("retrain", run.path, "--candidate", "xyz", "--epochs", 1), "no candidate whose id starts")
    assert_fault(command("export", run.path, "--candidate", ""), "12 candidates whose ids start with ''")
    assert_fault(command("retrain", run.path, "--candidate", run.knee.id, "--epochs", 0), "epochs must be at least 1")
    assert_fault(command("export", run.path), "either --candidate ID or --knee")
    assert_fault(command("export", run.path, "--knee", "--candidate", "a"), "either --candidate ID or --knee")
    assert_fault(command("export", run.path, "--knee", "--format", "tflite"), "format must be one of onnx")
    infeasible = next(record.id for record in run.records if not record.is_complete)
    assert_fault(command("export", run.path, "--candidate", infeasible), "(infeasible) has no trained weights")
    assert_fault(command("export", copy, "--knee", "--output", copy / "config.yaml" / "x.onnx"), "cannot be written")


def test_arguments_that_do_not_exist(command, run):
    assert_fault(command("show", run.path, "--format", "xml"), "xml")
    assert_fault(command("search"), "Missing argument")
    assert_fault(command("research"), "No such command")


def test_another_configuration_is_refused_by_key(command, tiny_config, run):
    options = ("--run-dir", run.path, "--set", "training.epochs=9", "--set", "seed=5")
    for resume in ((), ("--resume",)):
        result = command("search", tiny_config, *options, *resume)
        assert_fault(result, "training.epochs: 1 -> 9", "seed: 1 -> 5")
    assert "a resumed run may change only controller.n_generations" in result[2]
    result = command("search", tiny_config, "--run-dir", run.path, "--set", "controller.n_generations=9")
    assert_fault(result, "controller.n_generations: 3 -> 9", "pass --resume")


def test_an_unfinished_run_is_not_gone_on_with_unasked(command, tiny_config, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nas.execution.worker_process.WorkerProcess.start", stop)
        code, out, _ = command("search", tiny_config, "--run-dir", tmp_path / "a run", "--set", "name=other")
    assert code == 130
    assert f"nas search {tiny_config} --run-dir '{tmp_path}/a run' --set name=other --resume" in out
    again = ("search", tiny_config, "--run-dir", tmp_path / "a run", "--set", "name=other")
    assert_fault(command(*again), "holds an unfinished run; pass --resume")
    code, out, _ = command("show", tmp_path / "a run")
    assert code == 0
    assert "4 candidates: " in out
    assert " asked" in out


def test_a_run_that_is_being_written_is_refused(command, tiny_config, copy):
    with RunFolder.write(copy):
        result = command("search", tiny_config, "--run-dir", copy, "--resume", "--set", "controller.n_generations=4")
        assert_fault(result, "is in use: another process is writing to this run")
        assert command("show", copy)[0] == 0


def test_a_store_that_is_none(command, copy):
    for extra in ("-wal", "-shm"):
        (copy / f"store.sqlite{extra}").unlink(missing_ok=True)
    (copy / "store.sqlite").write_bytes(b"not a database" * 100)
    assert_fault(command("show", copy), "not a store of a run")


# A fault of ours: 1, with its traceback


def test_a_fault_of_ours_shows_its_traceback(command, run, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("nas.analysis.tables.front_table", broken)
    code, _, err = command("show", run.path)
    assert code == 1
    assert "Traceback" in err
    assert "ZeroDivisionError: ours" in err


# As a process


@pytest.mark.parametrize("form", ["csv", "table"])
def test_a_reader_that_goes_away_is_no_fault(run, form):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("show", run.path, "--all", "--format", form, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=30)
    assert err == ""
    assert process.returncode in (0, 1)  # click's own answer to a broken pipe is 1
