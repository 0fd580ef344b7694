"""Which member of the front a user's words name."""

import dataclasses

import pytest

from nas.analysis.choice import Bound, Preference, choose, chosen
from nas.errors import InputError
from nas.store.run import Run
from nas.values.objectives import Direction, Objective
from nas.values.records import Candidate, Record, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=2, n_values=9)
OBJECTIVES = (
    Objective("mean_iou", Direction.MAXIMIZE),
    Objective("latency_ms", Direction.MINIMIZE, "ms"),
    Objective("n_params", Direction.MINIMIZE, "count"),
)
# mean_iou, latency_ms, n_params; all on the front but the last.
POINTS = (
    (0.8, 9.0, 900_000),
    (0.7, 5.0, 500_000),
    (0.6, 2.0, 300_000),
    (0.6, 3.0, 200_000),
    (0.3, 1.0, 400_000),
    (0.2, 9.0, 900_000),
)


def record(number, values):
    candidate = Candidate.create(SPACE, SPACE.genotype((number, 0)), 0)
    metrics = dict(zip(("mean_iou", "latency_ms", "n_params"), map(float, values), strict=True))
    return Record(candidate, RecordState.COMPLETE, {**metrics, "n_macs": 10.0 * number}, number, 0)


RECORDS = tuple(record(*item) for item in enumerate(POINTS))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, "run", OBJECTIVES, (), RECORDS, (), None, None, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("min latency_ms", 4),
        ("max mean_iou", 0),
        ("mean_iou >= 0.6, min latency_ms", 2),
        ("mean_iou>=0.6,min n_params", 3),
        ("mean_iou > 0.6, min latency_ms", 1),
        ("latency_ms <= 5, n_params < 500_000, max mean_iou, min n_params", 3),  # equal scores: the smaller one
        ("latency_ms <= 5, n_params < 500_000, max mean_iou, min latency_ms", 2),
        ("n_macs >= 15, max mean_iou", 2),  # no objective, but measured
        ("n_params <= 3e5, min mean_iou, min latency_ms", 2),
        ("latency_ms < 1.5", 4),  # nothing to prefer: the knee of what is left
    ],
)
def test_bounds_are_kept_and_the_best_of_the_rest_is_taken(run, text, expected):
    assert choose(run, Preference.parse(text)).record is RECORDS[expected]


def test_it_says_how_many_each_bound_left_and_why_this_one(run):
    reason = choose(run, Preference.parse("mean_iou >= 0.6, n_params <= 500000, min latency_ms")).reason
    assert reason == (
        "of 5 on the front, 4 with mean_iou >= 0.6, 3 with n_params <= 500,000: the one with least latency_ms (2 ms)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean_iou >= 0.9, min latency_ms", "mean_iou >= 0.9 leaves nothing of the 5 members: the nearest has 0.8"),
        (
            "mean_iou >= 0.7, latency_ms <= 4",
            "<= 4 ms leaves nothing of the 2 left by the bounds before it: the nearest has 5 ms",
        ),
        ("min latency", "'latency' must be a metric of this run: latency_ms, mean_iou, n_macs, n_params"),
        ("fast please", "'fast please' cannot be read; write bounds METRIC >= NUMBER"),
        ("min latency_ms,", "has an empty part"),
        ("", "has an empty part"),
        ("latency_ms <= quick", "'quick' in 'latency_ms <= quick' must be a number"),
        ("latency_ms <= nan", "must be finite"),
        ("latency_ms == 3", "'latency_ms == 3' cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_with_the_part(run, text, message):
    with pytest.raises(InputError) as error:
        choose(run, Preference.parse(text))
    assert message in str(error.value)


def test_an_empty_front_is_said_to_be_empty(run):
    with pytest.raises(InputError, match="the front is empty"):
        choose(dataclasses.replace(run, records=()), Preference.parse("min latency_ms"))


def test_exactly_one_way_of_choosing_is_taken(run):
    assert chosen(run, RECORDS[5].id).record is RECORDS[5]
    assert chosen(run, None, is_knee=True).record is run.knee
    assert chosen(run, None, prefer="max mean_iou").record is RECORDS[0]
    for ways in ((None, False, None), (RECORDS[0].id, True, None), (None, True, "min latency_ms")):
        with pytest.raises(InputError, match="either --candidate ID or --knee, or --prefer"):
            chosen(run, ways[0], is_knee=ways[1], prefer=ways[2])


def test_a_bound_reads_as_it_is_written():
    assert str(Bound("n_params", "<=", 300_000.0)) == "n_params <= 300,000"
