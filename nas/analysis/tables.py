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
from nas.values.records import Record, RecordState

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


def front_table(run: Run) -> Table:
    """Return the front as a table, best in the first objective first, with the knee and ties marked."""
    table = Table(title=escape(f"Pareto front of {run.name}"), title_justify="left", expand=True)
    retrained = sorted({metric for record in run.front for metric in record.retrained} & _objective_metrics(run))
    table.add_column("candidate", no_wrap=True)
    for objective in run.objectives:
        arrow = "↑" if objective.direction is Direction.MAXIMIZE else "↓"
        table.add_column(escape(f"{objective.metric} {arrow}"), justify="right", no_wrap=True)
    for metric in retrained:
        table.add_column(escape(f"test {metric}"), justify="right", no_wrap=True)
    table.add_column("network", overflow="ellipsis", no_wrap=True, ratio=1)
    knee, ties = (run.knee.id if run.front else None), run.ties()
    for record in run.front:
        mark = " *" if record.id == knee else ""
        mark += " ≈" if record.id in ties else ""
        values = [_value_text(record, o) for o in run.objectives]
        tested = [
            format_value(metric, record.retrained[metric]) if metric in record.retrained else "" for metric in retrained
        ]
        table.add_row(record.id + mark, *values, *tested, escape(record.candidate.description))
    has_spread = any(record.spread(o.metric) is not None for record in run.front for o in run.objectives)
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
    table = Table(title=escape(f"Records of {run.name}"), title_justify="left", expand=True)
    for column in ("candidate", "state"):
        table.add_column(column, no_wrap=True)
    for objective in run.objectives:
        table.add_column(escape(objective.metric), justify="right", no_wrap=True)
    table.add_column("remark", overflow="ellipsis", no_wrap=True, ratio=1)
    for record in (*run.references, *run.records):
        values = [_value_text(record, o) if o.metric in record.metrics else "" for o in run.objectives]
        table.add_row(record.id, str(record.state), *values, escape(remark(record)))
    if _has_disturbed(run, (*run.references, *run.records)):
        table.caption = _DISTURBED_NOTE
    return table


def _has_disturbed(run: Run, records: Iterable[Record]) -> bool:
    return any(record.undisturbed.keys() & _objective_metrics(run) for record in records)


def remark(record: Record) -> str:
    """Return one line about a record: why it is not COMPLETE, else its network."""
    match record.state:
        case RecordState.INFEASIBLE:
            return "; ".join(str(violation) for violation in record.violations)
        case RecordState.FAILED if record.failure:
            return f"{record.failure.stage}: {record.failure.reason}"
        case RecordState.PRUNED if record.pruning:
            pruning = record.pruning
            return f"stopped in {pruning.stage}, below the other candidates: {pruning.metric} {pruning.score:.4g}"
    return record.candidate.description


def to_json(run: Run, *, all_records: bool = False) -> str:
    """Return the front, or every record, as a JSON list of objects."""
    records = (*run.references, *run.records) if all_records else run.front
    ties = run.ties()
    return json.dumps([_plain(record, ties.get(record.id, ())) for record in records], indent=2)


def to_csv(run: Run, *, all_records: bool = False) -> str:
    """Return the front, or every record, as CSV with a header."""
    rows = [row for row in run.rows() if all_records or row["on_front"]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plain(record: Record, ties: Iterable[str]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "candidate": record.id,
        "state": str(record.state),
        "metrics": dict(record.metrics),
        "genotype": list(record.candidate.genotype.genes),
        "description": record.candidate.description,
        "attempts": record.attempts,
        "role": str(record.role),
    }
    if spreads := _spreads(record):
        plain["spreads"] = spreads
    if undisturbed := record.undisturbed:
        plain["undisturbed"] = undisturbed
    if ties := list(ties):
        plain["tied_with"] = ties
    if record.retrained:
        plain["retrained"] = {"metrics": dict(record.retrained), **record.retrained_conditions}
    if record.violations:
        plain["violations"] = [str(violation) for violation in record.violations]
    if record.failure:
        plain["failure"] = {"stage": record.failure.stage, "reason": record.failure.reason}
    if record.pruning:
        plain["pruning"] = {
            "stage": record.pruning.stage,
            "metric": record.pruning.metric,
            "score": record.pruning.score,
        }
    return plain


def _spreads(record: Record) -> dict[str, Any]:
    """Return by metric the number of seeds that its score is the mean of, and their standard deviation."""
    return {
        metric: {"n_seeds": len(record.conditions[metric]["rounds"]), "standard_deviation": spread}
        for metric in record.metrics
        if (spread := record.spread(metric)) is not None
    }


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
    if outside := run.outside_reference_point():
        lines.append(
            "On the front, but outside the reference point and so without a share of the hypervolume: "
            + ", ".join(record.id for record in outside)
        )
    return lines
