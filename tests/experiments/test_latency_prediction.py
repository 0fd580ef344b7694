"""The experiment on predicted latencies: what it prints, and that no known device gives readings of scored rows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.latency_prediction.__main__ import N_SCORED, Trial, experiment
from experiments.latency_prediction.search import foretold
from latency.predictors import TableEncoder

ROOT = Path(__file__).parents[2]
COSTS = {"a": [0.0, 0.1, 1.0, 3.0], "b": [0.0, 0.3, 2.5, 6.0], "c": [0.2, 0.1, 0.5, 0.4]}


@pytest.fixture
def table(tmp_path):
    """A table of 600 rows on three devices."""
    rng = np.random.default_rng(0)
    ops = rng.integers(0, 4, (600, 5))
    ops[0] = 3
    columns = {
        f"lat_ms_{name}": (1 + np.array(costs)[ops].sum(axis=1)) * rng.normal(1, 0.02, 600)
        for name, costs in COSTS.items()
    }
    path = tmp_path / "table.npz"
    np.savez(path, ops=ops, op_names=np.array(["none", "skip", "conv_1x1", "conv_3x3"]), **columns)
    return path


def test_it_prints_medians_by_target_and_their_mean(table):
    command = [sys.executable, "-m", "experiments.latency_prediction", "--table", str(table), "--targets", "a,lat_ms_b"]
    options = ["--samples", "10,20", "--seeds", "2", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert found["targets"].keys() == {"lat_ms_a", "lat_ms_b"}
    keys = {"spearman", "kendall", "within_5", "within_10", "coverage_90"}
    assert all(found["mean"][size].keys() == keys for size in ("10", "20"))
    assert found["mean"]["20"]["spearman"] > 0.95
    first, second = (found["targets"][name]["20"]["kendall"] for name in ("lat_ms_a", "lat_ms_b"))
    assert found["mean"]["20"]["kendall"] == pytest.approx((first + second) / 2, abs=1e-3)


def test_known_devices_give_readings_of_other_rows_only(table):
    with np.load(table) as file:
        arrays = {name: file[name] for name in file}
    encodings = TableEncoder.of(arrays).encode(arrays["ops"])
    latencies = {name: arrays[name] for name in arrays if name.startswith("lat_ms_")}
    honest = Trial(encodings, latencies, 0).known(["lat_ms_b"]).run("lat_ms_a", [10], "blend")
    scored = np.random.default_rng(0).permutation(600)[: min(N_SCORED, 200)]
    poisoned = {name: values.copy() for name, values in latencies.items()}
    poisoned["lat_ms_b"][scored] *= 1000
    assert Trial(encodings, poisoned, 0).known(["lat_ms_b"]).run("lat_ms_a", [10], "blend") == honest


def test_a_wrong_column_is_named(table):
    with pytest.raises(SystemExit, match="no column 'lat_ms_z'; it has lat_ms_a, lat_ms_b, lat_ms_c"):
        experiment(table, ["z"], ["none"], [10], 1, "ridge")


def test_latencies_for_a_search_are_measured_where_they_were_and_foretold_elsewhere(table):
    with np.load(table) as file:
        truth = file["lat_ms_a"]
    said = foretold(table, "lat_ms_a", 30, seed=0)
    assert np.sum(said == truth) == 30
    assert np.median(np.abs(said / truth - 1)) < 0.05
