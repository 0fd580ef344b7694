"""How early final scores can be told: synthetic trainings whose losses say what is to come."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kendalltau
from typer.testing import CliRunner

from nas import api
from nas.analysis import Run, to_csv, to_json
from nas.analysis.curves import CurveQuality, CurveReport
from nas.cli.app import app
from nas.errors import InputError
from nas.predictors.learning_curves import CurvePredictor, LearningCurve
from nas.values.objectives import Direction, Objective
from nas.values.records import Candidate, Record, RecordState
from search_spaces import Integers

SPACE = Integers(n_genes=1, n_values=100)
LOSSES = np.random.default_rng(0).uniform(0.5, 2.0, (12, 3))  # of epochs 1, 2, 3
FINALS = 1.0 - LOSSES[:, :2].sum(axis=1) / 10  # the fastest in two epochs is the best
OBJECTIVES = (Objective("accuracy", Direction.MAXIMIZE),)
INTERIM = 0.5 * FINALS


def record(number, losses, score, interim=None, state=RecordState.COMPLETE):
    between = {} if interim is None else {"accuracy@1": interim}
    return Record(
        Candidate.create(SPACE, SPACE.genotype((number,)), 0),
        state,
        {"n_params": float(number), **between, "accuracy": score},
        number=number,
        batch=0,
        conditions={name: {"epochs": 2} for name in between},
        epoch_losses=tuple(losses),
    )


def run(*records, objectives=OBJECTIVES):
    return Run(Path("runs/x"), "x", objectives, (), records, (), None, None, len(records))


def trainings(losses=LOSSES, finals=FINALS, interim=None):
    interim = [None] * len(finals) if interim is None else interim
    return [record(i, *values) for i, values in enumerate(zip(losses.tolist(), finals, interim, strict=True))]


def test_each_number_of_epochs_is_judged_by_what_is_known_then():
    report = CurveReport.of(run(*trainings()))
    assert (report.metric, report.n_records, report.n_epochs) == ("accuracy", 12, 3)
    assert report.standard_deviation == pytest.approx(FINALS.std())
    one, two = report.qualities
    assert (one.n_epochs, one.n_scores, two.n_epochs, two.n_scores) == (1, 0, 2, 0)
    assert two.training_speed_tau == pytest.approx(1.0)
    assert one.training_speed_tau == pytest.approx(kendalltau(-LOSSES[:, 0], FINALS).statistic)
    predictor = CurvePredictor()
    predictor.fit([LearningCurve(tuple(losses)) for losses in LOSSES[:, :2]], FINALS)
    expected = predictor.held_out()
    assert two.kendall_tau == pytest.approx(kendalltau(expected, FINALS).statistic)
    assert two.mean_absolute_error == pytest.approx(np.abs(expected - FINALS).mean())
    assert two.kendall_tau > 0.9 > one.kendall_tau
    assert two.mean_absolute_error < 0.2 * report.standard_deviation


def test_scores_between_the_stages_count_from_the_epoch_at_which_they_were_taken():
    noise = np.random.default_rng(1).uniform(0.5, 2.0, LOSSES.shape)
    one, two = CurveReport.of(run(*trainings(losses=noise, interim=INTERIM))).qualities
    assert (one.n_scores, two.n_scores) == (0, 1)
    assert two.kendall_tau > 0.9 > one.kendall_tau
    # one candidate without it: nobody's is looked at
    missing = [*trainings(losses=noise, interim=INTERIM)[1:], record(0, noise[0], FINALS[0])]
    assert [quality.n_scores for quality in CurveReport.of(run(*missing)).qualities] == [0, 0]


def test_only_complete_candidates_with_a_curve_count():
    others = [record(50, [9.0], 0.1, state=RecordState.PRUNED), record(51, [], 0.9)]
    assert CurveReport.of(run(*others, *trainings())) == CurveReport.of(run(*trainings()))


def test_three_exact_curves_by_hand():
    curves = [LearningCurve((loss,)) for loss in (1.0, 2.0, 3.0)]
    quality = CurveQuality.of(curves, np.array([0.1, 0.3, 0.2]))
    assert quality.training_speed_tau == pytest.approx(-1 / 3)  # of three pairs two are the wrong way round


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (trainings()[:9], "at least 10 complete candidates .*, this run has 9 of 9 complete ones"),
        ([record(i, [], 0.1) for i in range(12)], "this run has 0 of 12 complete ones"),
        (trainings(losses=LOSSES[:, :1]), "at least 2 epochs to predict from the first, these have 1"),
        ([*trainings(), record(40, [1.0], 0.5)], r"the same number of epochs, these have \[1, 3\]"),
        (trainings(finals=np.full(12, 0.5)), "accuracy is 0.5 for every candidate"),
    ],
)
def test_runs_that_tell_nothing_are_refused(records, message):
    with pytest.raises(InputError, match=f"runs/x: .*{message}"):
        CurveReport.of(run(*records))


def test_only_a_score_of_the_run_can_be_chosen():
    with pytest.raises(InputError, match="metric must be a score of runs/x, got 'n_params'; those are: accuracy"):
        CurveReport.of(run(*trainings()), metric="n_params")
    costs = run(*trainings(), objectives=(Objective("n_params", Direction.MINIMIZE),))
    with pytest.raises(InputError, match="no objective is a score; choose a metric: accuracy"):
        CurveReport.of(costs)
    assert CurveReport.of(costs, metric="accuracy").metric == "accuracy"


def test_the_command_prints_a_table_and_json(monkeypatch):
    given = run(*trainings())
    monkeypatch.setattr(api.analysing.Run, "load", lambda path: given)
    arguments = ["analyse", "curves", "runs/x"]
    printed = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout
    assert json.loads(printed) == json.loads(json.dumps(dataclasses.asdict(CurveReport.of(given))))
    console = Console(file=io.StringIO(), width=80)
    console.print(CurveReport.of(given).table("[red]x"))
    shown = console.file.getvalue()
    assert "accuracy of [red]x, predicted from the first epochs" in shown
    assert f"2 of 3 │      0 │ {CurveReport.of(given).qualities[1].kendall_tau:.3f}" in shown


def test_a_run_keeps_the_losses_of_each_epoch_as_curves_and_not_as_columns(tiny_run):
    read = Run.load(tiny_run)
    complete = [record for record in read.records if record.is_complete]
    assert complete
    assert {len(record.epoch_losses) for record in complete} == {1}
    assert all(record.epoch_losses[0] > 0 for record in complete)
    for text in (to_csv(read, all_records=True), to_json(read, all_records=True)):
        assert "task_loss" not in text
