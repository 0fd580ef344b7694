"""A run in a terminal while another process searches."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nas.analysis.tables import cell, duration, front_table
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.shown_text import shown

_N_FAILURES = 3
_N_FOR_PACE = 20  # of the last candidates that ended


@dataclass(frozen=True)
class Pace:
    """How quickly candidates end.

    Attributes:
        per_hour: Candidates an hour, of the last ones; `None` before two have ended.
        left_s: Seconds until all that are planned have ended; `None` if that is not known.
    """

    per_hour: float | None
    left_s: float | None

    @classmethod
    def of(cls, ends: list[float], n_planned: int) -> "Pace":
        """Return it.

        Args:
            ends: When candidates ended, in s.
            n_planned: How many are asked for in all; 0 if that is not known.
        """
        last = sorted(ends)[-_N_FOR_PACE:]
        if len(last) < 2 or last[-1] == last[0]:
            return cls(None, None)
        each_s = (last[-1] - last[0]) / (len(last) - 1)
        return cls(3600 / each_s, max(0, n_planned - len(ends)) * each_s if n_planned else None)


@dataclass(frozen=True)
class View:
    """What one look shows.

    Attributes:
        shown: For a terminal.
        is_running: Whether a process is writing to the run.
    """

    shown: RenderableType
    is_running: bool


class Watch:
    """Reads a run's store again and again; it writes nothing, so it may start on another day than the search.

    Args:
        path: The run's folder.

    Raises:
        RunFolderError: If there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        RunFolder.read(path).close()

    def look(self) -> View:
        """Return what the store holds now."""
        with RunFolder.read(self._path) as folder:
            run, times = Run.of(folder), folder.store.times()
        ends = [end for record in run.ended if (end := times[record.id][1]) is not None]
        state = run.state
        return View(Group(*_parts(run, Pace.of(ends, run.planned_size), ends, state)), state == "running")


def _parts(run: Run, pace: Pace, ends: list[float], state: str) -> list[RenderableType]:
    """Return the front, what is known of the progress, and the last failures."""
    of_all = f" of {run.planned_size}" if run.planned_size and not run.finished_size else ""
    facts = [f"{run.name}: {state}", f"{len(ends)}{of_all} candidates have ended"]
    if ends:
        facts.append(f"the last one {duration(time.time() - max(ends))} ago")
    if state == "running" and pace.per_hour is not None:
        facts.append(f"{pace.per_hour:,.3g} an hour")
        if pace.left_s is not None:
            facts.append(f"about {duration(pace.left_s)} left, unless a budget ends it")
    volumes = run.hypervolumes()
    if len(volumes) >= 2 and volumes[-1] > 0:
        n_last = max(1, len(volumes) // 10)
        gained = 100 * (1 - volumes[-1 - n_last] / volumes[-1])
        facts.append(f"the last {n_last} added {gained:.1f} % of the hypervolume")
    parts: list[RenderableType] = [front_table(run), Text("; ".join(shown(fact) for fact in facts) + ".")]
    failed = [record for record in run.records if record.failure][-_N_FAILURES:]
    if failed:
        table = Table("candidate", "failure", title="Last failures", title_justify="left")
        for record in failed:
            table.add_row(record.id, cell(record.reason or ""))
        parts.append(table)
    return parts
