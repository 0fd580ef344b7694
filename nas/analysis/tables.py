"""Runs as tables: for a terminal, as JSON, as CSV."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from nas.store.run import Run
from nas.values.metrics import metric_info
from nas.values.objectives import Direction, Objective
from nas.values.records import Record
from nas.values.shown_text import shown


def cell(text: str) -> str:
    """Return text of any origin for rich: without markup and control characters."""
    return escape(shown(text))


_DISTURBED = "!"
_DISTURBED_NOTE = "! something else ran meanwhile: it may be far too high"


def format_value(metric: str, value: float, unit: str = "") -> str:
    """Return a metric's value as people read it: four figures and the unit; counts and bytes in the usual way.

    Args:
        metric: Its key in a record's metrics.
        value: Of it.
        unit: As `MetricInfo.unit`; that of a built-in metric is known.
    """
    info = metric_info(metric)
    match unit or (info.unit if info else ""):
        case "count":
            return f"{value:,.0f}"
        case "bytes":
            return f"{value / 2**20:,.2f} MiB"
        case "ms":
            return f"{value:,.3g} ms"
        case other:
            return f"{value:.4g} {other}".rstrip()


def duration(seconds: float) -> str:
    """Return a time in s, min or h, to two or three digits."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s"


def _value_text(record: Record, objective: Objective) -> str:
    """Return an objective's value, marked if disturbed, with its standard deviation over seeds if there is one."""
    metric = objective.metric
    value, spread = format_value(metric, record.metrics[metric], objective.unit), record.spread(metric)
    if metric in record.undisturbed:
        value += f" {_DISTURBED}"
    return value if spread is None else f"{value} ± {spread:.2g}"


def tested_text(record: Record, metric: str) -> str:
    """Return a score on the test split, with its standard deviation over seeds if there is one."""
    spread = record.retrained_spread.get(metric)
    text = format_value(metric, record.retrained[metric])
    return text if spread is None else f"{text} ± {spread:.2g}"


def front_table(run: Run) -> Table:
    """Return the front as a table, best in the first objective first, with the knee and ties marked."""
    table = Table(title=cell(f"Pareto front of {run.name}"), title_justify="left", expand=True)
    retrained = sorted({metric for record in run.front for metric in record.retrained} & _objective_metrics(run))
    table.add_column("candidate", no_wrap=True)
    for objective in run.objectives:
        arrow = "↑" if objective.direction is Direction.MAXIMIZE else "↓"
        table.add_column(cell(f"{objective.metric} {arrow}"), justify="right", no_wrap=True)
    for metric in retrained:
        table.add_column(cell(f"test {metric}"), justify="right", no_wrap=True)
    table.add_column("network", overflow="ellipsis", no_wrap=True, ratio=1)
    knee, ties = (run.knee.id if run.front else None), run.ties()
    for record in run.front:
        mark = " *" if record.id == knee else ""
        mark += " ≈" if record.id in ties else ""
        values = [_value_text(record, o) for o in run.objectives]
        tested = [tested_text(record, metric) if metric in record.retrained else "" for metric in retrained]
        table.add_row(record.id + mark, *values, *tested, cell(record.candidate.description))
    has_spread = any(
        record.retrained_spread or any(record.spread(o.metric) is not None for o in run.objectives)
        for record in run.front
    )
    notes = (
        ["* knee"]
        + (["± standard deviation over seeds"] if has_spread else [])
        + ([_DISTURBED_NOTE] if _has_disturbed(run, run.front) else [])
        + (["≈ better than another member only within noise"] if ties else [])
    )
    table.caption = "; ".join(notes)
    return table


def records_table(run: Run) -> Table:
    """Return all records as a table, with their states and remarks."""
    table = Table(title=cell(f"Records of {run.name}"), title_justify="left", expand=True)
    for column in ("candidate", "state"):
        table.add_column(column, no_wrap=True)
    for objective in run.objectives:
        table.add_column(cell(objective.metric), justify="right", no_wrap=True)
    table.add_column("remark", overflow="ellipsis", no_wrap=True, ratio=1)
    for record in (*run.references, *run.records):
        values = [_value_text(record, o) if o.metric in record.metrics else "" for o in run.objectives]
        table.add_row(record.id, str(record.state), *values, cell(remark(record)))
    if _has_disturbed(run, (*run.references, *run.records)):
        table.caption = _DISTURBED_NOTE
    return table


def _has_disturbed(run: Run, records: Iterable[Record]) -> bool:
    return any(record.undisturbed.keys() & _objective_metrics(run) for record in records)


def remark(record: Record) -> str:
    """Return one line about a record: why it is not COMPLETE, else its network."""
    return record.reason or record.candidate.description


def to_json(run: Run, *, all_records: bool = False) -> str:
    """Return the front, or every record, as a JSON list of flat objects, all with the same keys: CSV's columns."""
    return json.dumps(_rows(run, all_records), indent=2)


def to_csv(run: Run, *, all_records: bool = False) -> str:
    """Return the front, or every record, as CSV with a header; lists are joined by spaces."""
    return rows_to_csv(_rows(run, all_records))


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with equal keys as CSV with a header; lists are joined by spaces."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_value(value) for key, value in row.items()})
    return text.getvalue()


def _csv_value(value: object) -> object:
    """Return a value as CSV holds it: lists joined by spaces, texts without control characters."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return shown(value) if isinstance(value, str) else value


def _rows(run: Run, all_records: bool) -> list[dict[str, Any]]:
    """Return the rows of all records, references first, or of the front, best in the first objective first."""
    if all_records:
        return run.rows(with_references=True)
    rows = {row["candidate"]: row for row in run.rows()}
    return [rows[record.id] for record in run.front]


def _outside_text(run: Run, records: Sequence[Record]) -> str:
    """Return which front members lie outside the reference point, by which objectives, and what that means."""
    point = run.reference_point or {}
    limits = [
        f"{o.metric} (the limit is {format_value(o.metric, point[o.metric], o.unit)})"
        for o in run.objectives
        if any(o.sign * record.metrics[o.metric] >= o.sign * point[o.metric] for record in records)
    ]
    return (
        f"On the front, but so far out in {' or '.join(limits)} that the hypervolume, by which progress is measured, "
        f"does not count them (reference_point sets the limits): {', '.join(record.id for record in records)}"
    )


def _objective_texts(run: Run, metrics: Mapping[str, float], prefix: str = "") -> list[str]:
    """Return what is known of each objective, its name before its value."""
    known = [o for o in run.objectives if o.metric in metrics]
    return [f"{prefix}{o.metric} {format_value(o.metric, metrics[o.metric], o.unit)}" for o in known]


def _objective_metrics(run: Run) -> set[str]:
    return {objective.metric for objective in run.objectives}


def summary_lines(run: Run) -> Sequence[str]:
    """Return the lines below a table: counts, teacher, references, front members outside the reference point."""
    counts = ", ".join(f"{n} {state}" for state, n in run.counts().items())
    lines = [f"{len(run.records)} candidates: {counts}." if run.records else "No candidates yet."]
    if not run.finished_size:
        lines.append("Unfinished: the front so far has not been confirmed by repeated measurements.")
    if run.teacher:
        scores = run.teacher["scores"]
        shown = ", ".join(f"{o.metric} {scores[o.metric]:.4g}" for o in run.objectives if o.metric in scores)
        lines.append(f"Teacher {run.teacher['kind']}: {run.teacher['n_params']:,} parameters, {shown}.")
    for record in run.references:
        values = [*_objective_texts(run, record.metrics), *_objective_texts(run, record.retrained, "test ")]
        state = [] if record.is_complete else [str(record.state)]
        lines.append(f"Reference {record.candidate.description}: {', '.join([*state, *values])}.")
    if run.records and run.finished_size and not run.front:
        lines.append(f"Note: {run.why_empty()}.")
    if outside := run.outside_reference_point():
        lines.append(_outside_text(run, outside))
    return lines
