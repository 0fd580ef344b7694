import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

import nas
from nas.analysis.plots import PAPER, draw_hypervolume, draw_pair, save_plots
from nas.values.objectives import Direction, Objective
from nas.values.records import RecordState


@pytest.fixture
def run(tiny_run):
    return nas.load_run(tiny_run)


def collections(axes):
    """Return by label of the legend the points that are drawn."""
    return {points.get_label(): np.asarray(points.get_offsets()) for points in axes.collections}


def points(run, records):
    y, x = run.objectives
    return [[record.metrics[x.metric], record.metrics[y.metric]] for record in records]


def test_every_candidate_and_the_front_are_drawn_where_they_are(run):
    accuracy, latency = run.objectives
    axes = draw_pair(run, latency, accuracy).axes[0]
    drawn = collections(axes)
    np.testing.assert_array_equal(drawn["candidate"], points(run, [r for r in run.records if r.is_complete]))
    np.testing.assert_array_equal(drawn["Pareto front"], points(run, run.front))
    assert axes.get_xlabel() == "latency_ms   ← better"
    assert axes.get_ylabel() == "accuracy   better →"
    assert axes.get_title(loc="left") == "tiny"


def test_the_staircase_joins_the_best_of_the_pair(run):
    accuracy, latency = run.objectives
    steps, *_ = draw_pair(run, latency, accuracy).axes[0].lines
    expected = sorted({(r.metrics["latency_ms"], r.metrics["accuracy"]) for r in run.front})
    assert sorted(set(zip(*steps.get_data(), strict=True))) == expected


def test_infeasible_ones_are_drawn_where_both_are_known(run):
    accuracy, latency = run.objectives
    assert any(r.state is RecordState.INFEASIBLE for r in run.records)
    assert "infeasible" not in collections(draw_pair(run, latency, accuracy).axes[0])  # they were never trained
    records = tuple(
        dataclasses.replace(r, metrics={"accuracy": 0.5, **r.metrics}) if not r.is_complete else r for r in run.records
    )
    known = dataclasses.replace(run, records=records)
    infeasible = [r for r in records if r.state is RecordState.INFEASIBLE]
    drawn = collections(draw_pair(known, latency, accuracy).axes[0])["infeasible"]
    np.testing.assert_array_equal(drawn, points(run, infeasible))


def test_a_wide_range_gets_a_logarithmic_axis(run):
    wide = Objective("wide", Direction.MINIMIZE)
    records = [dataclasses.replace(r, metrics={**r.metrics, "wide": 2.0**i}) for i, r in enumerate(run.records)]
    run = dataclasses.replace(run, records=tuple(records))
    axes = draw_pair(run, wide, run.objectives[0]).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_the_hypervolume_is_drawn_after_each_candidate(run):
    (line,) = draw_hypervolume(run).axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))
    np.testing.assert_allclose(line.get_ydata(), run.hypervolumes() / run.hypervolumes()[-1])


def test_a_score_between_0_and_1_never_gets_a_logarithmic_axis(run):
    records = [dataclasses.replace(r, metrics={**r.metrics, "accuracy": 0.9}) for r in run.records]
    records[0] = dataclasses.replace(records[0], metrics={**records[0].metrics, "accuracy": 0.001})
    run = dataclasses.replace(run, records=tuple(records))
    assert draw_pair(run, run.objectives[1], run.objectives[0]).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_for_papers_have_their_data_beside_them(run, tmp_path, form, start):
    paths = save_plots(run, tmp_path, dataclasses.replace(PAPER, form=form))
    assert [path.suffix for path in paths] == [f".{form}", ".csv"] * 2
    assert all(path.read_bytes().startswith(start) for path in paths[::2])
    if form == "svg":
        assert "accuracy" in paths[0].read_text()  # texts stay texts
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert {row["candidate"] for row in rows if row["on_front"] == "True"} == {record.id for record in run.front}
    volumes = [float(row["hypervolume"]) for row in csv.DictReader(paths[3].read_text().splitlines())]
    np.testing.assert_array_equal(volumes, run.hypervolumes())


def test_a_run_without_records_is_drawn_empty(run, tmp_path):
    empty = dataclasses.replace(run, records=(), references=())
    for path in save_plots(empty, tmp_path / "plots"):
        with Image.open(path) as image:
            assert image.size[0] > 500


def test_every_pair_has_its_file_with_a_plain_name(run, tmp_path):
    third = Objective("latency_ms[the phone/1]", Direction.MINIMIZE)
    records = tuple(dataclasses.replace(r, metrics={**r.metrics, third.metric: 1.0}) for r in run.records)
    run = dataclasses.replace(run, records=records, objectives=(*run.objectives, third), reference_point=None)
    assert [path.name for path in save_plots(run, tmp_path)] == [
        "front_accuracy_over_latency_ms.png",
        "front_accuracy_over_latency_ms_the_phone_1.png",
        "front_latency_ms_over_latency_ms_the_phone_1.png",
        "hypervolume.png",
    ]


def test_what_stays_disturbed_is_ringed(run):
    accuracy, latency = run.objectives
    assert "disturbed reading" not in collections(draw_pair(run, latency, accuracy).axes[0])
    conditions = {"latency_ms": {"is_disturbed": True, "undisturbed_ms": 0.001}}
    records = [dataclasses.replace(r, conditions=conditions) if r.id == run.knee.id else r for r in run.records]
    busy = dataclasses.replace(run, records=tuple(records))
    drawn = collections(draw_pair(busy, latency, accuracy).axes[0])["disturbed reading"]
    np.testing.assert_array_equal(drawn, points(run, [run.knee]))
