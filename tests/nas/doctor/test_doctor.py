import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from filelock import FileLock
from typer.testing import CliRunner

import nas
from nas.cli.app import app
from nas.doctor import machine
from nas.doctor.findings import Health, ok
from nas.doctor.machine import look_at_machine
from nas.doctor.runs import look_at_run
from nas.errors import RunFolderError
from nas.training.convolution_scan import Finding, Verdict, few_kinds


@pytest.fixture
def run(tiny_run, tmp_path):
    """A finished run with the artifacts beside it, to be broken."""
    shutil.copytree(tiny_run.parent, tmp_path / "runs")
    return tmp_path / "runs" / "tiny"


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def findings(path):
    return {finding.name: finding for finding in look_at_run(path)}


def test_a_whole_run_is_sound(run):
    found = findings(run)
    assert list(found) == ["store", "progress", "weights", "configuration", "artifacts"]
    assert {finding.health for finding in found.values()} == {Health.OK}
    assert found["progress"].text == "finished"
    assert "12 candidates" in found["store"].text


def damage_weights(run):
    path = run / "weights" / f"{nas.load_run(run).knee.id}.quick.safetensors"
    flip(path)
    return path


def remove_weights(run):
    path = run / "weights" / f"{nas.load_run(run).knee.id}.quick.safetensors"
    path.unlink()
    return path


def damage_artifact(run):
    path = next((run.parent / "artifacts").glob("teacher-logits-*.npy"))
    flip(path)
    return path


def damage_configuration(run):
    (run / "config.yaml").write_text("name: [")
    return run / "config.yaml"


def truncate_store(run):
    os.truncate(run / "store.sqlite", 5000)
    return run / "store.sqlite"


def orphan_readings(run):
    with sqlite3.connect(run / "store.sqlite") as database:
        database.execute("DELETE FROM asks WHERE number = 3")
    database.close()
    return "never asked for"


BREAKAGES = {
    "weights": (damage_weights, "nas retrain"),
    "weights missing": (remove_weights, "nas retrain"),
    "artifacts": (damage_artifact, "the next search makes them again"),
    "configuration": (damage_configuration, "copy the configuration"),
    "store": (truncate_store, "keep a copy"),
    "store rows": (orphan_readings, "keep a copy"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_named_with_what_to_do(run, name):
    breakage, remedy = BREAKAGES[name]
    what = breakage(run)
    found = findings(run)
    bad = {finding.name for finding in found.values() if finding.health is Health.BROKEN}
    assert bad == {name.split()[0]}
    finding = found[name.split()[0]]
    assert str(what) in finding.text or str(what) in finding.remedy
    assert remedy in finding.remedy


def test_a_run_that_is_written_to_and_one_that_is_not(run):
    with FileLock(run / ".lock"):
        script = "import sys; from nas.doctor.runs import look_at_run; from pathlib import Path\n"
        script += "print([f.text for f in look_at_run(Path(sys.argv[1])) if f.name == 'progress'])"
        output = subprocess.run([sys.executable, "-c", script, run], capture_output=True, text=True, check=True).stdout
    assert "a process is writing to it now" in output
    with sqlite3.connect(run / "store.sqlite") as database:
        database.execute("UPDATE facts SET value = '0' WHERE key = 'finished_size'")
    database.close()
    assert "--resume" in findings(run)["progress"].remedy


def test_looking_changes_nothing(run):
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    findings(run)
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RunFolderError, match="is not the folder of a run"):
        findings(tmp_path)


def test_this_machine_works(tmp_path):
    found = {finding.name: finding for finding in look_at_machine(tmp_path)}
    assert not [finding for finding in found.values() if finding.health is Health.BROKEN]
    assert found["export"].health is Health.OK
    assert "CPUExecutionProvider" in found["onnxruntime"].text
    assert {"pareto-nas", "torch", "processor", "memory", "disk"} <= found.keys()
    assert "CUDA" in found or "cuda:0" in found


def test_what_does_not_work_is_said_with_its_reason(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no exporter\nhere")

    monkeypatch.setattr(machine, "write_onnx", fail)
    monkeypatch.setattr(machine, "_PACKAGES", ("no-such-package",))
    monkeypatch.setattr(machine, "_LEAST_FREE_BYTES", 1 << 60)
    found = {finding.name: finding for finding in look_at_machine(tmp_path)}
    broken = {name for name, finding in found.items() if finding.health is Health.BROKEN}
    assert broken >= {"no-such-package", "export", "disk"}
    assert found["export"].text == "RuntimeError: no exporter here"
    assert "--run-dir" in found["disk"].remedy


@pytest.mark.gpu
def test_cuda_graphs_are_tried(tmp_path):
    found = {finding.name: finding for finding in look_at_machine(tmp_path)}
    assert found["cuda:0"].health is found["cuda:0 graphs"].health is Health.OK


def test_the_command_ends_with_1_if_something_is_broken(run):
    assert CliRunner().invoke(app, ["doctor", str(run)]).exit_code == 0
    path = damage_artifact(run)
    result = CliRunner().invoke(app, ["doctor", str(run)])
    assert result.exit_code == 1
    assert str(path) in result.output.replace("\n", "")
    assert "are broken" in result.output


def test_gradients_are_scanned_on_demand(tmp_path, monkeypatch):
    kinds = few_kinds()[:2]
    assert machine.scan_gradients(kinds) == ok("gradients", "right for all 2 kinds of convolutions")
    bad, good = Finding(kinds[0], Verdict.HANG, None), Finding(kinds[1], Verdict.RIGHT, 0.0)
    monkeypatch.setattr(machine, "scan", lambda kinds: (bad, good))
    found = machine.scan_gradients()
    assert found.health is Health.BROKEN
    assert "1 of 2 kinds of convolutions do not train: hang for ConvolutionKind(" in found.text
    assert "ONEDNN_MAX_CPU_ISA=SSE41" in found.remedy
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["doctor", "--scan"])
    assert result.exit_code == 1
    assert " broken  gradients: 1 of 2 kinds" in result.output
    assert "gradients:" not in CliRunner().invoke(app, ["doctor"]).output
