"""A search in a table as a user runs it: no data, no network, known costs for free."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import nas
from nas.assembly import search_parts
from nas.config import load_config
from nas.errors import ConfigurationError, InputError
from nas.store.run_folder import RunFolder
from nas.values.pareto import non_dominated
from nas.values.records import RecordState
from search_spaces.spaces.tabular import Tabular

ROOT = Path(__file__).parents[3]


@pytest.fixture
def table(tmp_path):
    """64 rows; the accuracy of one of them was never measured."""
    ops = np.array(list(itertools.product(range(4), repeat=3)))
    accuracy = 50.0 + ops @ [5.0, 3.0, 1.0] + np.sin(7 * np.arange(64))
    accuracy[63] = np.nan
    path = tmp_path / "table.npz"
    np.savez(path, ops=ops, accuracy=accuracy, latency=1.0 + ops @ [1.0, 2.0, 0.5])
    return path


def config(table, **changes):
    return {
        "name": "table",
        "search_space": {"kind": "tabular", "path": str(table), "costs": ["latency"]},
        "objectives": [{"metric": "accuracy"}, {"metric": "latency", "direction": "minimize"}],
        "reference_point": {"accuracy": 40},
        "controller": {"kind": "random", "n_candidates": 64, "batch_size": 16},
        "tensorboard": False,
        **changes,
    }


def test_a_search_of_every_row_finds_the_true_front_and_a_hole_is_a_failure(table, tmp_path):
    run = nas.run_search(config(table), tmp_path / "run")
    space = Tabular(table)
    losses = np.column_stack([-space.columns["accuracy"], space.columns["latency"]])[:63]
    expected = {tuple(space.rows[row]) for row in np.flatnonzero(non_dominated(losses))}
    assert {record.candidate.genotype.genes for record in run.front} == expected
    (failed,) = [record for record in run.records if record.state is not RecordState.COMPLETE]
    assert failed.candidate.genotype.genes == (3, 3, 3)
    assert failed.failure.reason == "EvaluationError: table:scores: accuracy must be a finite number, got nan"
    assert failed.metrics == {"latency": 11.5}


def test_costs_gate_the_scores_and_are_known_to_the_controller(table, tmp_path):
    limited = config(table, constraints=[{"metric": "latency", "max": 3.0}])
    limited["controller"]["n_candidates"] = 32
    with RunFolder.write(tmp_path / "parts") as folder:
        problem = search_parts(load_config(limited), folder).problem
    genotype = problem.space.genotype([1, 0, 1])
    assert problem.known_costs(genotype) == {"latency": 2.5}
    assert problem.keeps_cheap_bounds(genotype)
    assert not problem.keeps_cheap_bounds(problem.space.genotype([1, 1, 0]))
    run = nas.run_search(limited, tmp_path / "run")
    within = [record for record in run.records if record.metrics["latency"] <= 3.0]
    # 9 rows keep the bound; the others are asked for only as there is nothing else, and never scored
    assert len(within) == 9
    assert all(record.state is RecordState.COMPLETE for record in within)
    assert all("accuracy" not in record.metrics for record in run.records if record not in within)


def test_faults_name_what_is_there(table, tmp_path):
    with pytest.raises(ConfigurationError, match=r"the table has no column 'latncy'\. Did you mean 'latency'\?"):
        load_config(config(table, objectives=[{"metric": "latncy", "direction": "minimize"}]))
    with pytest.raises(ConfigurationError, match="missing key 'direction': say maximize or minimize for latency"):
        load_config(config(table, objectives=[{"metric": "latency"}]))
    with pytest.raises(ConfigurationError, match="leave the data section out"):
        load_config(config(table, data={"kind": "synthetic_faces"}))
    gone = config(table)
    table.unlink()
    with pytest.raises(InputError, match="search_space: .*no such table"):
        nas.run_search(gone, tmp_path / "run")


def test_the_shipped_table_is_the_documented_one_and_its_search_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tables.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 - the documented lines
    with (
        np.load("configs/toy_table.npz", allow_pickle=False) as made,
        np.load(ROOT / "configs" / "toy_table.npz", allow_pickle=False) as shipped,
    ):
        assert set(made.files) == set(shipped.files)
        assert all(np.array_equal(made[name], shipped[name]) for name in made.files)
    run = nas.run_search(
        ROOT / "configs" / "tabular.yaml",
        overrides=["controller={kind: random, n_candidates: 40}", "tensorboard=false"],
    )
    assert run.counts() == {"complete": 40}
    assert run.reference_point["accuracy"] == 80
