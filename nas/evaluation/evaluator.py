"""Takes one candidate through the stages and reports events."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.evaluation import verdicts
from nas.evaluation.base import ModelSignature, PrunedError, Stage, Subject
from nas.evaluation.events import Ended, Event, Job, Progress, Reading
from nas.values.recipes import EpochSummary
from nas.values.records import Observation, RecordState
from search_spaces.base import SearchSpace


@dataclass(frozen=True)
class Evaluator:
    """Runs stages in order, each gated by the bounds on what is known so far.

    Attributes:
        spaces: By name, every space that candidates come from.
        stages: In order.
        signature: Of networks; `None` where the space builds none.
        required: The metrics without which no candidate is COMPLETE.
        is_last: Whether passing these stages makes a candidate COMPLETE.
        repeats_follow: Whether disturbed readings will be repeated: until then they decide nothing.
        device: The torch device that networks are trained on; `cpu` where none are.
        files: Those that stages read, each named by a cache key: another machine may keep a copy under the same name.
        weights: Where stages keep a candidate's weights, by its id; `None` where they keep none.
    """

    spaces: Mapping[str, SearchSpace]
    stages: tuple[Stage, ...]
    signature: ModelSignature | None
    required: frozenset[str] = frozenset()
    is_last: bool = True
    repeats_follow: bool = False
    device: str = "cpu"
    files: tuple[Path, ...] = ()
    weights: Callable[[str], Path] | None = None

    @property
    def is_harmless(self) -> bool:
        """Whether no candidate can end the process that evaluates it."""
        return all(stage.is_harmless for stage in self.stages)

    def subject(self, job: Job, on_event: Callable[[Event], None] = lambda event: None) -> Subject:
        """Return the argument of the stages for `job`."""
        candidate = job.candidate

        def on_epoch(summary: EpochSummary) -> None:
            try:
                on_event(Progress(candidate.id, summary))
            except Exception as error:
                raise _CallbackError(error) from error

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
        """Evaluate one candidate.

        Args:
            job: The candidate.
            on_event: Callback for everything that happens; the last event is an `Ended`.

        Raises:
            InputError: A fault of the user's that every candidate would meet; it is no candidate's failure.
            MachineError: A fault of the machine; no candidate's failure either.
            Exception: What `on_event` raises; that is no candidate's failure either.
        """
        start = time.monotonic()
        end = self._end(job, on_event)
        on_event(replace(end, seconds=time.monotonic() - start))

    def _end(self, job: Job, on_event: Callable[[Event], None]) -> Ended:
        """Run the stages that are not done until one ends the candidate; return how it ended."""
        subject, done = self.subject(job, on_event), job.stages_done
        if end := verdicts.after_readings(job, repeats_follow=self.repeats_follow):
            return end
        for stage in self.stages:
            if stage.name in done:
                continue
            observations, end = self._run_stage(stage, job, subject, on_event)
            if end:
                return end
            job = job.with_readings(observations)
            if end := verdicts.after_readings(job, repeats_follow=self.repeats_follow):
                return end
        if not self.is_last or (self.repeats_follow and job.undisturbed):
            return Ended(job.candidate.id, RecordState.ASKED, job.attempt)
        return verdicts.after_all_stages(job, subject.metrics, self.required)

    def _run_stage(
        self, stage: Stage, job: Job, subject: Subject, on_event: Callable[[Event], None]
    ) -> tuple[Sequence[Observation], Ended | None]:
        """Report the readings of `stage`, add them to the subject's metrics and return them, with the end, if any."""
        end, process = None, os.getpid()
        try:
            observations = tuple(stage.run(subject))
        except _CallbackError as wrapper:
            raise wrapper.error from None
        except Exception as error:  # noqa: BLE001 - whatever a network or a user's function raises
            if os.getpid() != process:
                os._exit(1)
            end = verdicts.after_error(job, stage.name, error)
            if not isinstance(error, PrunedError):
                return (), end
            observations = error.observations
        if os.getpid() != process:
            os._exit(1)  # a copy that the stage forked and let go on: this process's answer is the only one
        on_event(Reading(job.candidate.id, observations))
        subject.metrics = {**subject.metrics, **{o.metric: o.value for o in observations}}
        return observations, end


class _CallbackError(BaseException):
    """Wraps what a callback raised, so that the stage that called it is not recorded as failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
