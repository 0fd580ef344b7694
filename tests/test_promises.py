"""The promises of the design, held by whole programs: a section for each, with its number."""

import ast
import contextlib
import dataclasses
import gzip
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import nas
from latency.devices import FakeDevice, TorchCpuDevice
from latency.errors import UnsupportedMeasurementError
from nas.analysis import front_table, records_table, summary_lines, to_csv, to_json
from nas.analysis.plots import draw_pair, save_plots
from nas.data import FashionMnist, ImageFolder, ImageMaskFolder, SyntheticFaces
from nas.data.base import Split
from nas.errors import ConfigurationError, DataError, EvaluationError, InputError
from nas.evaluation import stages
from nas.listeners.live import PlotListener
from nas.store.run_folder import RunFolder
from nas.torch_tools import load_weights
from nas.values.objectives import Direction, Objective
from nas.values.records import RecordState
from search_spaces import Gene, GeneKind, Genotype, ModelSpace, SearchSpace

ROOT = Path(__file__).parent.parent
SOURCES = [path for package in ("nas", "search_spaces", "latency") for path in sorted((ROOT / package).rglob("*.py"))]


HERE = "execution={kind: serial, isolated: false}"  # so that a test can see or change what stages do


def grid(**changes):
    """Return the configuration of a search for integers, which takes milliseconds."""
    return {
        "name": "grid",
        "search_space": {"kind": "integers", "n_genes": 3, "n_values": 6},
        "metrics": {name: {"function": f"{__name__}:{name}"} for name in ("gain", "price")},
        "objectives": [{"metric": "gain", "direction": "maximize"}, {"metric": "price", "direction": "minimize"}],
        "controller": {"kind": "nsga2", "population_size": 8, "n_generations": 6},
        "tensorboard": False,
        **changes,
    }


def price(subject):
    return float(sum(subject.genotype.genes))


def price_of_two(subject):
    return float(sum(subject.genotype.genes[:2]))


def gain(subject):
    return float(subject.genotype.genes[0] * 2 + subject.genotype.genes[1] % 3)


def loss(subject):
    return -gain(subject)


def run_grid(path, **changes):
    return nas.run_search(grid(**changes), path, trust_code=True)


def printed(*renderables):
    console = Console(file=io.StringIO(), width=300)
    for renderable in renderables:
        console.print(renderable, markup=not isinstance(renderable, str))
    return console.file.getvalue()


# 1. One record each


def unsteady_gain(subject):
    match subject.genotype.genes[0]:
        case 1:
            return float("nan")
        case 2:
            return float("-inf")
        case 3:
            raise ZeroDivisionError("three")
    return gain(subject)


def test_1_each_candidate_leaves_one_record_and_only_numbers_stand_on_the_front(tmp_path):
    run = run_grid(
        tmp_path / "run",
        metrics={"gain": {"function": f"{__name__}:unsteady_gain"}, "price": {"function": f"{__name__}:price"}},
        constraints=[{"metric": "price", "max": 12}],
    )
    assert len(run.records) == len({record.id for record in run.records}) == 48
    # functions run in the order of their names: a candidate that failed was not yet found too dear
    expected = {record.id: _expected_state(*record.candidate.genotype.genes) for record in run.records}
    assert {record.id: record.state for record in run.records} == expected
    assert set(expected.values()) == {RecordState.COMPLETE, RecordState.INFEASIBLE, RecordState.FAILED}
    assert {record.state for record in run.front} == {RecordState.COMPLETE}
    for row in json.loads(to_json(run, all_records=True)):
        if row["state"] == "failed":
            assert row["gain"] is None
            assert row["reason"].startswith("function:gain: ")
        if row["state"] == "infeasible":
            assert row["reason"] == f"price = {row['price']:g} is over its maximum 12"
    complete = [r.metrics for r in run.records if r.state is RecordState.COMPLETE]
    assert run.hypervolumes()[-1] == pytest.approx(_hypervolume_2d(complete, run.reference_point))


def _expected_state(first, second, third):
    if first in (1, 2, 3):
        return RecordState.FAILED
    return RecordState.INFEASIBLE if first + second + third > 12 else RecordState.COMPLETE


def _hypervolume_2d(metrics, reference_point):
    """Return the area that points dominate, added up strip by strip over falling gain."""
    area, floor = 0.0, reference_point["price"]
    points = sorted({(-m["gain"], m["price"]) for m in metrics})
    strips = [(gain_loss, cost) for gain_loss, cost in points if gain_loss < -reference_point["gain"]]
    for gain_loss, cost in strips:
        if cost < floor:
            area += (-reference_point["gain"] - gain_loss) * (floor - cost)
            floor = cost
    return area


# 2. Nothing is lost


def n_rows(store):
    """Return how much a store holds, however young it is."""
    if not store.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as db:
            tables = ("facts", "asks", "observations", "verdicts")
            return sum(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)  # noqa: S608
    except sqlite3.OperationalError:
        return 0


def kill_when(process, store, rows):
    """Kill the process once its store has grown to `rows`; it cannot defer or see it."""
    while process.is_alive() and n_rows(store) < rows:
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("kills", [(3, 45), pytest.param((3, 20, 45, 70), marks=pytest.mark.slow)])
def test_2_killed_again_and_again_a_run_ends_as_if_it_never_was(tiny_config, tiny_run, tmp_path, kills):
    path = tmp_path / "runs" / "killed"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nas", "torch._dynamo"])  # which torch imports late, for seconds
    for rows in kills:
        process = context.Process(target=nas.run_search, args=(tiny_config, path), kwargs={"resume": True})
        process.start()
        assert kill_when(process, path / "store.sqlite", rows) == -signal.SIGKILL
    resumed = nas.run_search(tiny_config, path, resume=True)
    assert to_json(resumed, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)


@pytest.mark.slow
def test_2_the_command_killed_at_random_instants(tiny_config, tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    command = [sys.executable, "-m", "nas", "search", str(tiny_config), "--resume", "--run-dir"]
    expected = to_json(nas.load_run(tiny_run), all_records=True)
    path = tmp_path / "runs" / "killed"
    for _ in range(20):
        process = subprocess.Popen([*command, str(path)], cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(3.0, 7.0)))
        process.kill()
        process.wait()
        if RunFolder.exists(path) and nas.load_run(path).finished_size:
            assert to_json(nas.load_run(path), all_records=True) == expected
            shutil.rmtree(path.parent)
    resumed = nas.run_search(tiny_config, path, resume=True)
    assert to_json(resumed, all_records=True) == expected


@pytest.mark.slow
def test_2_a_steady_search_killed_again_and_again_ends_as_if_it_never_was(tiny_config, tmp_path):
    overrides = ["scheduling=steady_state"]
    whole = nas.run_search(tiny_config, tmp_path / "runs" / "whole", overrides=overrides)
    path = tmp_path / "runs" / "killed"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nas", "torch._dynamo"])
    for rows in (20, 45, 70):
        options = {"resume": True, "overrides": overrides}
        process = context.Process(target=nas.run_search, args=(tiny_config, path), kwargs=options)
        process.start()
        assert kill_when(process, path / "store.sqlite", rows) == -signal.SIGKILL
    resumed = nas.run_search(tiny_config, path, resume=True, overrides=overrides)
    assert to_json(resumed, all_records=True) == to_json(whole, all_records=True)


# 3. Same seed, same training


def weights(run):
    return {path.name: path.read_bytes() for path in (run / "weights").iterdir()}


@pytest.mark.trains
@pytest.mark.parametrize(
    "n_workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_3_neither_order_nor_number_of_workers_changes_anything(tiny_config, tiny_run, tmp_path, n_workers):
    overrides = [f"execution={{kind: process_pool, n_workers: {n_workers}}}"]
    run = nas.run_search(tiny_config, tmp_path / "runs" / "pool", overrides=overrides)
    assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)
    assert weights(run.path) == weights(tiny_run)


@pytest.mark.trains
def test_3_the_seed_alone_decides(tiny_config, tiny_run, tmp_path):
    torch.manual_seed(123)
    np.random.seed(123)
    again = nas.run_search(tiny_config, tmp_path / "a" / "again")
    assert weights(again.path) == weights(tiny_run)
    other = nas.run_search(tiny_config, tmp_path / "a" / "other", overrides=["seed=2"])
    assert weights(other.path) != weights(tiny_run)


# 4. No silent number


class Uncounted(nn.Module):
    """Does what no formula counts."""

    def forward(self, x):
        return x + torch.linalg.matrix_exp(x[..., :1, :1])


@dataclass(frozen=True)
class OddSpace(ModelSpace):
    """Networks of which some hold an operator without a formula."""

    name: ClassVar[str] = "odd"

    @property
    def genes(self):
        kinds = Gene("kind", ("plain", "odd"), GeneKind.CATEGORICAL)
        return (kinds, Gene("width", tuple("12345678"), GeneKind.ORDINAL))

    def build(self, genotype, *, in_channels, n_classes, seed):
        kind, width = genotype.genes
        torch.manual_seed(seed)
        layers = [nn.Conv2d(in_channels, width + 1, 3), *([Uncounted()] if kind else [])]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width + 1, n_classes))


def test_4_an_operator_without_a_formula_fails_its_candidate_by_name(tiny_config, tmp_path):
    run = nas.run_search(
        tiny_config,
        tmp_path / "run",
        trust_code=True,
        overrides=[f"search_space={{kind: {__name__}:OddSpace}}", "controller.n_generations=2", "constraints=[]"],
    )
    odd = [record for record in run.records if record.candidate.genotype.genes[0] == 1]
    assert odd
    for record in run.records:
        assert record.state is (RecordState.FAILED if record in odd else RecordState.COMPLETE)
    for record in odd:
        assert "linalg_matrix_exp" in record.failure.reason
        assert "n_macs" not in record.metrics
        assert "accuracy" not in record.metrics


@dataclass(frozen=True)
class Blind(FakeDevice):
    """Cannot measure memory, and says so."""

    def measure_peak_memory(self, model, input_shape):
        raise UnsupportedMeasurementError("this device cannot tell its memory")


def test_4_a_cost_that_cannot_be_measured_is_no_number(tiny_config, tmp_path):
    overrides = [
        f"devices={{blind: {{kind: {__name__}:Blind}}}}",
        "objectives=[{metric: accuracy}, {metric: peak_memory_bytes, device: blind}]",
        "constraints=[]",
        "reference_point={peak_memory_bytes: 1e6}",
    ]
    with pytest.raises(EvaluationError, match="this device cannot tell its memory"):
        nas.run_search(tiny_config, tmp_path / "run", trust_code=True, overrides=overrides)
    run = nas.load_run(tmp_path / "run")
    assert {record.state for record in run.records} == {RecordState.FAILED}
    assert run.front == ()


# 5. Honest timing

LOG = []


@dataclass(frozen=True)
class Drifting(FakeDevice):
    """Writes down whom it measures, and slows down by a percent at each reading."""

    def measure_latency(self, model, input_shape):
        assert not model.training
        LOG.append(("measure", id(model)))
        factor = 1.01 ** len(LOG)
        stats = super().measure_latency(model, input_shape)
        return dataclasses.replace(
            stats,
            median_ms=stats.median_ms * factor,
            p10_ms=stats.p10_ms * factor,
            p90_ms=stats.p90_ms * factor,
        )


@pytest.fixture
def drifting(tiny_config, tmp_path, monkeypatch):
    """A run whose measurements and trainings stand in LOG, in their order."""

    def recorded_train(model, *arguments, **options):
        LOG.append(("train", id(model)))
        return train(model, *arguments, **options)

    train = stages.train
    LOG.clear()
    monkeypatch.setattr(stages, "train", recorded_train)
    overrides = [f"devices={{phone: {{kind: {__name__}:Drifting, spread: 0.1}}}}", "constraints.0.max=100.0", HERE]
    return nas.run_search(tiny_config, tmp_path / "run", trust_code=True, overrides=overrides)


def test_5_batches_are_measured_before_they_are_trained_and_the_front_again_side_by_side(drifting):
    kinds = "".join("M" if kind == "measure" else "T" for kind, _ in LOG)
    assert re.fullmatch("(MMMMTTTT){3}M+", kinds)
    measured = [model for _, model in LOG[24:]]
    while measured:  # A B C A B C A B C, as often as the front was another afterwards
        n_members = measured.index(measured[0], 1)
        assert n_members == len(set(measured[:n_members])) >= 2
        assert measured[: 3 * n_members] == measured[:n_members] * 3
        del measured[: 3 * n_members]


def test_5_a_front_members_latency_is_the_median_of_its_confirmed_rounds(drifting):
    for record in drifting.front:
        conditions = record.conditions["latency_ms"]
        assert len(set(conditions["rounds"])) == 3
        assert record.metrics["latency_ms"] == sorted(conditions["rounds"])[1]
    with RunFolder.read(drifting.path) as folder:
        first = folder.store.records(confirmed=False)
    assert all("rounds" not in record.conditions["latency_ms"] for record in first)


def test_5_spread_and_conditions_stand_beside_the_number(tiny_run):
    for record in nas.load_run(tiny_run).records:
        latency, conditions = record.metrics["latency_ms"], record.conditions["latency_ms"]
        assert (conditions["p10_ms"], conditions["p90_ms"]) == pytest.approx((latency * 0.9, latency * 1.1))
        assert {"device", "runtime", "precision", "batch_size", "input_shape", "n_runs"} <= conditions.keys()


def watched(subject):
    """Leave a mark while it runs, in a worker process, for half as long as a process takes to look."""
    mark = Path(os.environ["MARKS"]) / subject.candidate.id
    mark.touch()
    time.sleep(0.02)
    mark.unlink()
    return float(subject.genotype.genes[0])


@dataclass(frozen=True)
class Alone(FakeDevice):
    """Refuses to measure while a candidate is at work anywhere."""

    def measure_latency(self, model, input_shape):
        assert list(Path(os.environ["MARKS"]).iterdir()) == []
        return super().measure_latency(model, input_shape)


@pytest.mark.parametrize("scheduling", ["steady_state", pytest.param("generational", marks=pytest.mark.slow)])
def test_5_nothing_is_at_work_while_a_device_measures(tiny_config, tmp_path, monkeypatch, scheduling):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("MARKS", str(marks))
    overrides = [
        f"metrics={{watched: {{function: {__name__}:watched, chance_level: 0}}}}",
        "objectives=[{metric: watched, direction: maximize}, {metric: latency_ms, device: phone}]",
        f"devices={{phone: {{kind: {__name__}:Alone}}}}",
        "execution={kind: process_pool, n_workers: 2}",
        f"scheduling={scheduling}",
    ]
    run = nas.run_search(tiny_config, tmp_path / "run", trust_code=True, overrides=overrides)
    assert len(run.records) == 12
    assert {str(record.state) for record in run.records} <= {"complete", "infeasible"}


def test_5_train_mode_is_refused():
    with pytest.raises(ValueError, match="eval mode"):
        TorchCpuDevice().measure_latency(nn.Conv2d(1, 1, 1).train(), (1, 4, 4))


# 6. Signs flip once


def test_6_an_objective_maximised_and_its_negative_minimised_are_the_same_search(tmp_path, monkeypatch):
    live = []
    monkeypatch.setattr(PlotListener, "on_end", lambda listener, search: live.append(search.hypervolume))
    monkeypatch.setattr(PlotListener, "on_batch", lambda listener, search: None)
    cost = {"metric": "price", "direction": "minimize"}
    up = run_grid(tmp_path / "up", reference_point={"gain": -1.0, "price": 20.0})
    down = run_grid(
        tmp_path / "down",
        metrics={name: {"function": f"{__name__}:{name}"} for name in ("loss", "price")},
        objectives=[{"metric": "loss", "direction": "minimize"}, cost],
        reference_point={"loss": 1.0, "price": 20.0},
    )
    assert [r.candidate for r in up.records] == [r.candidate for r in down.records]
    assert [r.id for r in up.front] == [r.id for r in down.front]
    assert up.hypervolumes().tolist() == down.hypervolumes().tolist()
    assert live == [up.hypervolumes()[-1]] * 2
    assert up.knee.id == down.knee.id
    assert max(r.metrics["gain"] for r in up.records) == up.front[0].metrics["gain"]  # best first


# 7. The archive is all-time


def dominates(one, other):
    no_worse = one["gain"] >= other["gain"] and one["price"] <= other["price"]
    return no_worse and (one["gain"] > other["gain"] or one["price"] < other["price"])


def test_7_the_front_is_what_no_complete_record_dominates_with_all_equal_points(tmp_path):
    functions = {"gain": f"{__name__}:gain", "price": f"{__name__}:price_of_two"}
    run = run_grid(
        tmp_path / "run",
        search_space={"kind": "integers", "n_genes": 3, "n_values": 4},
        metrics={name: {"function": function} for name, function in functions.items()},
    )
    complete = [record for record in run.records if record.is_complete]
    expected = {r.id for r in complete if not any(dominates(other.metrics, r.metrics) for other in complete)}
    assert {record.id for record in run.front} == expected
    points = [tuple(r.metrics.values()) for r in run.front]
    assert len(set(points)) < len(points)  # genes differ where objectives do not
    assert len({record.batch for record in run.front}) > 1


@dataclass(frozen=True)
class Mirrored(SearchSpace):
    """Genotypes whose reversal builds the same thing: 3**4 = 81 genotypes, (81 + 9) / 2 = 45 distinct."""

    name: ClassVar[str] = "mirrored"

    @property
    def genes(self):
        return tuple(Gene(f"g{i}", ("a", "b", "c"), GeneKind.CATEGORICAL) for i in range(4))

    def canonical(self, genotype):
        return Genotype(self.name, min(genotype.genes, genotype.genes[::-1]))


def test_7_no_network_is_asked_for_twice_and_none_is_left_out(tmp_path):
    run = run_grid(
        tmp_path / "run",
        search_space={"kind": f"{__name__}:Mirrored"},
        controller={"kind": "nsga2", "population_size": 8, "n_generations": 50},
    )
    genes = [record.candidate.genotype.genes for record in run.records]
    assert len(genes) == len(set(genes)) == 45
    assert all(g <= g[::-1] for g in genes)


# 8. One reference point


def test_8_it_is_fixed_before_the_first_training_and_stays(tiny_config, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    path = tmp_path / "run"
    overrides = [
        "constraints=[]",
        f"devices={{phone: {{kind: {__name__}:Drifting}}}}",
        HERE,
    ]  # no sample is like another
    with monkeypatch.context() as patch:
        patch.setattr(stages, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nas.run_search(tiny_config, path, overrides=overrides, trust_code=True)
    with RunFolder.read(path) as folder:
        sample = [row["metrics"]["latency_ms"] for row in folder.store.fact("reference_sample")]
        assert all("accuracy" not in row["metrics"] for row in folder.store.fact("reference_sample"))
    worst, best = max(sample), min(sample)
    expected = {"accuracy": 0.1, "latency_ms": pytest.approx(worst + 0.1 * (worst - best))}  # ten classes
    assert nas.load_run(path).reference_point == expected
    resumed = nas.run_search(tiny_config, path, resume=True, overrides=overrides, trust_code=True)
    assert resumed.reference_point == expected


def test_8_the_configuration_wins_and_what_lies_outside_is_reported(tmp_path):
    run = run_grid(tmp_path / "run", reference_point={"gain": 3.0, "price": 20.0})
    assert run.reference_point == {"gain": 3.0, "price": 20.0}
    outside = [record.id for record in run.front if record.metrics["gain"] <= 3.0]
    assert outside
    assert [record.id for record in run.outside_reference_point()] == outside
    (line,) = [line for line in summary_lines(run) if "so far out in" in line]
    assert all(candidate in line for candidate in outside)


# 9. The test split never selects


class UntestedClothes(FashionMnist):
    """Its test split cannot be read."""

    def load(self, split):
        if split is Split.TEST:
            raise DataError(["the test split was read"])
        return super().load(split)


class UntestedFaces(SyntheticFaces):
    """Its test split cannot be read."""

    def load(self, split):
        assert split is not Split.TEST
        return super().load(split)


def test_9_search_and_teacher_never_read_it_and_a_retraining_logs_before_it_does(tiny_config, tmp_path):
    kind = f"data.kind={__name__}:UntestedClothes"
    run = nas.run_search(tiny_config, tmp_path / "run", trust_code=True, overrides=[kind, "references=[resnet]"])
    assert run.teacher is not None
    assert [record.is_complete for record in run.references] == [True]
    with RunFolder.read(run.path) as folder:
        assert folder.store.test_readings() == []
    with pytest.raises(DataError, match="the test split was read"):
        nas.retrain(run.path, run.knee.id, 1, trust_code=True)
    with RunFolder.read(run.path) as folder:
        readings = folder.store.test_readings()
    assert [(candidate, purpose) for candidate, purpose, _ in readings] == [(run.knee.id, "retraining, 1 epochs")]
    assert nas.load_run(run.path).find(run.knee.id).retrained == {}


def test_9_nor_does_the_encoder(tmp_path):
    config = {
        "name": "faces",
        "data": {"kind": f"{__name__}:UntestedFaces", "image_size": 32, "n_train": 8, "n_validation": 4},
        "teacher": {"kind": "unet", "width": 4, "recipe": {"epochs": 1}},
        "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1},
        "pretraining": {"epochs": 1},
        "training": {"device": "cpu", "epochs": 1},
        "objectives": [{"metric": "mean_iou"}, {"metric": "n_params"}],
        "reference_point": {"n_params": 1e6},
        "controller": {"kind": "random", "n_candidates": 2, "batch_size": 2},
        "tensorboard": False,
    }
    run = nas.run_search(config, tmp_path / "run", trust_code=True)
    assert len(run.records) == 2
    assert list((tmp_path / "artifacts").glob("encoder-*.safetensors"))


# 10. Files from disk are data


def called_name(node):
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def test_10_no_source_reads_what_can_run_code():
    unsafe_modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    unsafe_calls = {"eval", "exec", "yaml.unsafe_load", "yaml.full_load", "yaml.load", "yaml.load_all", "joblib.load"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not {str(name).split(".")[0] for name in names} & unsafe_modules, path
            assert called_name(node) not in unsafe_calls, path
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "allow_pickle":
                    assert ast.unparse(keyword.value) == "False", path
            if called_name(node) == "np.load":
                assert "allow_pickle" in {keyword.arg for keyword in node.keywords}, path
            if called_name(node) == "torch.load":
                assert ast.unparse(node).endswith("weights_only=True)"), path


def test_10_a_yaml_tag_runs_nothing(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ConfigurationError):
        nas.run_search(path, tmp_path / "run", trust_code=True)
    assert not (tmp_path / "made").exists()


def test_10_pickled_weights_are_refused_unread(tiny_config, tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "teacher.pt")
    teacher = f"teacher={{kind: resnet, depth: 8, width: 4, weights: {tmp_path / 'teacher.pt'}}}"
    with pytest.raises(InputError, match=r"teacher\.pt: these weights are not of the teacher"):
        nas.run_search(tiny_config, tmp_path / "run", overrides=[teacher])


def test_10_code_that_a_configuration_names_is_not_imported_unless_trusted(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    metrics = {"gain": {"function": "evil_module:gain"}, "price": {"function": "evil_module:price"}}
    with pytest.raises(ConfigurationError, match="names Python code .* pass --trust-code"):
        nas.run_search(grid(metrics=metrics), tmp_path / "run")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()


def test_10_names_come_out_as_they_are(tmp_path):
    run = run_grid(tmp_path / "run")
    evil = r"[red]x[/red] $\bad{$"
    candidate = dataclasses.replace(run.front[0].candidate, description=evil)
    records = tuple(dataclasses.replace(record, candidate=candidate) for record in run.front[:1])
    metrics = {evil: 1.0, "gain": 1.0}
    records = tuple(dataclasses.replace(record, metrics=metrics) for record in records)
    objectives = (Objective(evil, Direction.MINIMIZE), Objective("gain", Direction.MAXIMIZE))
    run = dataclasses.replace(
        run, name=evil, records=records, references=records, objectives=objectives, reference_point=metrics
    )
    text = printed(front_table(run), records_table(run), *summary_lines(run))
    assert f"Pareto front of {evil}" in text
    assert f"Records of {evil}" in text
    assert (
        text.count(evil) == 10
    )  # a column in each table, 3 descriptions, 2 in the line of the reference, 1 of its limit
    assert evil in to_csv(run)
    assert json.loads(to_json(run))[0]["description"] == evil
    save_plots(run, tmp_path / "plots")  # matplotlib refuses a formula like this one
    axes = draw_pair(run, *objectives).axes[0]
    for shown in (axes.get_title(loc="left"), axes.get_xlabel(), axes.texts[-1].get_text()):
        assert evil.replace("$", r"\$") in shown


# 11. Show, report and float export need only the run's folder


@pytest.fixture
def orphan(tiny_config, tmp_path):
    """A finished run whose data and artifacts are gone."""
    root = tmp_path / "data"
    shutil.copytree(tiny_config.parent / "data", root)
    run = nas.run_search(tiny_config, tmp_path / "runs" / "run", overrides=[f"data.root={root}"])
    shutil.rmtree(root)
    path = tmp_path / "elsewhere"
    run.path.rename(path)
    shutil.rmtree(tmp_path / "runs")
    return path


def test_11_show_plot_and_export_work_without_the_data(orphan, tiny_run):
    run = nas.load_run(orphan)
    assert to_json(run, all_records=True) == to_json(nas.load_run(tiny_run), all_records=True)
    assert all(path.exists() for path in save_plots(run, orphan / "plots"))
    assert nas.export(orphan, run.knee.id).stat().st_size > 1000
    with pytest.raises(DataError, match="train-images"):
        nas.retrain(orphan, run.knee.id, 1)


def test_11_show_and_plot_work_without_the_users_classes(tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text(
        "def gain(subject):\n    return 1.0\n\n\ndef price(subject):\n    return float(sum(subject.genotype.genes))\n"
    )
    metrics = {name: {"function": f"my_metrics:{name}"} for name in ("gain", "price")}
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        before = run_grid(tmp_path / "run", metrics=metrics)
    (tmp_path / "my_metrics.py").unlink()
    sys.modules.pop("my_metrics")
    run = nas.load_run(tmp_path / "run")
    assert run.rows() == before.rows()
    assert "Pareto front of grid" in printed(front_table(run))
    assert save_plots(run, tmp_path / "plots")


def test_11_a_retraining_on_other_data_is_refused(tiny_config, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tiny_config.parent / "data", root)
    run = nas.run_search(tiny_config, tmp_path / "run", overrides=[f"data.root={root}", "controller.n_generations=1"])
    labels = root / "train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[-60:] = bytes((label + 1) % 10 for label in content[-60:])
    labels.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(InputError, match="data is not what this run was started with"):
        nas.retrain(run.path, run.knee.id, 1)
    with RunFolder.read(run.path) as folder:
        assert folder.store.test_readings() == []


def test_11_what_is_exported_needs_the_stored_weights(tiny_run):
    run = nas.load_run(tiny_run)
    model = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(model, tiny_run / "weights" / f"{run.knee.id}.quick.safetensors")


# 12. Nothing is read wrongly in silence


def test_12_an_image_that_was_saved_sideways_is_read_as_viewers_show_it(tmp_path):
    upright = np.zeros((16, 16), dtype=np.uint8)
    upright[:, :8] = 255
    for index in range(4):
        _save(tmp_path / "train" / "masks" / f"{index}.png", upright // 255)
        exif = Image.Exif()
        exif[0x0112] = 6  # stored a quarter turn to the left of what is to be seen
        sideways = Image.fromarray(np.rot90(upright)).convert("RGB")
        _save(tmp_path / "train" / "images" / f"{index}.png", sideways, exif=exif)
    data = ImageMaskFolder(root=tmp_path, class_names=("a", "b"), image_size=16)
    examples = data.load(Split.TRAIN)
    assert np.array_equal(examples.images[:, 0] > 127, examples.targets == 1)
    assert (examples.targets == 1).any()


def test_12_files_that_are_not_read_are_named(tmp_path):
    for name in ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "train/dog/1.png", "extra/cat/2.png"):
        _save(tmp_path / name, np.zeros((8, 8, 3), dtype=np.uint8))
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"rubbish")
    data = ImageFolder(root=tmp_path, image_size=8, validation_fraction=0.5)
    data.check()
    (told,) = (note for note in data.notes() if "extra" in note)
    assert "1 of no split" in told
    assert "1 hidden or of" in told


def test_12_a_class_that_nobody_shows_is_told_of_before_anything_is_trained(tmp_path):
    for split, values in (("train", (0, 1)), ("val", (0, 1))):
        for index in range(4):
            mask = np.full((8, 8), values[index % 2], dtype=np.uint8)
            _save(tmp_path / "data" / split / "masks" / f"{index}.png", mask)
            _save(tmp_path / "data" / split / "images" / f"{index}.png", np.repeat(mask[..., None], 3, axis=2))
    configuration = {
        "name": "masks",
        "data": {
            "kind": "image_mask_folder",
            "root": str(tmp_path / "data"),
            "class_names": ["sky", "road", "boat"],
            "image_size": 8,
        },
        "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1, "decoder_widths": [8, 16]},
        "training": {"device": "cpu", "epochs": 1, "batch_size": 2},
        "objectives": [{"metric": "mean_iou"}],
        "controller": {"kind": "random", "n_candidates": 1},
        "execution": {"kind": "serial", "isolated": False},
        "tensorboard": False,
    }
    console = Console(file=io.StringIO(), width=300)
    (record,) = nas.run_search(configuration, tmp_path / "run", console=console).records
    told = console.file.getvalue()
    counts = "sky 2 / 2 (50.00%), road 2 / 2 (50.00%), boat 0 / 0 (0.00%)"
    assert told.index(counts) < told.index("training or validation shows boat") < told.index(record.id)


def _save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
