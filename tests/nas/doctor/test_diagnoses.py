"""Planted faults are found at several strengths, and healthy runs get no alarm."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import nas
from nas.cli.app import app
from nas.doctor.diagnoses import Evidence, diagnose
from nas.store.run import Run
from nas.values.objectives import Constraint, Direction, Objective, Violation
from nas.values.records import Candidate, Failure, Observation, Record, RecordState
from search_spaces.genotype import Genotype

ROOT = Path(__file__).parents[3]
OBJECTIVES = (Objective("accuracy", Direction.MAXIMIZE), Objective("latency_ms", Direction.MINIMIZE, "ms"))
N, BATCH, N_GENES = 120, 20, 20


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def record(number, rng, *, genes=None, state=RecordState.COMPLETE, conditions=None, losses=(), **changed):
    genes = rng.integers(0, 5, N_GENES) if genes is None else genes
    genotype = Genotype("planted", tuple(int(gene) for gene in genes))
    candidate = Candidate(f"{number:010x}", genotype, str(number), number, f"network {number}")
    size = float(rng.integers(10_000, 1_000_000))
    metrics = {
        "accuracy": float(rng.normal(0.8, 0.05)),
        "latency_ms": size / 1e5 * float(rng.uniform(0.7, 1.4)),
        "n_params": size,
        **{key: value for key, value in changed.items() if key in ("accuracy", "latency_ms", "n_params", "n_macs")},
    }
    rest = {key: value for key, value in changed.items() if key not in metrics}
    metrics = {key: value for key, value in metrics.items() if value is not None}
    return Record(
        candidate, state, metrics, number, number // BATCH, conditions=conditions or {}, epoch_losses=losses, **rest
    )


def run_of(records, objectives=OBJECTIVES, constraints=(), teacher=None, finished=False):
    return Run(
        path=Path("runs/planted"),
        name="planted",
        objectives=tuple(objectives),
        constraints=tuple(constraints),
        records=tuple(records),
        references=(),
        reference_point={"accuracy": 0.0, "latency_ms": 100.0, "n_params": 1e9, "n_macs": 1e9},
        teacher=teacher,
        finished_size=N if finished else 0,
        scores=frozenset({"accuracy"}),
    )


def names(run, readings=(), distillation=None):
    found = diagnose(Evidence(run, readings, distillation))
    assert all(one.text and one.evidence and one.advice for one in found)
    return [one.name for one in found]


def test_a_healthy_run_gets_no_alarm(rng):
    assert names(run_of([record(i, rng) for i in range(N)])) == []
    assert names(run_of([])) == []


@pytest.mark.parametrize("n_layers", [1, 3, 6, 8])
@pytest.mark.parametrize("jitter", [0.0, 0.005])
def test_layered_sizes(rng, n_layers, jitter):
    layers = np.geomspace(20_000, 900_000, n_layers)
    sizes = [rng.choice(layers) * (1 + jitter * rng.random()) for _ in range(N)]
    assert names(run_of([record(i, rng, n_params=size) for i, size in enumerate(sizes)])) == [
        "layered parameter counts"
    ]


@pytest.mark.parametrize("share", [0.35, 0.6, 1.0])
def test_tied_scores(rng, share):
    changes = [{"accuracy": 0.1} if i < share * N else {} for i in range(N)]
    assert names(run_of([record(i, rng, **change) for i, change in enumerate(changes)])) == ["tied scores"]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_scores_at_both_ends(rng, share):
    scores = [float(rng.normal(0.1 if i % 100 < 100 * share else 0.9, 0.01)) for i in range(N)]
    assert names(run_of([record(i, rng, accuracy=s) for i, s in enumerate(scores)])) == ["scores at both ends"]


@pytest.mark.parametrize("n_changed", [1, 2])
def test_a_collapsed_population(rng, n_changed):
    centre, records = rng.integers(0, 5, N_GENES), []
    for i in range(N):
        genes = rng.integers(0, 5, N_GENES) if i < 2 * BATCH else centre.copy()
        if i >= 2 * BATCH:
            genes[rng.choice(N_GENES, n_changed, replace=False)] = rng.integers(0, 5, n_changed)
        records.append(record(i, rng, genes=genes))
    assert names(run_of(records)) == ["collapsed population"]


@pytest.mark.parametrize("share", [0.85, 1.0])
def test_a_bound_that_rejects(rng, share):
    bound = Constraint("n_params", max=5_000.0)
    records = []
    for i in range(N):
        if i < share * N:
            violation = (Violation("n_params", 1e6, None, 5_000.0, 199.0),)
            records.append(record(i, rng, state=RecordState.INFEASIBLE, violations=violation, accuracy=None))
        else:
            records.append(record(i, rng, n_params=4_000.0 + 10 * i))
    found = diagnose(Evidence(run_of(records, constraints=[bound])))
    assert [one.name for one in found] == ["a bound that rejects nearly everything"]
    assert "at most 5,000" in found[0].text


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_an_objective_in_disguise(rng, noise):
    objectives = (*OBJECTIVES, Objective("n_macs", Direction.MINIMIZE))
    records = []
    for i in range(N):
        latency = float(rng.uniform(1, 10))
        records.append(record(i, rng, latency_ms=latency, n_macs=1e6 * latency * (1 + noise * rng.random())))
    assert names(run_of(records, objectives)) == ["an objective that is another in disguise"]


@pytest.mark.parametrize("score", [0.6, 0.8])
def test_a_teacher_worse_than_its_students(rng, score):
    records = [record(i, rng) for i in range(N)]
    teacher = {"kind": "resnet", "scores": {"accuracy": score}, "n_params": 1}
    assert names(run_of(records, teacher=teacher)) == ["a teacher worse than its students"]
    better = {**teacher, "scores": {"accuracy": 0.95}}
    assert names(run_of(records, teacher=better)) == []


@pytest.mark.parametrize("left", [1.0, 1.3])
def test_drowned_targets(rng, left):
    records = [record(i, rng, losses=(2.0, 2.0 * left)) for i in range(N)]
    assert names(run_of(records), distillation={"weight": 50.0}) == ["distillation that drowns the targets"]
    assert names(run_of(records)) == []  # nothing is distilled
    records = [record(i, rng, losses=(2.0, 1.0)) for i in range(N)]
    assert names(run_of(records), distillation={"weight": 1.0}) == []


@pytest.mark.parametrize("change", [0.3, 2.0])
def test_unstable_readings(rng, change):
    run = run_of([record(i, rng) for i in range(N)])
    readings = []
    for number in range(5):
        readings += [
            Observation(f"{number:010x}", "device:cpu", 1, "latency_ms", 2.0),
            Observation(f"{number:010x}", "confirmation", 1, "latency_ms", 2.0 * (1 + change)),
        ]
    assert names(run, readings) == ["unstable readings"]
    steady = [Observation(o.candidate, o.stage, 1, o.metric, 2.0) for o in readings]
    assert names(run, steady) == []


@pytest.mark.parametrize("times", [1.2, 3.0])
def test_ranking_by_noise(rng, times):
    spread = {"accuracy": {"spread": 0.05 * times}}
    assert names(run_of([record(i, rng, conditions=spread) for i in range(N)])) == ["quick scores that rank by noise"]
    spread = {"accuracy": {"spread": 0.01}}
    assert names(run_of([record(i, rng, conditions=spread) for i in range(N)])) == []


def test_a_front_that_still_moves(rng):
    records = [record(i, rng, accuracy=0.3 + 0.005 * i, latency_ms=50.0) for i in range(N)]
    assert names(run_of(records, finished=True)) == ["a front that still moves"]


def test_many_failures(rng):
    failure = Failure("training", "the loss is NaN", "Traceback")
    records = [
        record(i, rng, state=RecordState.FAILED, failure=failure, accuracy=None) if i % 3 == 0 else record(i, rng)
        for i in range(N)
    ]
    found = diagnose(Evidence(run_of(records)))
    assert [one.name for one in found] == ["many failures"]
    assert "training: the loss is NaN" in found[0].evidence


@pytest.mark.parametrize("controller", ["nsga2", "surrogate_nsga2", "random"])
def test_searches_of_a_table_get_no_alarm(tmp_path, monkeypatch, controller):
    monkeypatch.chdir(ROOT)
    options = {"kind": controller} | (
        {"population_size": 10, "n_generations": 6} if controller == "nsga2" else {"n_candidates": 60}
    )
    for seed in range(2):
        config = {
            "name": "healthy", "seed": seed, "tensorboard": False, "controller": options,
            "search_space": {"kind": "tabular", "path": "configs/toy_table.npz", "costs": ["n_params", "latency_ms"]},
            "objectives": [
                {"metric": "accuracy", "direction": "maximize"}, {"metric": "latency_ms", "direction": "minimize"},
            ],
        }  # fmt: skip
        path = tmp_path / f"{controller}{seed}"
        nas.run_search(config, path)
        assert nas.api.diagnose(path) == []


DATA_ROOT = os.environ.get("NAS_DATA_ROOT")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(DATA_ROOT is None, reason="NAS_DATA_ROOT is not set")
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "controller",
    [
        {"kind": "nsga2", "population_size": 20, "n_generations": 15},
        {"kind": "surrogate_nsga2", "n_candidates": 100},
        {"kind": "random", "n_candidates": 300},
    ],
    ids=lambda options: options["kind"],
)
def test_thirty_searches_of_nasbench201_get_no_alarm(tmp_path, controller, seed):
    config = {
        "name": "healthy", "seed": seed, "tensorboard": False, "controller": controller,
        "search_space": {
            "kind": "tabular", "path": f"{DATA_ROOT}/nasbench201/nasbench201_cifar10.npz",
            "costs": ["lat_ms_1080ti_1", "params_m_cifar10_analytic"],
        },
        "objectives": [
            {"metric": "acc200_cifar10_valid", "direction": "maximize"},
            {"metric": "lat_ms_1080ti_1", "direction": "minimize"},
        ],
    }  # fmt: skip
    nas.run_search(config, tmp_path / "run")
    assert nas.api.diagnose(tmp_path / "run") == []


def test_the_command_says_what_was_found(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = {
        "name": "bounded", "tensorboard": False, "controller": {"kind": "random", "n_candidates": 30},
        "search_space": {"kind": "tabular", "path": "configs/toy_table.npz", "costs": ["n_params", "latency_ms"]},
        "objectives": [{"metric": "accuracy", "direction": "maximize"}, {"metric": "n_params"}],
        "constraints": [{"metric": "n_params", "max": 1}],
        "reference_point": {"accuracy": 0, "n_params": 10_000_000},
    }  # fmt: skip
    nas.run_search(config, tmp_path / "bounded")
    result = CliRunner().invoke(app, ["diagnose", str(tmp_path / "bounded")])
    assert result.exit_code == 0
    assert "a bound that rejects nearly everything" in result.output
    found = json.loads(CliRunner().invoke(app, ["diagnose", str(tmp_path / "bounded"), "--json"]).output)
    assert found[0]["evidence"].startswith("30 of 30 candidates broke it")
