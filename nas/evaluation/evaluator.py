"""Takes one candidate through the stages and says how it ended."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.errors import InputError
from nas.evaluation.base import ModelSignature, PrunedError, Stage, Subject
from nas.values.objectives import Constraint, Violation, violations
from nas.values.recipes import EpochSummary
from nas.values.records import Candidate, Failure, Observation, Pruning, RecordState
from search_spaces.base import SearchSpace


@dataclass(frozen=True)
class Job:
    """One candidate to take through stages.

    Attributes:
        candidate: Which.
        metrics: What is known of it already.
        stages_done: The stages that this is known from; they are left out.
        attempt: 1 for the first try.
        constraints: Bounds that it must keep; none for a reference network.
        thresholds: What its scores between the stages of a training must reach, by metric.
    """

    candidate: Candidate
    metrics: Mapping[str, float] = field(default_factory=dict)
    stages_done: frozenset[str] = frozenset()
    attempt: int = 1
    constraints: tuple[Constraint, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def with_readings(self, observations: Sequence[Observation]) -> "Job":
        """Return this job with what is known after these readings of a stage."""
        return replace(
            self,
            metrics={**self.metrics, **{o.metric: o.value for o in observations}},
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
    """An evaluation ended. `state` is `ASKED` when these stages were passed and others are to follow."""

    candidate: str
    state: RecordState
    attempts: int = 1
    violations: tuple[Violation, ...] = ()
    failure: Failure | None = None
    pruning: Pruning | None = None


Event = Progress | Reading | Ended


@dataclass(frozen=True)
class Evaluator:
    """Runs stages in order, each gated by the bounds on what is known so far.

    Attributes:
        spaces: By name, every space that candidates come from.
        stages: In order.
        signature: Of networks; `None` where the space builds none.
        required: The metrics without which no candidate is COMPLETE.
        is_last: Whether passing these stages makes a candidate COMPLETE.
        device: The torch device that networks are trained on; `cpu` where none are.
        files: What stages read from disk, each file named by a hash of its content's origin: another machine may
            keep a copy under the same name.
        weights: Where stages keep a candidate's weights, by its id; `None` where they keep none.
    """

    spaces: Mapping[str, SearchSpace]
    stages: tuple[Stage, ...]
    signature: ModelSignature | None
    required: frozenset[str] = frozenset()
    is_last: bool = True
    device: str = "cpu"
    files: tuple[Path, ...] = ()
    weights: Callable[[str], Path] | None = None

    def subject(self, job: Job, on_event: Callable[[Event], None] = lambda event: None) -> Subject:
        """Return what stages are given for `job`."""
        candidate = job.candidate

        def on_epoch(summary: EpochSummary) -> None:
            try:
                on_event(Progress(candidate.id, summary))
            except Exception as error:
                raise _ListenerFault(error) from error

        return Subject(
            candidate=candidate,
            space=self.spaces[candidate.genotype.space],
            signature=self.signature,
            attempt=job.attempt,
            metrics=dict(job.metrics),
            thresholds=job.thresholds,
            on_epoch=on_epoch,
        )

    def run(self, job: Job, on_event: Callable[[Event], None]) -> None:
        """Evaluate one candidate; everything that happens is told to `on_event`, last of all an `Ended`.

        Raises:
            InputError: A fault of the user's that every candidate would meet; it is no candidate's failure.
            Exception: What `on_event` raises; that is no candidate's failure either.
        """
        identity, attempt = job.candidate.id, job.attempt
        subject = self.subject(job, on_event)
        for stage in (None, *self.stages):
            if stage is not None and stage.name not in job.stages_done:
                observations = self._observe(stage, subject, on_event)
                if observations is None:
                    return
                on_event(Reading(identity, observations))
                subject.metrics = {**subject.metrics, **{o.metric: o.value for o in observations}}
            if broken := violations(job.constraints, subject.metrics):
                on_event(Ended(identity, RecordState.INFEASIBLE, attempt, violations=broken))
                return
        missing = self.required - subject.metrics.keys()
        if self.is_last and missing:
            failure = Failure("metrics", f"no stage gave {', '.join(sorted(missing))}", "")
            on_event(Ended(identity, RecordState.FAILED, attempt, failure=failure))
            return
        on_event(Ended(identity, RecordState.COMPLETE if self.is_last else RecordState.ASKED, attempt))

    def _observe(
        self, stage: Stage, subject: Subject, on_event: Callable[[Event], None]
    ) -> tuple[Observation, ...] | None:
        """Return the readings of `stage`; `None`, having told the end, if it failed or stopped the candidate."""
        try:
            return tuple(stage.run(subject))
        except InputError:
            raise
        except _ListenerFault as fault:
            raise fault.error from None
        except PrunedError as error:
            on_event(Reading(subject.candidate.id, error.observations))
            on_event(Ended(subject.candidate.id, RecordState.PRUNED, subject.attempt, pruning=error.pruning))
            return None
        except Exception as error:  # noqa: BLE001 - whatever a network or a user's function raises is its failure
            failure = Failure(stage.name, f"{type(error).__name__}: {error}", traceback.format_exc())
        on_event(Ended(subject.candidate.id, RecordState.FAILED, subject.attempt, failure=failure))
        return None


class _ListenerFault(BaseException):
    """Carries what a listener raised past the stage that told it, which is not to blame."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
