"""The costs to expect: sums from parts that are given, and a dry run that leaves nothing behind."""

import pytest

from nas import dry_run
from nas.config import load_config
from nas.dry_run import CostEstimate, TrainingCost, estimate_costs
from nas.errors import InputError
from nas.training import train

GRID = {
    "name": "grid",
    "search_space": {"kind": "integers", "n_genes": 2, "n_values": 3},
    "metrics": {"gain": {"function": "math:floor"}},
    "objectives": [{"metric": "gain", "direction": "maximize"}],
    "controller": {"kind": "random", "n_candidates": 60, "batch_size": 5},
}


def test_the_sum_is_made_of_its_parts():
    cost = TrainingCost(step_s=0.05, n_steps=100, start_s=1.0, scoring_s=2.0)
    assert cost.total_s == pytest.approx(8.0)
    estimate = CostEstimate(
        n_candidates=10,
        n_at_a_time=2,
        measuring_s=(0.5, 1.5),
        training=(cost, cost),
        made_first={"teacher": 60.0, "encoder": 20.0},
        assumptions=("all is well",),
    )
    assert estimate.total_s == pytest.approx(80 + 10 * (1.0 + 8.0 / 2))
    assert estimate.lines() == [
        "candidates   10 at most, 2 trained at a time",
        "measuring    1 s (0.5 s .. 1.5 s, 2 sampled) each",
        "training     8 s (8 s .. 8 s, 2 sampled) each (100 steps of 50 ms)",
        "teacher      1.0 min, once",
        "encoder      20 s, once",
        "altogether   about 2.2 min",
        "Assumed: all is well.",
    ]


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_and_steps_are_those_of_the_recipe(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files(tiny_config.parent)
    overrides = ["training.epochs=3", "execution={kind: process_pool, n_workers: 1}", "budget={n_trained: 7}"]
    estimate = estimate_costs(load_config(tiny_config, overrides))
    assert (files(tiny_config.parent), files(tmp_path)) == (before, {})
    assert (estimate.n_candidates, estimate.n_at_a_time) == (7, 1)
    assert [cost.n_steps for cost in estimate.training] == [6, 6, 6]  # 32 images, 16 in a step, 3 epochs
    assert estimate.made_first.keys() == {"teacher"}
    assert all(cost.step_s > 0 for cost in estimate.training)
    assert min(estimate.measuring_s) > 0
    assert any("budget (n_trained 7)" in assumption for assumption in estimate.assumptions)


def test_a_search_that_trains_nothing_costs_its_measuring():
    estimate = estimate_costs(load_config(GRID, trust_code=True))
    assert (estimate.n_candidates, estimate.training, estimate.made_first) == (60, (), {})
    assert "the functions that give gain take no time" in estimate.assumptions


def test_bounds_that_no_network_keeps_are_said(tiny_config, monkeypatch):
    monkeypatch.setattr(dry_run, "_MAX_DRAWS", 5)
    overrides = ["constraints=[{metric: n_params, max: 1}]"]
    with pytest.raises(InputError, match="none of 5 sampled networks keeps the bounds"):
        estimate_costs(load_config(tiny_config, overrides))


def test_a_live_teacher_is_part_of_every_step(tiny_config, monkeypatch):
    asked = []
    monkeypatch.setattr("nas.dry_run.train", lambda *given, teacher, **options: asked.append(teacher) or train(
        *given, teacher=teacher, **options))  # fmt: skip
    estimate_costs(load_config(tiny_config, ["distillation={teacher: live}"]))
    assert {type(teacher).__name__ for teacher in asked} == {"ResNet", "NoneType"}  # its own training has none
