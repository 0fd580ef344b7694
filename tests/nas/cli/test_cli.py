"""The command line: every command, on one tiny run."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import onnx
import pytest

import nas
from nas import api
from nas.torch_tools import load_weights
from search_spaces import NasBench201, SegmentationCell
from tests.nas.cli.faults import assert_fault

ROOT = Path(__file__).parents[3]


FACES = """\
name: faces
data: {kind: synthetic_faces, image_size: 32, n_train: 16, n_validation: 8}
teacher: {kind: unet, width: 4, recipe: {epochs: 1, batch_size: 8}}
search_space: {kind: segmentation_cell, n_cells: 1, n_branches: 1, decoder_widths: [8, 16], encoder_width: 8}
pretraining: {epochs: 1, batch_size: 8}
training: {device: cpu, epochs: 1, batch_size: 8}
objectives: [{metric: mean_iou, direction: maximize}]
controller: {kind: random, n_candidates: 1}
tensorboard: false
"""


def test_teacher_and_encoder_are_made_once_and_found_by_the_search(command, tmp_path):
    config, run = tmp_path / "faces.yaml", tmp_path / "runs" / "faces"
    config.write_text(FACES)
    code, out, err = command("pretrain", config, "--run-dir", run)
    assert (code, err) == (0, "")
    assert "Training the teacher (unet, 1 epoch)" in out
    assert "Training the encoder that all candidates start from" in out
    path = Path(re.search(r"^encoder (.*): [\d,]+ parameters$", out, re.MULTILINE)[1])
    space = SegmentationCell(n_cells=1, n_branches=1, decoder_widths=(8, 16), encoder_width=8)
    encoder = space.build_for_pretraining(in_channels=3, n_classes=8, seed=0).encoder
    load_weights(encoder, path)
    assert f"{sum(p.numel() for p in encoder.parameters()):,} parameters" in out
    assert "validation mean_iou 0." in out
    assert [entry.name for entry in run.parent.iterdir()] == ["artifacts"]
    code, out, err = command("teacher", config, "--run-dir", run)
    assert (code, err) == (0, "")
    assert "Training" not in out
    assert re.search(r"^teacher .*/artifacts/teacher-\w+\.safetensors: [\d,]+ parameters$", out, re.MULTILINE)
    code, out, err = command("search", config, "--run-dir", run)
    assert (code, err) == (0, "")
    assert "Training the" not in out


def test_what_a_configuration_does_not_have_cannot_be_made(command, tmp_path):
    config = tmp_path / "faces.yaml"
    config.write_text("".join(line for line in FACES.splitlines(True) if line[:3] not in ("tea", "pre")))
    for what, section in (("teacher", "teacher"), ("pretrain", "pretraining")):
        code, _, err = command(what, config, "--run-dir", tmp_path / "runs" / "faces")
        assert (code, err.strip()) == (2, f"the configuration of 'faces' has no {section} section")


def test_show_draws_a_network(command, run, tmp_path):
    file = tmp_path / "network.svg"
    code, out, err = command("show", run.path, "--candidate", run.front[0].id[:6], "--draw", file)
    assert (code, out.strip(), err) == (0, str(file), "")
    space = NasBench201(width=4, cells_per_stage=1)
    assert file.read_text(encoding="utf-8") == space.draw(run.front[0].candidate.genotype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draw", "x.svg"), "--draw needs --candidate ID, --knee or --prefer: the network to draw"),
        (("--all", "--candidate", "a"), "--all shows every record and --candidate one: leave one of them out"),
    ],
)
def test_show_refuses_options_that_do_not_go_together(command, run, arguments, message):
    code, _, err = command("show", run.path, *arguments)
    assert (code, err.strip()) == (2, message)


def test_show_says_where_it_cannot_draw(command, run, tmp_path):
    file = tmp_path / "gone" / "network.svg"
    code, _, err = command("show", run.path, "--candidate", run.front[0].id, "--draw", file)
    assert code == 2
    assert err.startswith(f"{file} cannot be written: ")


def test_show_prints_the_front_and_what_there_is_to_say(command, run):
    code, out, err = command("show", run.path)
    assert (code, err) == (0, "")
    assert "Pareto front of tiny" in out
    front = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert front == [record.id for record in run.front]
    (knee,) = [line for line in out.splitlines() if f"{run.knee.id} *" in line]
    assert f"{run.knee.metrics['latency_ms']:.3g} ms" in knee
    assert "12 candidates: " in out
    assert "Teacher resnet: 5,142 parameters" in out


def test_show_all_prints_every_record(command, run):
    code, out, _ = command("show", run.path, "--all")
    assert code == 0
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert rows == [record.id for record in run.records]
    assert "latency_ms = " in out  # why one is infeasible


def test_show_json_is_a_list_of_front_members(command, run):
    code, out, _ = command("show", run.path, "--format", "json")
    assert code == 0
    members = json.loads(out)
    assert [member["candidate"] for member in members] == [record.id for record in run.front]
    for member, record in zip(members, run.front, strict=True):
        assert member["state"] == "complete"
        assert {metric: member[metric] for metric in record.metrics} == record.metrics
        assert tuple(member["genotype"]) == record.candidate.genotype.genes
        assert member["description"] == record.candidate.description
    everybody = json.loads(command("show", run.path, "--format", "json", "--all")[1])
    assert [member["candidate"] for member in everybody] == [record.id for record in run.records]
    assert {member["state"] for member in everybody} == {"complete", "infeasible"}


def test_show_csv_parses(command, run):
    code, out, _ = command("show", run.path, "--format", "csv", "--all")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["candidate"] for row in rows] == [record.id for record in run.records]
    for row, record in zip(rows, run.records, strict=True):
        assert float(row["latency_ms"]) == record.metrics["latency_ms"]
        assert (row["accuracy"] == "") == ("accuracy" not in record.metrics)
        assert row["on_front"] == str(record.id in {member.id for member in run.front})


def test_plot_names_the_files_that_it_draws(command, copy):
    shutil.rmtree(copy / "plots")
    code, out, _ = command("plot", copy)
    assert code == 0
    files = [Path(line) for line in out.splitlines()]
    assert [file.name for file in files] == ["front_accuracy_over_latency_ms.png", "hypervolume.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_retrain_shows_the_test_score_beside_the_quick_one(command, copy):
    member = nas.load_run(copy).front[0]
    code, out, err = command("retrain", copy, "--candidate", member.id[:6], "--epochs", 2)
    assert (code, err) == (0, "")
    record = nas.load_run(copy).find(member.id)
    assert f"test accuracy {record.retrained['accuracy']:.4g}" in out
    assert f"(validation after quick training: {member.metrics['accuracy']:.4g})" in out
    assert record.metrics == member.metrics
    assert record.retrained_conditions["epochs"] == 2
    assert "test accuracy" in command("show", copy)[1]
    first = json.loads(command("show", copy, "--format", "json")[1])[0]
    assert first["test_accuracy"] == record.retrained["accuracy"]
    _, out, _ = command("export", copy, "--candidate", member.id)
    assert out.strip().endswith(f"{member.id}.retrained.onnx")


def test_export_prints_the_file(command, copy, tmp_path):
    target = tmp_path / "new folder" / "network.onnx"
    code, out, err = command("export", copy, "--knee", "--output", target)
    assert (code, out.strip()) == (0, str(target))
    for text in (
        "taken: the knee of",
        "image (B, C, H, W) float32",
        "classes  t_shirt",
        "compared with torch on",
        "import",
    ):
        assert text in err
    properties = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
    assert properties["candidate"] == nas.load_run(copy).knee.id


def test_a_dry_run_says_what_it_will_cost_and_writes_nothing(command, tiny_config, tmp_path):
    code, out, err = command("search", tiny_config, "--run-dir", tmp_path / "run", "--dry-run")
    assert (code, err) == (0, "")
    first, *_ = out.splitlines()
    assert first == "candidates   12 at most, 1 trained at a time"
    assert "altogether   about " in out
    assert list(tmp_path.iterdir()) == []


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(command, tiny_config, tmp_path):
    options = (tiny_config, "--run-dir", tmp_path / "runs" / "run", "--set")
    code, out, _ = command("search", *options, "budget.n_trained=2")
    assert code == 0
    assert "The budget (n_trained 2) is used up." in out
    code, out, _ = command("search", *options, "budget.n_trained=2")
    assert code == 0
    assert "is finished already" in out
    assert_fault(command("search", *options, "budget.n_trained=3"), "budget.n_trained: 2 -> 3", "pass --resume")
    code, out, _ = command("search", *options, "budget.n_trained=3", "--resume")
    assert "The budget (n_trained 3) is used up." in out
    assert_fault(
        command("search", tiny_config, "--run-dir", tmp_path / "gpu", "--set", "budget.gpu_hours=1"),
        "budget.gpu_hours: no training of this run uses a GPU",
    )


def test_validate_says_what_it_read(command, tiny_config):
    code, out, _ = command("validate", tiny_config)
    assert code == 0
    assert out.splitlines() == [
        f"{tiny_config}: valid. Run 'tiny': 2 objectives, search space nasbench201, controller nsga2.",
        "The files of the data were not looked at: --data does that.",
    ]


def test_validate_looks_for_the_teachers_file(command, tiny_config):
    found = command("validate", tiny_config, "--set", "teacher={kind: onnx, path: gone.onnx}")
    assert_fault(found, "teacher.path must be a file, got gone.onnx: there is none")


def test_a_finished_run_is_said_to_be_finished(command, tiny_config, run, monkeypatch):
    monkeypatch.setattr(api.searching, "Search", None)  # nothing may be searched
    for options in ((), ("--resume",)):
        code, out, _ = command("search", tiny_config, "--run-dir", run.path, *options)
        assert code == 0
        assert "is finished already (12 candidates)" in out
        assert run.knee.id in out


def test_a_finished_run_is_extended(command, tiny_config, copy, run):
    code, out, _ = command("search", tiny_config, "--run-dir", copy, "--resume", "--set", "controller.n_generations=4")
    assert code == 0
    extended = nas.load_run(copy)
    assert len(extended.records) == 16
    assert [r.candidate for r in extended.records[:12]] == [r.candidate for r in run.records]
    lines = [line.split()[0] for line in out.splitlines() if "/16" in line]
    assert lines == ["13/16", "14/16", "15/16", "16/16"]
    assert "Training the teacher" not in out


def test_search_shows_each_candidate_and_where_things_are(command, tiny_config, tmp_path):
    path = tmp_path / "run"
    options = ("--set", "controller.n_generations=1", "--set", "tensorboard=true", "--set", "data.n_train=16")
    code, out, err = command("search", tiny_config, "--run-dir", path, *options)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if "/4 " in line] == ["1/4", "2/4", "3/4", "4/4"]
    assert str(path / "store.sqlite") in out
    assert list((path / "tensorboard").iterdir())
    assert (path / "plots" / "hypervolume.png").exists()
