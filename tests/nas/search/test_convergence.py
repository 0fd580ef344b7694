"""Stopping when the next candidates can be expected to add little."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import nas
from nas.errors import ConfigurationError
from nas.search.convergence import expected_gain, joined_gain
from nas.values.budgets import Budget

ROOT = Path(__file__).parents[3]


def config(**budget):
    return {
        "name": "converging", "seed": 1, "tensorboard": False,
        "search_space": {
            "kind": "tabular", "path": str(ROOT / "configs" / "toy_table.npz"), "costs": ["latency_ms", "n_params"],
        },
        "objectives": [
            {"metric": "accuracy", "direction": "maximize"}, {"metric": "latency_ms", "direction": "minimize"},
        ],
        "reference_point": {"accuracy": 50, "latency_ms": 40},
        "controller": {"kind": "nsga2", "population_size": 10, "n_generations": 40},
        "budget": budget,
    }  # fmt: skip


@pytest.mark.parametrize("n", [100, 200, 400])
def test_the_expectation_is_exact_where_the_distance_falls_as_one_by_n(n):
    sizes = np.arange(1, n + 51)
    volumes = 10 - 1 / sizes
    gain = expected_gain(volumes[:n], 50)
    true = [(volumes[m + 49] - volumes[m - 1]) / volumes[m - 1] for m in range(n - 49, n + 1)]
    assert gain == pytest.approx(max(true), rel=0.05)


def test_a_model_that_expects_more_keeps_the_search_going_and_alone_ends_none():
    assert joined_gain(0.001, 0.02) == 0.02
    assert joined_gain(0.001, 0.0) == joined_gain(0.001, None) == 0.001
    assert joined_gain(None, 0.0) is None


def test_a_late_step_keeps_the_search_going():
    flat = np.ones(200)
    assert expected_gain(flat, 50) == 0.0
    stepped = np.concatenate([np.ones(190), np.full(10, 1.5)])
    assert expected_gain(stepped, 50) == pytest.approx((1 / 3) * 50 / (191 + 50))


@pytest.mark.parametrize("volumes", [np.ones(99), np.zeros(200), np.empty(0)])
def test_with_too_little_history_nothing_is_expected(volumes):
    assert expected_gain(volumes, 50) is None
    assert not Budget(stop_when_converged=True).has_converged(None)


def test_a_search_stops_says_why_and_goes_on_when_told(tmp_path, capsys):
    path = tmp_path / "runs" / "run"
    plain = nas.run_search(config(), tmp_path / "runs" / "whole")
    console = Console(width=400)
    stopping = config(stop_when_converged=True, converged_next=20, converged_gain=0.01)
    run = nas.run_search(stopping, path, console=console)
    assert "The search has converged: the next 20 candidates can be expected to add" in capsys.readouterr().out
    n = len(run.records)
    assert 40 <= n < len(plain.records)
    assert n % 10 == 0  # whole generations
    assert [r.id for r in run.records] == [r.id for r in plain.records[:n]]
    assert run.expected_gain < 0.01
    again = nas.run_search(stopping, path, console=console)
    assert "is finished already" in capsys.readouterr().out
    assert len(again.records) == n
    on = nas.run_search(stopping, path, resume=True, overrides=["budget.stop_when_converged=false"])
    assert [r.id for r in on.records] == [r.id for r in plain.records]


def test_it_stops_where_a_killed_search_does(tmp_path):
    options = {"stop_when_converged": True, "converged_next": 20, "converged_gain": 0.01}
    whole = nas.run_search(config(**options), tmp_path / "runs" / "whole")
    part = nas.run_search(config(n_trained=30, **options), tmp_path / "runs" / "part")
    assert len(part.records) == 30
    rest = nas.run_search(config(**options), tmp_path / "runs" / "part", resume=True)
    assert [r.id for r in rest.records] == [r.id for r in whole.records]


def test_it_is_off_by_default_and_its_options_are_checked(tmp_path):
    assert not Budget().stop_when_converged
    assert str(Budget(n_trained=5, stop_when_converged=True)) == "n_trained 5, until it has converged"
    with pytest.raises(ConfigurationError, match="converged_gain"):
        nas.run_search(config(converged_gain=2), tmp_path / "run")
