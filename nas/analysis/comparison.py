"""Several runs side by side: one reference point, hypervolume by group, and whether seeds explain the difference."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import mannwhitneyu

from nas.analysis.tables import cell
from nas.errors import InputError
from nas.store.run import Run
from nas.values.objectives import Objective, to_losses
from nas.values.pareto import hypervolume, non_dominated

_MARGIN = 0.1  # of the fronts' range, beyond their worst values
_MIN_RUNS = 3  # of a group, for a test
_CLEAR = 0.05


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seeds alone, or by what the user does not compare.

    Attributes:
        name: Of the group.
        runs: Names of its runs' folders.
        shares: `(n_runs, n_evaluations)`: hypervolume after each evaluation, as a share of that of all runs' fronts
            together; a run that ended earlier keeps its last value.
        front: `(n, n_objectives)`: losses of what no network of the group dominates.
    """

    name: str
    runs: tuple[str, ...]
    shares: np.ndarray
    front: np.ndarray

    def quartiles(self) -> np.ndarray:
        """Return the lower quartile, median and upper quartile after each evaluation, `(3, n_evaluations)`."""
        found: np.ndarray = np.quantile(self.shares, [0.25, 0.5, 0.75], axis=0)
        return found


@dataclass(frozen=True)
class Duel:
    """Two groups against each other.

    Attributes:
        first: Name of one.
        second: Name of the other.
        dominated: The share of the second's front that the first's dominates.
        dominated_back: The share of the first's front that the second's dominates.
        wins: How often a run of the first has more hypervolume at the end than a run of the second; ties count half.
        p_value: Of the two-sided Mann-Whitney test of the final hypervolumes; `None` below three runs each.
    """

    first: str
    second: str
    dominated: float
    dominated_back: float
    wins: float
    p_value: float | None

    @property
    def verdict(self) -> str:
        """What it says in words."""
        if self.p_value is None:
            return f"too few runs to tell from seeds: {_MIN_RUNS} of each are needed"
        if self.p_value >= _CLEAR:
            return f"no more than seeds (p = {self.p_value:.2g})"
        better, worse = (self.first, self.second) if self.wins > 0.5 else (self.second, self.first)
        return f"{better} is ahead of {worse} by more than seeds (p = {self.p_value:.2g})"


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        objectives: Of all of them.
        reference_point: One for all, by metric.
        groups: The best final median first.
        duels: Each pair of groups.
    """

    objectives: tuple[Objective, ...]
    reference_point: Mapping[str, float]
    groups: tuple[Group, ...]
    duels: tuple[Duel, ...]

    @classmethod
    def of(cls, runs: Sequence[Run], labels: Sequence[str]) -> "Comparison":
        """Compare runs; those with the same label are one group.

        Raises:
            InputError: If there are fewer than two, their objectives differ, or a front is empty.
        """
        _check(runs)
        objectives = runs[0].objectives
        point = _reference_point(runs)
        whole = _volume_of_all(runs, point)
        n = max(len(run.ended) for run in runs)
        groups = []
        for label in dict.fromkeys(labels):
            members = [run for run, own in zip(runs, labels, strict=True) if own == label]
            groups.append(_group(label, members, point, whole, n))
        groups.sort(key=lambda group: -float(np.median(group.shares[:, -1])))
        duels = tuple(_duel(one, other) for one, other in itertools.combinations(groups, 2))
        return cls(objectives, point, tuple(groups), duels)

    def table(self) -> Table:
        """Return the groups as a table for a terminal."""
        table = Table(title="Hypervolume, as a share of that of all fronts together", title_justify="left")
        marks = self._marks()
        for column in ("group", "runs", *(f"after {n}" for n in marks), "quartiles then", "front"):
            table.add_column(column, justify="left" if column == "group" else "right", no_wrap=column != "group")
        for group in self.groups:
            low, middle, high = group.quartiles()
            medians = [f"{middle[n - 1]:.4f}" for n in marks]
            spread = f"{low[-1]:.4f} .. {high[-1]:.4f}"
            table.add_row(cell(group.name), str(len(group.runs)), *medians, spread, str(len(group.front)))
        return table

    def _marks(self) -> list[int]:
        """Return after how many evaluations the medians are shown."""
        n = self.groups[0].shares.shape[1]
        return sorted({max(1, n // 4), max(1, n // 2), n})

    def lines(self) -> list[str]:
        """Return each pair of groups in words."""
        return [
            f"{duel.first} against {duel.second}: dominates {100 * duel.dominated:.0f} % of its front (the other way "
            f"{100 * duel.dominated_back:.0f} %), wins {100 * duel.wins:.0f} % of the pairs of runs: {duel.verdict}."
            for duel in self.duels
        ]

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        signs = np.array([objective.sign for objective in self.objectives])
        return {
            "objectives": [dataclasses.asdict(objective) for objective in self.objectives],
            "reference_point": dict(self.reference_point),
            "groups": [
                {
                    "name": group.name,
                    "runs": list(group.runs),
                    "final_shares": group.shares[:, -1].round(5).tolist(),
                    "quartiles": group.quartiles().round(5).tolist(),
                    "front": (group.front * signs).tolist(),
                }
                for group in self.groups
            ],
            "duels": [{**dataclasses.asdict(duel), "verdict": duel.verdict} for duel in self.duels],
        }


def _check(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise InputError(f"give at least two runs to compare, got {len(runs)}")
    for run in runs:
        if run.objectives != runs[0].objectives:
            raise InputError(
                f"{run.path} optimises {_objectives_text(run)}, {runs[0].path} {_objectives_text(runs[0])}: runs are "
                "compared by the same objectives"
            )
        if not run.front:
            raise InputError(f"{run.path}: {run.why_empty()}")


def _objectives_text(run: Run) -> str:
    return ", ".join(f"{objective.metric} ({objective.direction})" for objective in run.objectives)


def _losses(run: Run) -> np.ndarray:
    return to_losses(run.objectives, [record.metrics for record in run.front])


def _reference_point(runs: Sequence[Run]) -> dict[str, float]:
    """Return the runs' own point if it is the same for all; else one just beyond the worst of all fronts."""
    points = [run.reference_point for run in runs]
    if points[0] is not None and all(point == points[0] for point in points):
        return dict(points[0])
    losses = np.concatenate([_losses(run) for run in runs])
    worst = losses.max(axis=0) + _MARGIN * np.ptp(losses, axis=0)
    return {o.metric: float(o.sign * value) for o, value in zip(runs[0].objectives, worst, strict=True)}


def _volume_of_all(runs: Sequence[Run], point: Mapping[str, float]) -> float:
    """Return the hypervolume of all fronts together."""
    losses = np.concatenate([_losses(run) for run in runs])
    limit = to_losses(runs[0].objectives, [point])[0]
    return hypervolume(losses[non_dominated(losses)], limit) or 1.0


def _group(name: str, runs: Sequence[Run], point: Mapping[str, float], whole: float, n: int) -> Group:
    shares = np.zeros((len(runs), n))
    for row, run in enumerate(runs):
        volumes = dataclasses.replace(run, reference_point=point).hypervolumes() / whole
        shares[row] = np.pad(volumes, (0, n - len(volumes)), mode="edge")
    losses = np.concatenate([_losses(run) for run in runs])
    return Group(name, tuple(str(run.path) for run in runs), shares, np.unique(losses[non_dominated(losses)], axis=0))


def _duel(first: Group, second: Group) -> Duel:
    ends, others = first.shares[:, -1], second.shares[:, -1]
    wins = float(np.mean([(a > b) + 0.5 * (a == b) for a in ends for b in others]))
    is_enough = min(len(ends), len(others)) >= _MIN_RUNS
    p_value = float(mannwhitneyu(ends, others, alternative="two-sided").pvalue) if is_enough else None
    dominated, back = _dominated(first.front, second.front), _dominated(second.front, first.front)
    return Duel(first.name, second.name, dominated, back, wins, p_value)


def _dominated(by: np.ndarray, front: np.ndarray) -> float:
    """Return the share of a front that another one dominates."""
    dominates = (by[:, None] <= front[None]).all(axis=2) & (by[:, None] < front[None]).any(axis=2)
    return float(dominates.any(axis=0).mean())
