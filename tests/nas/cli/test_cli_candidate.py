"""`nas show RUN --candidate ID`: one record whole."""

import csv
import dataclasses
import io
import json
import shlex
import shutil

import pytest
from typer.testing import CliRunner

import nas
from nas.analysis.record import record_lines, record_values
from nas.cli.app import app
from nas.values.records import Failure, Pruning, RecordState


@pytest.fixture
def run(tiny_run):
    return nas.load_run(tiny_run)


def shown(run, *arguments, candidate):
    result = CliRunner().invoke(app, ["show", str(run.path), "--candidate", candidate, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_record_is_shown_whole(run):
    record = run.knee
    text = shown(run, candidate=record.id[:8])
    lines = text.splitlines()
    assert lines[0] == f"candidate {record.id} of tiny: complete, on the front, the knee"
    assert f"  network   {record.candidate.description}" in lines
    latency = lines.index(f"latency_ms  {record.metrics['latency_ms']:.3g} ms")
    assert lines[latency + 1].startswith(
        "  device fake, runtime none: computed, not measured, precision float32, batch_size 1, "
    )
    assert f"loss by epoch  {record.epoch_losses[0]:.4g}" in lines
    assert f"weights (quick)  {run.path}/weights/{record.id}.quick.safetensors" in lines
    assert "MACs, " in text  # the totals below the modules
    assert "classifier.4" in text


def test_a_record_as_json_holds_the_same(run):
    record = run.front[0]
    values = json.loads(shown(run, "--format", "json", candidate=record.id))
    assert {metric: reading["value"] for metric, reading in values["metrics"].items()} == record.metrics
    assert values["metrics"]["latency_ms"]["conditions"] == record.conditions["latency_ms"]
    assert values["epoch_losses"] == list(record.epoch_losses)
    assert tuple(values["genotype"]) == record.candidate.genotype.genes
    costs = values["costs"]
    assert costs["n_params"] == sum(module["n_params"] for module in costs["modules"])
    assert costs["n_macs"] == sum(module["n_macs"] for module in costs["modules"]) > 0
    assert {module["time_share"] for module in costs["modules"]} == {None}  # counted, not run
    assert values["costs_problem"] is None


def test_a_record_as_csv_is_its_row_of_all(run):
    record = run.records[1]
    (row,) = csv.DictReader(io.StringIO(shown(run, "--format", "csv", candidate=record.id)))
    everybody = CliRunner().invoke(app, ["show", str(run.path), "--all", "--format", "csv"]).stdout
    assert row == list(csv.DictReader(io.StringIO(everybody)))[1]


def test_the_commands_that_are_shown_run(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "a run")
    copy = nas.load_run(tmp_path / "a run")
    commands = record_values(copy, copy.knee)["commands"]
    assert list(commands) == ["retrain", "export", "profile"]
    for command in (commands["export"], f"{commands['profile']} --json"):
        program, *arguments = shlex.split(command)
        assert program == "nas"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    assert shlex.split(commands["retrain"])[1:] == [
        *("retrain", str(copy.path), "--candidate", copy.knee.id, "--epochs", "30")
    ]


def test_commands_that_cannot_be_given_are_left_out(run):
    (infeasible, *_) = (record for record in run.records if record.state is RecordState.INFEASIBLE)
    assert list(record_values(run, infeasible)["commands"]) == ["profile"]
    trusted = record_values(run, run.knee, trust_code=True)["commands"]
    assert all(command.endswith(" --trust-code") for command in trusted.values())


def test_why_a_record_has_no_number_is_shown(run):
    failure = Failure("training", "ZeroDivisionError: none", "Traceback:\n  here")
    earlier = Failure("latency", "too slow", "")
    failed = dataclasses.replace(
        run.knee, state=RecordState.FAILED, metrics={}, failure=failure, earlier_failures=(earlier,)
    )
    lines = list(record_lines(run, failed))
    assert "  reason    training: ZeroDivisionError: none" in lines
    at = lines.index("failed in latency: too slow")
    assert lines[at + 1 : at + 4] == ["failed in training: ZeroDivisionError: none", "  Traceback:", "    here"]
    pruned = dataclasses.replace(
        run.knee, state=RecordState.PRUNED, failure=None, pruning=Pruning("stage 1", "accuracy", 0.25)
    )
    assert record_values(run, pruned)["pruning"] == {"stage": "stage 1", "metric": "accuracy", "score": 0.25}
    assert "  reason    stopped in stage 1, below the other candidates: accuracy 0.25" in record_lines(run, pruned)


def test_spread_and_test_scores_are_shown(run):
    conditions = {"accuracy": {"rounds": [0.2, 0.4], "spread": 0.1414, "device": "cpu"}}
    tested = dataclasses.replace(
        run.knee, conditions=conditions, retrained={"accuracy": 0.75}, retrained_conditions={"epochs": 30}
    )
    lines = list(record_lines(run, tested))
    assert f"accuracy  {tested.metrics['accuracy']:.4g} ± 0.14" in lines
    assert lines[lines.index("test accuracy  0.75") + 1] == "  epochs 30"


def test_a_run_without_networks_says_so(tmp_path):
    configuration = {
        "name": "grid",
        "search_space": {"kind": "integers", "n_genes": 2, "n_values": 2},
        "metrics": {"cost": {"function": f"{__name__}:cost"}},
        "objectives": [{"metric": "cost", "direction": "minimize"}],
        "controller": {"kind": "random", "n_candidates": 1},
        "execution": {"kind": "serial", "isolated": False},
        "tensorboard": False,
    }
    grid = nas.run_search(configuration, tmp_path / "run", trust_code=True)
    text = shown(grid, candidate=grid.records[0].id)
    assert text.splitlines()[-1] == "costs by module: not known: this run builds no networks"
    assert "nas retrain" not in text


def cost(subject):
    return float(sum(subject.genotype.genes))


def test_a_network_that_cannot_be_built_leaves_the_rest(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("kind: nasbench201", "kind: my_spaces:Mine"))
    copy = nas.load_run(tmp_path / "run")
    text = shown(copy, candidate=copy.knee.id)
    assert "costs by module: not known: " in text
    assert "--trust-code" in text
    assert f"latency_ms  {copy.knee.metrics['latency_ms']:.3g} ms" in text
