"""A candidate's evaluation as data: the job that goes in, the events that come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas.values.objectives import Constraint, Violation
from nas.values.recipes import EpochSummary
from nas.values.records import Candidate, Failure, Observation, Pruning, Record, RecordState, undisturbed_parts


@dataclass(frozen=True)
class Job:
    """One candidate to take through stages.

    Attributes:
        candidate: Which.
        metrics: Results of stages that are done.
        undisturbed: As `Record.undisturbed`, of these.
        stages_done: Those stages; they are left out.
        attempt: 1 for the first try.
        n_lost: How many of the attempts since it was last asked for ended without a verdict.
        constraints: Bounds that it must keep; none for a reference network.
        thresholds: Scores that its training must reach between its stages, by metric.
    """

    candidate: Candidate
    metrics: Mapping[str, float] = field(default_factory=dict)
    undisturbed: Mapping[str, float] = field(default_factory=dict)
    stages_done: frozenset[str] = frozenset()
    attempt: int = 1
    n_lost: int = 0
    constraints: tuple[Constraint, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def with_readings(self, observations: Sequence[Observation]) -> "Job":
        """Return this job with these readings added, each in place of earlier ones of its metric."""
        latest = {o.metric: o for o in observations}
        before = {metric: value for metric, value in self.undisturbed.items() if metric not in latest}
        new = undisturbed_parts((o.metric, o.value, o.conditions) for o in latest.values())
        return replace(
            self,
            metrics={**self.metrics, **{o.metric: o.value for o in latest.values()}},
            undisturbed={**before, **new},
            stages_done=self.stages_done | {o.stage for o in observations},
        )


@dataclass(frozen=True)
class Progress:
    """An epoch of a candidate's training ended."""

    candidate: str
    epoch: EpochSummary


@dataclass(frozen=True)
class Reading:
    """A stage gave readings."""

    candidate: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class Ended:
    """An evaluation ended. `state` is `ASKED` when these stages were passed and others are to follow.

    Attributes:
        seconds: How long it took.
        worker: Who evaluated: a name that the executor gives; empty for this process.
    """

    candidate: str
    state: RecordState
    attempts: int = 1
    violations: tuple[Violation, ...] = ()
    failure: Failure | None = None
    pruning: Pruning | None = None
    seconds: float = field(default=0.0, compare=False)
    worker: str = field(default="", compare=False)

    def applied_to(self, record: Record) -> Record:
        """Return `record` with this verdict."""
        return replace(
            record,
            state=self.state,
            attempts=self.attempts,
            violations=self.violations,
            failure=self.failure,
            pruning=self.pruning,
        )


Event = Progress | Reading | Ended
