"""A run read back from its folder: records, front, knee, rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from nas.errors import InputError
from nas.store.damage import reading
from nas.store.run_folder import RunFolder
from nas.values.budgets import Usage
from nas.values.metrics import plain_value
from nas.values.objectives import Constraint, Direction, Objective, to_losses, violations
from nas.values.pareto import ParetoArchive, knee, non_dominated, pareto_front
from nas.values.records import Record, RecordState, Role


@dataclass(frozen=True)
class Run:
    """A snapshot of a run's folder.

    Attributes:
        path: The folder.
        name: From the configuration.
        objectives: What was optimised.
        constraints: The bounds that were kept.
        records: Of every candidate asked for, in that order.
        references: Networks to compare with.
        reference_point: By metric, in its own units; `None` before it was fixed.
        teacher: Its kind, size and validation scores; `None` for a run without one.
        finished_size: The number of candidates at which the search came to its end; 0 while it has not.
        planned_size: How many the search asks for without a budget; 0 where an earlier release kept no number.
        expected_gain: The share of the hypervolume that the next candidates could be expected to add at the end, where
            the search was to stop when it had converged.
        usage: Trainings and hours used so far.
        scores: The metrics that networks were trained for.
        builds_networks: Whether its candidates are networks.
    """

    path: Path
    name: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    records: tuple[Record, ...]
    references: tuple[Record, ...]
    reference_point: Mapping[str, float] | None
    teacher: Mapping[str, Any] | None
    finished_size: int
    planned_size: int = 0
    expected_gain: float | None = None
    usage: Usage = field(default_factory=Usage)
    scores: frozenset[str] = frozenset()
    builds_networks: bool = False

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a run; it may be running meanwhile.

        Raises:
            RunFolderError: If there is none.
        """
        with RunFolder.read(Path(path)) as folder:
            return cls.of(folder)

    @classmethod
    def of(cls, folder: RunFolder) -> Self:
        """Read an open run."""
        with reading(folder.store.path):
            run = cls._read(folder)
            run._check_objectives()
            return run

    @classmethod
    def _read(cls, folder: RunFolder) -> Self:
        store = folder.store
        objectives = store.fact("objectives") or ()
        everyone = store.records(role=None)
        return cls(
            path=folder.path,
            name=store.fact("name") or folder.path.name,
            objectives=tuple(Objective(**{**o, "direction": Direction(o["direction"])}) for o in objectives),
            constraints=tuple(Constraint(**c) for c in store.fact("constraints") or ()),
            records=tuple(record for record in everyone if record.role is Role.CANDIDATE),
            references=tuple(record for record in everyone if record.role is Role.REFERENCE),
            reference_point=store.fact("reference_point"),
            teacher=store.fact("teacher"),
            finished_size=store.fact("finished_size") or 0,
            planned_size=store.fact("planned_size") or 0,
            expected_gain=store.fact("expected_gain"),
            usage=Usage(**(store.fact("usage") or {})),
            scores=frozenset(store.fact("scores") or ()),
            builds_networks=store.fact("signature") is not None,
        )

    def _check_objectives(self) -> None:
        """Check that what stands on the front can be compared.

        Raises:
            ValueError: If the store is damaged such that it cannot.
        """
        metrics = {objective.metric for objective in self.objectives}
        complete = [record for record in self.records if record.is_complete]
        if complete and not metrics:
            raise ValueError("it holds candidates, but not what was optimised")
        for record in complete:
            if missing := metrics - record.metrics.keys():
                raise ValueError(f"candidate {record.id} is complete without {', '.join(sorted(missing))}")
        if self.reference_point is not None and (missing := metrics - self.reference_point.keys()):
            raise ValueError(f"its reference point lacks {', '.join(sorted(missing))}")

    @property
    def state(self) -> str:
        """`running` while a process writes to it, else `finished` or `unfinished`."""
        if RunFolder.is_in_use(self.path):
            return "running"
        return "finished" if self.finished_size else "unfinished"

    @property
    def front(self) -> tuple[Record, ...]:
        """The all-time Pareto set, best in the first objective first."""
        front = pareto_front(self.records, self.objectives, self.constraints)
        return tuple(sorted(front, key=lambda r: self.objectives[0].sign * r.metrics[self.objectives[0].metric]))

    @property
    def knee(self) -> Record:
        """The front's member nearest to its ideal point, objectives scaled to the front's range.

        Raises:
            InputError: If the front is empty.
        """
        front = self.front
        if not front:
            raise InputError(f"{self.path}: {self.why_empty()}")
        return front[knee(to_losses(self.objectives, [record.metrics for record in front]))]

    @property
    def ended(self) -> tuple[Record, ...]:
        """The records with a verdict, in the order of asking."""
        return tuple(record for record in self.records if record.state is not RecordState.ASKED)

    def why_empty(self) -> str:
        """Return why the front is empty, as a clause: which bound emptied it, if one did."""
        broken = [violation for record in self.ended for violation in record.violations]
        if not broken:
            return "the front is empty: no candidate is complete"
        metric = max((one.metric for one in broken), key=[one.metric for one in broken].count)
        of_metric = [violation for violation in broken if violation.metric == metric]
        nearest = min(of_metric, key=lambda violation: violation.amount)
        side, bound = ("at least", nearest.min) if nearest.min is not None else ("at most", nearest.max)
        if nearest.min is not None and nearest.max is not None and nearest.value > nearest.max:
            side, bound = "at most", nearest.max
        return (
            f"the front is empty: {len(of_metric)} of {len(self.ended)} candidates broke the bound on {metric}, which "
            f"must be {side} {bound:,.6g}; the nearest had {nearest.value:,.6g}"
        )

    def find(self, candidate: str) -> Record:
        """Return the record whose id starts with `candidate`, or the reference model of that name.

        Raises:
            InputError: If none does, or several do.
        """
        named = [record for record in self.references if record.candidate.description == candidate]
        found = named or [r for r in (*self.records, *self.references) if r.id.startswith(candidate)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} candidates whose ids start" if found else "no candidate whose id starts"
        raise InputError(f"{self.path} holds {what} with {candidate!r}; nas show {self.path} --all lists them")

    def rows(self, *, with_references: bool = False) -> list[dict[str, Any]]:
        """Return one flat row for each record, for `pandas.DataFrame(run.rows())`.

        All rows have the same keys in the same order; a value that a record does not have is `None`.

        Args:
            with_references: Whether the rows of the networks to compare with come first.
        """
        front, ties = {record.id for record in self.front}, self.ties()
        records = (*(self.references if with_references else ()), *self.records)
        metrics = dict.fromkeys(metric for record in records for metric in record.metrics)
        spread = [metric for metric in metrics if any(record.spread(metric) is not None for record in records)]
        disturbed = dict.fromkeys(metric for record in records for metric in record.undisturbed)
        tested = dict.fromkeys(metric for record in records for metric in record.retrained)
        tested_spread = dict.fromkeys(metric for record in records for metric in record.retrained_spread)
        return [
            {
                "candidate": record.id,
                "state": str(record.state),
                "role": str(record.role),
                "batch": record.batch,
                "attempts": record.attempts,
                "on_front": record.id in front,
                **{metric: self.plain_value(metric, record.metrics.get(metric)) for metric in metrics},
                **{f"{metric}_spread": record.spread(metric) for metric in spread},
                **{f"{metric}_undisturbed": record.undisturbed.get(metric) for metric in disturbed},
                **{f"test_{metric}": record.retrained.get(metric) for metric in tested},
                **{f"test_{metric}_spread": record.retrained_spread.get(metric) for metric in tested_spread},
                "tied_with": list(ties.get(record.id, ())),
                "genotype": list(record.candidate.genotype.genes),
                "description": record.candidate.description,
                "reason": record.reason,
            }
            for record in records
        ]

    def plain_value(self, metric: str, value: float | None) -> float | int | None:
        """Return a metric's value as `nas.values.metrics.plain_value` does; `None` stays."""
        units = {objective.metric: objective.unit for objective in self.objectives}
        return None if value is None else plain_value(metric, value, units.get(metric, ""))

    def counts(self) -> dict[str, int]:
        """Return how many records are in each state, those states only that occur."""
        states = [record.state for record in self.records]
        return {str(state): states.count(state) for state in RecordState if state in states}

    def hypervolumes(self) -> np.ndarray:
        """Return the hypervolume of the all-time front after each record that ended, `(n_ended,)`.

        In the order of asking. Empty before the reference point is fixed.
        """
        if self.reference_point is None:
            return np.empty(0)
        point = self._losses_of([self.reference_point])[0]
        archive = ParetoArchive(self.objectives)
        volumes: list[float] = []
        for record in self.records:
            if record.state is not RecordState.ASKED:
                is_kept = not violations(self.constraints, record.metrics, record.undisturbed)
                grew = is_kept and archive.add(record)
                volumes.append(archive.hypervolume(point) if grew or not volumes else volumes[-1])
        return np.array(volumes)

    def outside_reference_point(self) -> tuple[Record, ...]:
        """Return the front's members that add nothing to the hypervolume, being worse than its point."""
        if self.reference_point is None:
            return ()
        point = self._losses_of([self.reference_point])[0]
        return tuple(record for record in self.front if (self._losses_of([record.metrics])[0] >= point).any())

    def ties(self) -> dict[str, tuple[str, ...]]:
        """Return by front member those others that differ from it in its favour only by noise.

        A member is tied with another if, with every measured value taken at the favourable end of the other's and
        the unfavourable end of its own interval of repeated readings, the other dominates it.
        """
        front = self.front
        low = self._losses_of([_ends(record, self.objectives, favourable=True) for record in front])
        high = self._losses_of([_ends(record, self.objectives, favourable=False) for record in front])
        ties: dict[str, tuple[str, ...]] = {}
        for i, record in enumerate(front):
            others = tuple(
                other.id
                for j, other in enumerate(front)
                if j != i and not non_dominated(np.stack([high[i], low[j]]))[0]
            )
            if others:
                ties[record.id] = others
        return ties

    def _losses_of(self, metrics: Sequence[Mapping[str, float]]) -> np.ndarray:
        return to_losses(self.objectives, metrics)


def _ends(record: Record, objectives: Sequence[Objective], *, favourable: bool) -> dict[str, float]:
    """Return each objective's value at one end of its repeated readings; a value read once has no interval."""
    ends = {}
    for objective in objectives:
        value = record.metrics[objective.metric]
        rounds = record.conditions.get(objective.metric, {}).get("rounds", [value])
        best = min if (objective.direction is Direction.MINIMIZE) is favourable else max
        ends[objective.metric] = best(rounds)
    return ends


def load_run(run_dir: Path | str) -> Run:
    """Return a run as it stands, from its folder alone.

    Raises:
        RunFolderError: If there is none.
    """
    return Run.load(run_dir)
