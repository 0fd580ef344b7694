"""Takes one candidate through the stages and says how it ended."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nas.errors import EvaluationError, InputError
from nas.evaluation.base import ModelSignature, Stage, Subject
from nas.objectives import Constraint, Violation, violations
from nas.records import Candidate, Failure, Observation, Pruning, RecordState
from nas.training import EpochSummary
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
    """

    candidate: Candidate
    metrics: Mapping[str, float] = field(default_factory=dict)
    stages_done: frozenset[str] = frozenset()
    attempt: int = 1
    constraints: tuple[Constraint, ...] = ()


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
    """

    spaces: Mapping[str, SearchSpace]
    stages: tuple[Stage, ...]
    signature: ModelSignature | None
    required: frozenset[str] = frozenset()
    is_last: bool = True

    def subject(self, job: Job, on_event: Callable[[Event], None] = lambda event: None) -> Subject:
        """Return what stages are given for `job`."""
        candidate = job.candidate
        return Subject(
            candidate=candidate,
            space=self.spaces[candidate.genotype.space],
            signature=self.signature,
            attempt=job.attempt,
            metrics=dict(job.metrics),
            on_epoch=lambda summary: on_event(Progress(candidate.id, summary)),
        )

    def run(self, job: Job, on_event: Callable[[Event], None]) -> None:
        """Evaluate one candidate; everything that happens is told to `on_event`, last of all an `Ended`.

        Raises:
            InputError: A fault of the user's that every candidate would meet; it is no candidate's failure.
        """
        identity, attempt = job.candidate.id, job.attempt
        stage_name = "bounds"
        try:
            subject = self.subject(job, on_event)
            for stage in (None, *self.stages):
                if stage is not None and stage.name not in job.stages_done:
                    stage_name = stage.name
                    observations = tuple(stage.run(subject))
                    on_event(Reading(identity, observations))
                    subject.metrics = {**subject.metrics, **{o.metric: o.value for o in observations}}
                if broken := violations(job.constraints, subject.metrics):
                    on_event(Ended(identity, RecordState.INFEASIBLE, attempt, violations=broken))
                    return
            if self.is_last and (missing := self.required - subject.metrics.keys()):
                raise EvaluationError(f"no stage gave {', '.join(sorted(missing))}")
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a network or a user's function raises is its failure
            failure = Failure(stage_name, f"{type(error).__name__}: {error}", traceback.format_exc())
            on_event(Ended(identity, RecordState.FAILED, attempt, failure=failure))
            return
        state = RecordState.COMPLETE if self.is_last else RecordState.ASKED
        on_event(Ended(identity, state, attempt))
