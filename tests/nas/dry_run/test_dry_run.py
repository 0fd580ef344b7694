"""The costs to expect: sums from parts that are given, and a dry run that leaves nothing behind."""

import dataclasses
from contextlib import nullcontext

import pytest

import nas
from nas import api
from nas.config import load_config
from nas.dry_run import CostEstimate, NetworkCost, TrainingCost, estimate_costs, measured
from nas.dry_run.estimate import guessed_front_size
from nas.dry_run.timing import short_steps
from nas.errors import InputError, RunFolderError
from nas.pretrained.teacher import TeacherSpec
from nas.torch_tools import save_weights
from nas.training.engine import train
from nas.training.step import _N_WARM_UP

GRID = {
    "name": "grid",
    "search_space": {"kind": "integers", "n_genes": 2, "n_values": 3},
    "metrics": {"gain": {"function": "math:floor"}},
    "objectives": [{"metric": "gain", "direction": "maximize"}],
    "controller": {"kind": "random", "n_candidates": 60, "batch_size": 5},
}
COST = TrainingCost(step_s=0.05, n_steps=100, start_s=1.0, scoring_s=2.0)
PLAIN = CostEstimate(
    n_candidates=10,
    n_at_a_time=2,
    sampled=(NetworkCost(0.5, COST), NetworkCost(1.5, COST)),
    artifacts={"teacher": 60.0, "encoder": 20.0},
    found=("features",),
    assumptions=("all is well",),
)


def test_the_sum_is_made_of_its_parts():
    assert COST.total_s == pytest.approx(8.0)
    assert PLAIN.total_s == pytest.approx(80 + 10 * (1.0 + 8.0 / 2))
    assert PLAIN.lines() == [
        "candidates   10 at most, 2 trained at a time",
        "measuring    1 s (0.5 s .. 1.5 s, 2 sampled) each",
        "training     8 s (8 s .. 8 s, 2 sampled) each (100 steps of 50 ms)",
        "teacher      1.0 min, once",
        "encoder      20 s, once",
        "features     there already",
        "altogether   about 2.2 min",
        "Assumed: all is well.",
    ]


def test_seeds_references_and_the_front_are_counted_and_said():
    estimate = dataclasses.replace(
        PLAIN,
        n_done=4,
        n_seeds=3,
        references={"unet": NetworkCost(2.0, dataclasses.replace(COST, n_steps=500))},
        n_front=7,
        n_front_seeds=2,
        measures_front=True,
    )
    assert estimate.candidates_s == pytest.approx(10 * 1.0 + 10 * 3 * 8.0 / 2)
    assert estimate.references_s == pytest.approx(2.0 + 3 * 28.0)  # alone: nothing trains beside it
    assert estimate.front_s == pytest.approx(7 * 3 * 1.0 + 7 * 2 * 8.0 / 2)
    assert estimate.total_s == pytest.approx(80 + 130 + 86 + 77)
    assert estimate.lines()[0] == "candidates   10 left of 14 at most, 2 trained at a time"
    assert {
        "training     8 s (8 s .. 8 s, 2 sampled) each (100 steps of 50 ms, 3 trainings)",
        "unet         1.4 min, a reference",
        "front again  1.3 min",
        "Assumed: the final front has about 7 members, each trained under 2 other seeds and measured 3 times more.",
        "Assumed: each candidate and reference is trained 3 times (seeds_per_candidate).",
    } <= set(estimate.lines())


def test_the_sample_for_the_reference_point_is_counted_and_said():
    estimate = dataclasses.replace(PLAIN, n_reference_sample=8)
    assert estimate.total_s == pytest.approx(PLAIN.total_s + 8 * 1.0)
    assert "hypervolume  8 s for its reference point: 8 networks measured" in estimate.lines()


@pytest.mark.parametrize(("budget_s", "total_s", "ends"), [(20.0, 100.0, "it ends"), (60.0, 130.0, "the search ends")])
def test_the_budgets_hours_cap_the_search_and_nothing_else(budget_s, total_s, ends):
    estimate = dataclasses.replace(PLAIN, budget="hours 1", budget_s=budget_s)
    assert estimate.total_s == pytest.approx(total_s)
    assert any(line.startswith(f"budget       hours 1; {ends}") for line in estimate.lines())


def test_references_are_paid_for_whatever_the_budget():
    estimate = dataclasses.replace(PLAIN, references={"unet": NetworkCost(30.0)}, budget_s=5.0)
    assert estimate.total_s == pytest.approx(80 + 30)


def test_a_front_is_guessed_to_be_twice_the_root_and_never_more_than_all():
    assert [guessed_front_size(n) for n in (0, 1, 2, 100, 900)] == [0, 1, 2, 20, 60]


def test_on_a_gpu_steps_are_timed_as_they_are_run():
    """Captured where the training's are, operator by operator where it is too short for that."""
    captured_from = 10 * _N_WARM_UP
    few, many = short_steps("cuda:1", 5000)
    assert captured_from <= few < many
    assert max(short_steps("cuda", captured_from - 1)) < captured_from
    assert short_steps("cpu", 5000) == (2, 6)
    assert [short_steps("cpu", n) for n in (1, 2)] == [(1, 1), (2, 6)]


@pytest.fixture
def nothing_timed(monkeypatch):
    """Every training costs the same, at once."""
    monkeypatch.setattr(measured.Stopwatch, "training_cost", lambda *arguments, **options: COST)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_and_steps_are_those_of_the_recipe(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files(tiny_config.parent)
    overrides = [
        "training.epochs=3",
        "execution={kind: process_pool, n_workers: 1}",
        "budget={n_trained: 7, hours: 0.5}",
        "references=[resnet]",
        "seeds_per_candidate=2",
        "front_seeds=3",
    ]
    estimate = estimate_costs(load_config(tiny_config, overrides))
    assert (files(tiny_config.parent), files(tmp_path)) == (before, {})
    assert (estimate.n_candidates, estimate.n_done, estimate.n_at_a_time) == (7, 0, 1)
    assert [cost.training.n_steps for cost in estimate.sampled] == [6, 6, 6]  # 32 images, 16 in a step, 3 epochs
    assert list(estimate.artifacts) == ["decoding", "teacher", "its outputs"]
    assert min(estimate.artifacts.values()) > 0
    assert estimate.found == ()
    assert estimate.n_reference_sample == 0  # a bound tells the point
    assert all(cost.training.step_s > 0 and cost.measuring_s > 0 for cost in estimate.sampled)
    assert estimate.references["resnet"].training.n_steps == 6
    assert (estimate.n_seeds, estimate.n_front_seeds, estimate.measures_front) == (2, 3, True)
    assert (estimate.budget, estimate.budget_s) == ("hours 0.5, n_trained 7", 1800.0)


def test_a_network_is_scored_once_unless_a_rule_stops_candidates_between_stages(tiny_config, nothing_timed):
    stages = "stages: [{epochs: 1}, {epochs: 1}, {epochs: 1}]"
    for rule, n_scorings in (("", 1), (", drop_rule: {}", 3)):
        estimate = estimate_costs(load_config(tiny_config, [f"training={{device: cpu, {stages}{rule}}}"]))
        for cost in estimate.sampled:
            assert (cost.training.n_steps, cost.training.start_s) == (300, 3.0)
            assert cost.training.scoring_s == 2.0 * n_scorings


def test_a_run_that_goes_on_costs_what_is_left_and_what_was_made_is_found(tiny_config, tmp_path, nothing_timed):
    folder, small = tmp_path / "runs" / "run", ["budget.n_trained=3"]
    finished = nas.run_search(tiny_config, folder, overrides=small)
    before = files(tmp_path)
    assert api.expected_costs(tiny_config, folder, overrides=small) is None
    with pytest.raises(RunFolderError, match="pass --resume to go on with the changes that it allows"):
        api.expected_costs(tiny_config, folder)
    estimate = api.expected_costs(tiny_config, folder, resume=True, overrides=["budget.n_trained=5"])
    assert (estimate.n_candidates, estimate.n_done) == (2, len(finished.records))
    assert (estimate.artifacts, estimate.found) == ({}, ("teacher", "its outputs"))
    beside = api.expected_costs(tiny_config, tmp_path / "runs" / "other", overrides=["distillation.weight=0.5"])
    assert (beside.n_candidates, beside.found) == (12, ("teacher", "its outputs"))
    other = api.expected_costs(tiny_config, tmp_path / "runs" / "other", overrides=["teacher.recipe.epochs=2"])
    assert (list(other.artifacts), other.found) == (["teacher", "its outputs"], ())
    assert files(tmp_path) == before


STAGED = """\
name: staged
data: {kind: synthetic_faces, image_size: 32, n_train: 16, n_validation: 8}
augmentation: {scale: [0.9, 1.1]}
teacher: {kind: unet, width: 4, recipe: {epochs: 1, batch_size: 8}}
search_space: {kind: segmentation_cell, n_cells: 1, n_branches: 1, decoder_widths: [8, 16], encoder_width: 8}
pretraining: {epochs: 1, batch_size: 8}
training: {device: cpu, n_views: 3, batch_size: 8, stages: [{epochs: 1, train: decoder}]}
objectives: [{metric: mean_iou, direction: maximize}]
controller: {kind: random, n_candidates: 1}
tensorboard: false
"""


def test_encoder_views_features_and_what_the_teacher_says_of_them_are_counted(tmp_path, nothing_timed):
    path, runs = tmp_path / "staged.yaml", tmp_path / "runs"
    path.write_text(STAGED)
    parts = ["teacher", "its outputs", "encoder", "views", "features", "for views"]
    estimate = api.expected_costs(path, runs / "staged")
    assert list(estimate.artifacts) == ["decoding", *parts]
    assert (estimate.artifacts["teacher"], estimate.artifacts["encoder"]) == (8.0, 8.0)
    assert min(estimate.artifacts.values()) > 0
    nas.run_search(path, runs / "staged")
    found = api.expected_costs(path, runs / "staged", resume=True, overrides=["controller.n_candidates=2"])
    assert (found.artifacts, found.found) == ({}, tuple(parts))
    others = api.expected_costs(path, runs / "other", overrides=["training.n_views=2"])
    assert (list(others.artifacts), others.found) == (parts[3:], tuple(parts[:3]))
    others = api.expected_costs(path, runs / "other", overrides=["pretraining.epochs=2"])  # the views stay
    assert list(others.artifacts) == ["encoder", "features"]
    assert others.found == ("teacher", "its outputs", "views", "for views")
    assert others.artifacts["encoder"] == 8.0


def test_a_given_teacher_costs_nothing_and_one_that_does_not_fit_ends_the_dry_run(tiny_config, tmp_path, nothing_timed):
    for n_classes, fits in ((10, True), (12, False)):
        save_weights(TeacherSpec("resnet", {"depth": 8, "width": 4}).build(1, n_classes), tmp_path / "mine.safetensors")
        given = f"teacher={{kind: resnet, depth: 8, width: 4, weights: {tmp_path / 'mine.safetensors'}}}"
        config = load_config(tiny_config, [given])
        with nullcontext() if fits else pytest.raises(InputError, match="these weights are not of the teacher"):
            assert list(estimate_costs(config).artifacts) == ["decoding", "its outputs"]


def test_a_search_that_trains_nothing_costs_its_measuring():
    estimate = estimate_costs(load_config(GRID, trust_code=True))
    assert (estimate.n_candidates, estimate.artifacts) == (60, {})
    assert all(cost.training is None for cost in estimate.sampled)
    assert "the functions that give gain take no time" in estimate.assumptions


def test_bounds_that_no_network_keeps_are_said(tiny_config, monkeypatch):
    monkeypatch.setattr(measured, "_MAX_DRAWS", 5)
    overrides = ["constraints=[{metric: n_params, max: 1}]"]
    with pytest.raises(InputError, match="none of 5 sampled networks keeps the bounds"):
        estimate_costs(load_config(tiny_config, overrides))


def test_a_live_teacher_is_part_of_every_step(tiny_config, monkeypatch):
    asked = []
    monkeypatch.setattr("nas.dry_run.timing.train", lambda *given, teacher, **options: asked.append(teacher) or train(
        *given, teacher=teacher, **options))  # fmt: skip
    estimate_costs(load_config(tiny_config, ["distillation={teacher: live}"]))
    assert {type(teacher).__name__ for teacher in asked} == {"ResNet", "NoneType"}  # its own training has none


def test_without_a_bound_a_sample_is_measured_first_unless_the_run_has_its_point(tiny_config):
    overrides = ["constraints=[]", "controller.n_generations=1"]
    config = load_config(tiny_config, overrides)
    assert estimate_costs(config).n_reference_sample == 8
    given = load_config(tiny_config, [*overrides, "reference_point={latency_ms: 1.0}"])
    assert estimate_costs(given).n_reference_sample == 0
    nas.run_search(tiny_config, tiny_config.parent / "run", overrides=overrides)
    assert estimate_costs(config, run=nas.load_run(tiny_config.parent / "run")).n_reference_sample == 0
