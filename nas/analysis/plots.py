"""Figures of a run: each pair of objectives, and the hypervolume over evaluations."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nas.analysis.tables import rows_to_csv
from nas.files import atomic_path, write_text
from nas.store.run import Run
from nas.values.objectives import Direction, Objective, to_losses
from nas.values.pareto import non_dominated
from nas.values.records import Record, RecordState
from nas.values.shown_text import shown

_COMPLETE, _FRONT, _INFEASIBLE, _REFERENCE = "#9aa5b1", "#1f6feb", "#d9a0a0", "#d97706"
_DISTURBED = "#b91c1c"
_LOG_SPREAD = 20  # a metric whose largest value is this many times its smallest gets a logarithmic axis


def draw_pair(run: Run, x: Objective, y: Objective) -> Figure:
    """Return a figure of two objectives: all candidates, and the front as a staircase.

    The staircase joins the points that are non-dominated in these two objectives alone; other members of the front
    are drawn as points off it.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    _choose_scales(axes, run, x, y)
    complete = [record for record in run.records if record.is_complete]
    _scatter(axes, x, y, complete, color=_COMPLETE, s=18, label="candidate")
    if front := run.front:
        _staircase(axes, x, y, front)
        _scatter(axes, x, y, front, color=_FRONT, s=34, zorder=3, label="Pareto front")
        knee = run.knee
        axes.annotate("knee", (knee.metrics[x.metric], knee.metrics[y.metric]), (6, -12), textcoords="offset points")
    disturbed = [r for r in complete if r.undisturbed.keys() & {x.metric, y.metric}]
    ring = {"facecolors": "none", "edgecolors": _DISTURBED, "s": 70, "zorder": 4}
    _scatter(axes, x, y, disturbed, **ring, label="disturbed reading")
    _draw_references(axes, run, x, y)
    _draw_teacher(axes, run, x, y)
    if complete:
        axes.autoscale_view()
        axes.autoscale(enable=False)  # infeasible candidates may lie anywhere: they must not stretch the axes
    infeasible = [record for record in run.records if record.state is RecordState.INFEASIBLE]
    _scatter(axes, x, y, infeasible, color=_INFEASIBLE, s=14, alpha=0.5, marker="x", label="infeasible")
    _label(axes, run, x, y)
    return figure


def draw_hypervolume(run: Run) -> Figure:
    """Return a figure of the all-time front's hypervolume over the number of evaluated candidates."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    volumes = run.hypervolumes()
    if len(volumes):
        shares = volumes / volumes[-1] if volumes[-1] > 0 else volumes
        axes.step(np.arange(1, len(volumes) + 1), shares, where="post", color=_FRONT)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("evaluated candidates")
    axes.set_ylabel("hypervolume, as a share of the last")
    axes.set_title(_plain(run.name), loc="left")
    axes.grid(alpha=0.25)
    return figure


@dataclass(frozen=True)
class Style:
    """How figures are written.

    Attributes:
        form: `png`, `pdf` or `svg`; texts stay texts in the latter two.
        width_in: In inches; the height follows.
        font_pt: Size of the texts.
        dpi: Of PNG files.
        with_data: Whether the data is written beside each figure, as CSV.
    """

    form: str = "png"
    width_in: float = 7.2
    font_pt: float = 10.0
    dpi: int = 130
    with_data: bool = False


SCREEN = Style()
PAPER = Style(width_in=3.5, font_pt=8.0, dpi=300, with_data=True)
"""A column of a journal."""


def save_plots(run: Run, folder: Path, style: Style = SCREEN) -> list[Path]:
    """Write all figures of a run and return the files' paths: each pair of objectives, and the hypervolume."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context({"font.size": style.font_pt, "pdf.fonttype": 42, "svg.fonttype": "none"}):
        figures = {
            f"front_{_file_name(y.metric)}_over_{_file_name(x.metric)}": (draw_pair(run, x, y), _pair_rows(run, x, y))
            for y, x in itertools.combinations(run.objectives, 2)
        }
        figures["hypervolume"] = (draw_hypervolume(run), _volume_rows(run))
        for name, (figure, rows) in figures.items():
            width, height = figure.get_size_inches()
            figure.set_size_inches(style.width_in, height * style.width_in / width)
            paths.append(folder / f"{name}.{style.form}")
            with atomic_path(paths[-1]) as temporary:
                figure.savefig(temporary, format=style.form, dpi=style.dpi)
            if style.with_data:
                paths.append(folder / f"{name}.csv")
                write_text(paths[-1], rows_to_csv(rows))
    return paths


def _pair_rows(run: Run, x: Objective, y: Objective) -> list[dict[str, Any]]:
    """Return what a figure of two objectives shows."""
    front = {record.id for record in run.front}
    return [
        {
            "candidate": record.id,
            "role": str(record.role),
            "state": str(record.state),
            "on_front": record.id in front,
            x.metric: record.metrics[x.metric],
            y.metric: record.metrics[y.metric],
        }
        for record in (*run.references, *run.records)
        if _has_metrics(record, x, y)
    ]


def _volume_rows(run: Run) -> list[dict[str, Any]]:
    """Return the hypervolume after each candidate."""
    return [{"evaluated": n, "hypervolume": float(v)} for n, v in enumerate(run.hypervolumes(), 1)]


def _has_metrics(record: Record, *objectives: Objective) -> bool:
    return all(objective.metric in record.metrics for objective in objectives)


def _scatter(axes: Axes, x: Objective, y: Objective, records: Sequence[Record], **style: Any) -> None:
    known = [record for record in records if _has_metrics(record, x, y)]
    if known:
        axes.scatter([r.metrics[x.metric] for r in known], [r.metrics[y.metric] for r in known], **style)


def _staircase(axes: Axes, x: Objective, y: Objective, front: Sequence[Record]) -> None:
    losses = to_losses((x, y), [record.metrics for record in front])
    best = losses[non_dominated(losses)]
    best = best[np.argsort(best[:, 0])] * np.array([x.sign, y.sign])
    axes.step(best[:, 0], best[:, 1], where="post", color=_FRONT, linewidth=1.4, alpha=0.7, zorder=2)


def _draw_references(axes: Axes, run: Run, x: Objective, y: Objective) -> None:
    _scatter(axes, x, y, run.references, color=_REFERENCE, s=130, marker="*", zorder=3, label="reference")
    axes.autoscale_view()
    for record in run.references:
        if _has_metrics(record, x, y):
            place = (record.metrics[x.metric], record.metrics[y.metric])
            # The name goes towards the middle of the axes, where there is room.
            is_right = axes.transAxes.inverted().transform(axes.transData.transform(place))[0] > 0.5
            side, offset = ("right", -8) if is_right else ("left", 8)
            name = _plain(record.candidate.description)
            axes.annotate(name, place, (offset, 4), textcoords="offset points", horizontalalignment=side)


def _draw_teacher(axes: Axes, run: Run, x: Objective, y: Objective) -> None:
    """Draw the teacher's scores as lines; its costs are not measured."""
    scores = run.teacher["scores"] if run.teacher else {}
    for draw, objective in ((axes.axvline, x), (axes.axhline, y)):
        if objective.metric in scores:
            draw(scores[objective.metric], color=_REFERENCE, linestyle="--", linewidth=1, label="teacher")


def _choose_scales(axes: Axes, run: Run, x: Objective, y: Objective) -> None:
    for axis, objective in ((axes.xaxis, x), (axes.yaxis, y)):
        values = [
            r.metrics[objective.metric]
            for r in (*run.records, *run.references)
            if r.is_complete and _has_metrics(r, objective)
        ]
        is_share = values and max(values) <= 1 and objective.direction is Direction.MAXIMIZE
        if values and not is_share and min(values) > 0 and max(values) > _LOG_SPREAD * min(values):
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")


def _label(axes: Axes, run: Run, x: Objective, y: Objective) -> None:
    right = x.direction is Direction.MAXIMIZE
    up = y.direction is Direction.MAXIMIZE
    axes.set_xlabel(_plain(x.metric) + ("   better →" if right else "   ← better"))
    axes.set_ylabel(_plain(y.metric) + ("   better →" if up else "   ← better"))
    axes.set_title(_plain(run.name), loc="left")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False, fontsize="small")


def _plain(text: str) -> str:
    """Return `text` escaped, so that matplotlib does not read it as a formula."""
    return shown(text).replace("$", r"\$")


def _file_name(metric: str) -> str:
    return re.sub(r"\W+", "_", metric).strip("_")
