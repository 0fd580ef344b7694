"""Quality of predictors on a run's own records, each batch left out once."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kendalltau
from typer.testing import CliRunner

import nas
from nas.analysis import predictor as report_module
from nas.analysis.predictor import PredictorReport
from nas.api import analyse_predictor
from nas.cli.app import app
from nas.errors import InputError
from nas.predictors.base import Prediction, Predictor
from search_spaces.spaces.integers import Integers

SPACE = {"kind": "integers", "n_genes": 4, "n_values": 5}


class Mean(Predictor):
    """Expects the mean of what it was fitted to, plus the first gene; keeps what it was fitted to."""

    fits = []

    def fit(self, features, values):
        self.fits.append(len(values))
        self._mean = values.mean()

    def predict(self, features):
        n = len(features.matrix)
        return Prediction(self._mean + features.matrix[:, 0], np.ones(n))

    def held_out(self):
        raise NotImplementedError


def gain(subject):
    return float(subject.genotype.genes[0] * 2 + subject.genotype.genes[1])


def price(subject):
    return float(sum(subject.genotype.genes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = {
        "name": "grid",
        "search_space": SPACE,
        "metrics": {name: {"function": f"{__name__}:{name}"} for name in ("gain", "price")},
        "objectives": [{"metric": "gain", "direction": "maximize"}, {"metric": "price", "direction": "minimize"}],
        "controller": {"kind": "random", "n_candidates": 60, "batch_size": 12},
        "tensorboard": False,
    }
    return nas.run_search(config, tmp_path_factory.mktemp("run") / "run", trust_code=True)


def test_each_batch_is_left_out_once(run, monkeypatch):
    monkeypatch.setattr(report_module, "PREDICTORS", {"mean": Mean})
    Mean.fits.clear()
    report = PredictorReport.of(run, Integers(n_genes=4, n_values=5), metric="gain")
    assert Mean.fits == [48] * 5
    assert (report.n_records, report.n_folds, report.k) == (60, 5, 12)
    genes = np.array([record.candidate.genotype.genes for record in run.records])
    losses = -(genes[:, 0] * 2.0 + genes[:, 1])
    batches = np.array([record.batch for record in run.records])
    expected = [losses[batches != batch].mean() + genes[i, 0] / 4 for i, batch in enumerate(batches)]
    assert report.qualities["gain"]["mean"].kendall_tau == pytest.approx(kendalltau(expected, losses).statistic)


def test_real_predictors_learn_what_is_there_to_learn(run):
    report = analyse_predictor(run.path, trust_code=True)
    assert report.qualities.keys() == {"gain", "price"}
    assert report.qualities["gain"]["gaussian_process"].kendall_tau > 0.85
    assert report.qualities["gain"]["trees"].kendall_tau > 0.5


def test_the_command_prints_a_table_and_json(run, monkeypatch):
    monkeypatch.setattr(report_module, "PREDICTORS", {"mean": Mean})
    arguments = ["analyse", "predictor", str(run.path), "--trust-code", "--metric", "gain", "--k", "5"]
    printed = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout
    figures = json.loads(printed)
    assert figures["k"] == 5
    assert figures["qualities"]["gain"]["mean"].keys() == {
        "kendall_tau", "spearman", "precision_at_k", "n_at_k", "calibration_error",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=120)
    console.print(analyse_predictor(run.path, metric="gain", k=5, trust_code=True).table("[red]run"))
    shown = console.file.getvalue()
    assert "Predictors on [red]run, cross-validated over batches" in shown
    assert f"{figures['qualities']['gain']['mean']['kendall_tau']:.3f}" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "gains"}, "metric must be an objective of .*, got 'gains'; those are: gain, price"),
        ({"k": 61}, r"k must lie in 1 \.\. 60, the number of complete candidates, got 61"),
        ({"k": 0}, "k must lie in"),
    ],
)
def test_what_the_run_does_not_hold_is_refused(run, options, message):
    with pytest.raises(InputError, match=message):
        PredictorReport.of(run, Integers(n_genes=4, n_values=5), **options)


def test_a_run_of_one_batch_is_too_small(run):
    small = dataclasses.replace(run, records=run.records[:12])
    with pytest.raises(InputError, match="at least 10 complete candidates of two batches, this run has 12 of 1"):
        PredictorReport.of(small, Integers(n_genes=4, n_values=5))
