"""All runs of a folder at a glance."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.analysis.tables import cell, duration, format_value
from nas.errors import NasError
from nas.store.run import Run
from nas.store.run_folder import RunFolder


@dataclass(frozen=True)
class Overview:
    """One run at a glance.

    Attributes:
        path: Its folder.
        state: `running`, `finished`, `unfinished` or `unreadable`.
        age_s: Seconds since something was stored.
        n_bytes: Of its folder, without the artifacts that runs share.
        run: What it holds; `None` for one that cannot be read.
        problem: Why it cannot.
    """

    path: Path
    state: str
    age_s: float
    n_bytes: int
    run: Run | None = None
    problem: str = ""

    @classmethod
    def of(cls, path: Path) -> "Overview":
        """Look at the run in a folder; it may be running meanwhile."""
        age_s = time.time() - max(file.stat().st_mtime for file in path.glob("store.sqlite*"))
        n_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        try:
            run = Run.load(path)
        except NasError as error:
            return cls(path, "unreadable", age_s, n_bytes, problem=str(error))
        return cls(path, run.state, age_s, n_bytes, run)

    @property
    def best(self) -> dict[str, float]:
        """The front's best value of each objective."""
        if self.run is None or not (front := self.run.front):
            return {}
        return {o.metric: o.best(record.metrics[o.metric] for record in front) for o in self.run.objectives}

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "path": str(self.path),
            "name": self.run.name if self.run else None,
            "state": self.state,
            "age_s": round(self.age_s),
            "n_bytes": self.n_bytes,
            "counts": self.run.counts() if self.run else {},
            "planned_size": self.run.planned_size if self.run else 0,
            "front_size": len(self.run.front) if self.run else 0,
            "best": self.best,
            "problem": self.problem,
        }


def look_at_runs(folder: Path) -> list[Overview]:
    """Return all runs directly in a folder, the latest first; the folder itself if it is one."""
    paths = [folder] if RunFolder.exists(folder) else [path for path in folder.iterdir() if RunFolder.exists(path)]
    return sorted(map(Overview.of, paths), key=lambda one: one.age_s)


def overview_table(found: list[Overview]) -> Table:
    """Return the runs as a table for a terminal."""
    table = Table()
    for column in ("run", "state", "age", "candidates", "front", "best", "disk"):
        table.add_column(column, justify="right" if column in ("age", "candidates", "front", "disk") else "left")
    for one in found:
        run = one.run
        of_all = f" of {run.planned_size}" if run and run.planned_size and one.state != "finished" else ""
        units = {objective.metric: objective.unit for objective in run.objectives} if run else {}
        best = ", ".join(f"{name} {format_value(name, value, units[name])}" for name, value in one.best.items())
        table.add_row(
            cell(one.path.name),
            one.state,
            duration(one.age_s),
            f"{len(run.ended)}{of_all}" if run else "",
            str(len(run.front)) if run else "",
            cell(best or one.problem),
            f"{one.n_bytes / 2**20:,.1f} MiB",
        )
    return table
