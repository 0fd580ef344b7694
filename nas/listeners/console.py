"""Progress on the console: bars, and a line for each evaluated candidate."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nas.analysis.tables import cell, duration, format_value, remark
from nas.search.listener import SearchListener, SearchView
from nas.values.recipes import EpochSummary
from nas.values.records import Record, RecordState, Role
from nas.values.shown_text import shown

_STYLES = {
    RecordState.COMPLETE: "green",
    RecordState.PRUNED: "yellow",
    RecordState.INFEASIBLE: "dim",
    RecordState.FAILED: "red",
}


class ConsoleListener(SearchListener):
    """Shows a search on a terminal: a bar for the run, one for each running training, a line for each candidate.

    If the output is no terminal, only the lines are written.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remaining]}"),
            console=console,
            transient=True,
            auto_refresh=False,  # a drawing thread would disturb latency measurements
            disable=not console.is_terminal,
        )
        self._run_bar: TaskID | None = None
        self._bars: dict[str, TaskID] = {}
        self._firsts: dict[
            str, tuple[float, int]
        ] = {}  # by training: when its first epoch ended here, and which it was

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_start(self, search: SearchView) -> None:
        """Open the bar of the whole run."""
        self._run_bar = self._progress.add_task(
            "candidates",
            total=search.n_expected,
            completed=len(search.records),
            remaining=_remaining(search.remaining_s),
        )

    def on_message(self, text: str) -> None:
        """Print the message."""
        self._console.print(shown(text, in_lines=True), style="cyan", markup=False, highlight=False, soft_wrap=True)

    def on_progress(self, name: str, n_done: int, n_total: int) -> None:
        """Move the bar of what is done before the first candidate."""
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=n_total, remaining="")
        self._progress.update(self._bars[name], completed=n_done)
        self._progress.refresh()
        if n_done == n_total:
            self._drop_bar(name)

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """Update the bar of a training: opened at its first epoch, closed after its last one or with its record."""
        self._show_epoch(candidate, epoch)
        if epoch.epoch == epoch.n_epochs:
            self._drop_bar(candidate)

    def on_record(self, record: Record, search: SearchView) -> None:
        """Print the line of an evaluated candidate."""
        self._drop_bar(record.id)
        n_ended = len(search.records)
        position = f"{n_ended}/{search.n_expected}" if record.role is Role.CANDIDATE else "reference"
        values = "  ".join(
            f"{objective.metric} {format_value(objective.metric, record.metrics[objective.metric], objective.unit)}"
            for objective in search.objectives
            if objective.metric in record.metrics
        )
        on_front = any(member.id == record.id for member in search.archive.front)
        remarks = "" if record.is_complete else remark(record)
        if record.role is Role.REFERENCE:
            remarks = f"{record.candidate.description} {remarks}"
        self._console.print(
            f"[dim]{position:>9}[/dim] {cell(record.id)} [{_STYLES[record.state]}]{record.state:<10}[/] "
            f"{cell(values)}{' [bold]on the front[/bold]' if on_front else ''} [dim]{cell(remarks)}[/dim]",
            highlight=False,
            soft_wrap=True,
        )
        if self._run_bar is not None:
            remaining = _remaining(search.remaining_s)
            self._progress.update(self._run_bar, total=search.n_expected, completed=n_ended, remaining=remaining)
            self._progress.refresh()

    def _show_epoch(self, name: str, epoch: EpochSummary) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=epoch.n_epochs, remaining="")
            self._firsts[name] = (time.perf_counter(), epoch.epoch)
        loss = f"loss {epoch.task_loss:.3f}"
        if epoch.distillation_loss:
            loss += f", distillation x{epoch.distillation_ratio:.2f}"
        since, first = self._firsts[name]
        if epoch.epoch > first:
            each_s = (time.perf_counter() - since) / (epoch.epoch - first)
            loss += f", {_remaining(each_s * (epoch.n_epochs - epoch.epoch))}".rstrip(", ")
        self._progress.update(self._bars[name], completed=epoch.epoch, remaining=loss)
        self._progress.refresh()

    def _drop_bar(self, name: str) -> None:
        if (bar := self._bars.pop(name, None)) is not None:
            self._progress.remove_task(bar)


def _remaining(seconds: float | None) -> str:
    if not seconds:
        return ""
    return f"about {duration(seconds)} left"
