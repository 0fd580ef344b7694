"""The leagues and the noise of the comparison of controllers."""

from argparse import Namespace

import numpy as np
import pytest

from experiments.tabular_search.__main__ import controller_losses, make_controller, spread_of_seeds
from experiments.tabular_search.benchmark import Benchmark


@pytest.fixture
def path(tmp_path):
    ops = np.array([(a, b, c) for a in range(4) for b in range(4) for c in range(4)])
    accuracy = 80.0 + ops.sum(axis=1)
    path = tmp_path / "table.npz"
    np.savez(path, ops=ops, acc=accuracy, cost=1.0 + ops[:, 0], acc_seedstd=np.full(64, 0.5))
    return path


@pytest.fixture
def benchmark(path):
    return Benchmark.load(path, "acc", ["cost"], 5.0)


def test_the_blind_league_knows_no_costs_beforehand_and_no_region_of_use(path, benchmark):
    blind = Benchmark.load(path, "acc", ["cost"], 5.0)
    object.__setattr__(blind, "is_blind", True)
    genotype = benchmark.table.genotype([1, 2, 3])
    assert benchmark.problem(0).known_costs(genotype) == {"cost": 2.0}
    assert blind.problem(0).known_costs(genotype) == {}
    assert make_controller("surrogate_nsga2", benchmark, 20)._interest == {"error": 5.0}
    assert make_controller("surrogate_nsga2", blind, 20)._interest == {}
    losses, _ = controller_losses("surrogate_nsga2", blind, 0, 12)
    assert len(losses) == 12


def test_a_noisy_training_tells_another_error_and_the_truth_stays(benchmark):
    noisy = benchmark.trained_once(0.5, seed=1)
    row = 7
    assert noisy.metrics(row)["error"] != benchmark.metrics(row)["error"]
    assert noisy.metrics(row)["cost"] == benchmark.metrics(row)["cost"]
    assert np.array_equal(noisy.losses, benchmark.losses)
    assert noisy.metrics(row) == benchmark.trained_once(0.5, seed=1).metrics(row)
    assert noisy.metrics(row) != benchmark.trained_once(0.5, seed=2).metrics(row)
    losses, _ = controller_losses("random", noisy, 0, 20)
    assert {tuple(row) for row in losses} <= {tuple(row) for row in benchmark.losses}


def test_the_tables_own_spread_comes_before_the_options(benchmark):
    assert np.array_equal(spread_of_seeds(benchmark, Namespace(error="acc", noise_std=None)), np.full(64, 0.5))
    assert spread_of_seeds(benchmark, Namespace(error="cost", noise_std=0.2)) == 0.2
    with pytest.raises(SystemExit, match="no column cost_seedstd: give --noise-std"):
        spread_of_seeds(benchmark, Namespace(error="cost", noise_std=None))
