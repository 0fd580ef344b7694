import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

import nas
from nas.analysis import front_table, records_table, summary_lines, to_csv, to_json
from nas.analysis.tables import duration, format_value, remark
from nas.values.objectives import Direction, Objective, Violation
from nas.values.records import Candidate, Failure, Pruning, Record, RecordState, Role
from search_spaces import Integers

SPACE = Integers(n_genes=1, n_values=3)
CANDIDATE = Candidate.create(SPACE, SPACE.genotype((1,)), 0)


def printed(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.123, "0.12 s"), (59, "59 s"), (90, "1.5 min"), (3000, "50 min"), (5400, "1.5 h"), (360000, "100 h")],
)
def test_times_are_said_to_two_figures(seconds, said):
    assert duration(seconds) == said


@pytest.fixture
def run(tiny_run):
    return nas.load_run(tiny_run)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("n_params", 1234567.0, "1,234,567"),
        ("latency_ms", 0.012345, "0.0123 ms"),
        ("latency_ms[phone]", 12.3456, "12.3 ms"),
        ("peak_memory_bytes", 1.5 * 2**20, "1.50 MiB"),
        ("mean_iou", 0.123456, "0.1235"),
        ("n_bits_per_weight", 3.7, "3.7"),
        ("items_ms_rate", 12.3456, "12.35"),
    ],
)
def test_values_are_shown_with_their_units(metric, value, text):
    assert format_value(metric, value) == text


@pytest.mark.parametrize(("unit", "text"), [("count", "12,346"), ("ms", "1.23e+04 ms"), ("J", "1.235e+04 J")])
def test_a_metric_of_ones_own_is_shown_in_its_unit(unit, text):
    assert format_value("mine", 12345.6, unit) == text


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({"state": RecordState.COMPLETE}, "x0=1"),
        ({"state": RecordState.FAILED, "failure": Failure("training", "loss is NaN", "")}, "training: loss is NaN"),
        ({"state": RecordState.PRUNED, "pruning": Pruning("epoch 2", "score", 0.12345)},
         "stopped in epoch 2, below the other candidates: score 0.1235"),
        ({"state": RecordState.INFEASIBLE, "violations": (Violation("cost", 12.0, None, 10.0, 0.2),)},
         "cost = 12 is over its maximum 10"),
    ],
)  # fmt: skip
def test_a_remark_says_why(details, text):
    assert remark(Record(CANDIDATE, metrics={}, number=0, batch=0, **details)) == text


@pytest.mark.parametrize("width", [80, 200])
def test_ids_and_numbers_are_never_squeezed_out(run, width):
    front = printed(front_table(run), width)
    for record in run.front:
        assert record.id in front
        for objective in run.objectives:
            assert format_value(objective.metric, record.metrics[objective.metric]) in front
    everybody = printed(records_table(run), width)
    assert all(record.id in everybody for record in run.records)


def test_the_summary_counts_every_record(run):
    counts = run.counts()
    assert summary_lines(run)[0] == f"12 candidates: {', '.join(f'{n} {state}' for state, n in counts.items())}."
    assert sum(counts.values()) == 12
    assert summary_lines(run)[1].startswith("Teacher resnet: 5,142 parameters, accuracy 0.")


def test_the_summary_says_what_references_reach(run):
    (first, *_), metrics = run.front, run.front[0].metrics
    failed = dataclasses.replace(first, state=RecordState.FAILED, metrics={})
    tested = dataclasses.replace(first, retrained={"accuracy": 0.5})
    lines = summary_lines(dataclasses.replace(run, references=(first, failed, tested)))
    latency = format_value("latency_ms", metrics["latency_ms"])
    name = f"Reference {first.candidate.description}: "
    assert f"{name}accuracy {metrics['accuracy']:.4g}, latency_ms {latency}." in lines
    assert f"{name}accuracy {metrics['accuracy']:.4g}, latency_ms {latency}, test accuracy 0.5." in lines
    assert f"{name}failed." in lines


def test_json_and_csv_say_the_same(run):
    for everybody in (True, False):
        members = json.loads(to_json(run, all_records=everybody))
        rows = list(csv.DictReader(io.StringIO(to_csv(run, all_records=everybody))))
        assert [list(member) for member in members] == [list(row) for row in rows]
        for member, row in zip(members, rows, strict=True):
            assert row == {name: _cell(value) for name, value in member.items()}
    assert [member["candidate"] for member in members] == [record.id for record in run.front]


def _cell(value):
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def test_counts_are_integers_in_every_form(run):
    records = tuple(dataclasses.replace(record, metrics={"n_params": 1234.0, "cycles": 5.0}) for record in run.records)
    objectives = (Objective("n_params", Direction.MINIMIZE), Objective("cycles", Direction.MINIMIZE, unit="count"))
    counted = dataclasses.replace(run, records=records, objectives=objectives, constraints=(), reference_point=None)
    row = counted.rows()[0]
    assert (repr(row["n_params"]), repr(row["cycles"])) == ("1234", "5")
    assert ",1234,5," in to_csv(counted)
    assert '"n_params": 1234,' in to_json(counted)


def test_all_records_have_the_rows_of_references_too(run):
    reference = dataclasses.replace(run.front[0], role=Role.REFERENCE, batch=-1)
    compared = dataclasses.replace(run, references=(reference,))
    rows = json.loads(to_json(compared, all_records=True))
    assert [(row["role"], row["batch"]) for row in rows[:2]] == [("reference", -1), ("candidate", 0)]
    assert [row["role"] for row in compared.rows()] == ["candidate"] * len(run.records)


def test_csv_of_an_empty_front_has_no_rows(run):
    empty = dataclasses.replace(run, records=())
    assert to_csv(empty).strip() == ""
    assert to_json(empty) == "[]"
    assert summary_lines(empty)[0] == "No candidates yet."
    assert "Pareto front of tiny" in printed(front_table(empty), 80)


def disturbed(run):
    """Return the run as if its knee had been measured on a busy machine."""
    conditions = {"latency_ms": {"is_disturbed": True, "undisturbed_ms": 0.001}}
    records = tuple(
        dataclasses.replace(record, conditions=conditions) if record.id == run.knee.id else record
        for record in run.records
    )
    return dataclasses.replace(run, records=records)


def test_what_stays_disturbed_is_marked_and_the_mark_explained(run):
    knee, busy = run.knee, disturbed(run)
    mark = f"{format_value('latency_ms', knee.metrics['latency_ms'])} !"
    for table in (front_table, records_table):
        assert mark in printed(table(busy), 200)
        assert printed(table(busy), 200).count("ms !") == 1
        assert "! something else ran meanwhile" in printed(table(busy), 200)
        assert "!" not in printed(table(run), 200)


def test_what_stays_disturbed_says_so_in_json_and_csv(run):
    knee, busy = run.knee, disturbed(run)
    told = {row["candidate"]: row["latency_ms_undisturbed"] for row in json.loads(to_json(busy))}
    assert told == {record.id: 0.001 if record.id == knee.id else None for record in run.front}
    rows = {row["candidate"]: row["latency_ms_undisturbed"] for row in csv.DictReader(io.StringIO(to_csv(busy)))}
    assert rows == {record.id: "0.001" if record.id == knee.id else "" for record in run.front}
