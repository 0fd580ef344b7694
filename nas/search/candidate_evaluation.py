"""Takes open candidates through measurements and trainings."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from nas.evaluation.events import Event, Job
from nas.search.parts import SearchParts
from nas.search.recording import EventRecorder
from nas.values.objectives import Constraint
from nas.values.records import Record, RecordState, Role

N_REPEATS = 3
"""How often a reading that something disturbed is repeated at most, before it counts as it is."""


class CandidateEvaluation:
    """Evaluates candidates and references, those of one call measured before its first training.

    Args:
        parts: Of the search.
        recorder: Holds the open candidates.
        on_event: Callback for the events of both.
        told: Records that the controller was told; thresholds of trainings depend on them.
    """

    def __init__(
        self,
        parts: SearchParts,
        recorder: EventRecorder,
        on_event: Callable[[Event], None],
        told: Sequence[Record] = (),
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._on_event = on_event
        self._told = told
        self._first_readings = dataclasses.replace(parts.measuring, repeats_follow=True)
        self._verdicts = dataclasses.replace(parts.measuring, stages=())

    def run(self, records: Iterable[Record], constraints: tuple[Constraint, ...]) -> None:
        """Evaluate those of `records` that have not ended.

        Args:
            records: Of candidates or references.
            constraints: Bounds that they must keep.
        """
        if jobs := self.measured_jobs(records, constraints):
            self._parts.executor.run(self._parts.working, jobs, self._on_event)

    def measured_jobs(self, records: Iterable[Record], constraints: tuple[Constraint, ...]) -> list[Job]:
        """Measure those of `records` that have not ended, and return the trainings of those that keep their bounds."""
        open_records = self._still_open(records)
        if self._parts.measuring.stages:
            self._measure([self._job(record, constraints) for record in open_records])
            self._repeat_disturbed(open_records, constraints)
        if not self._parts.working.stages:
            return []
        return [self._job(record, constraints) for record in self._still_open(open_records)]

    def _measure(self, jobs: Sequence[Job]) -> None:
        self._parts.executor.measure(self._first_readings, jobs, self._on_event)

    def _repeat_disturbed(self, records: Sequence[Record], constraints: tuple[Constraint, ...]) -> None:
        """Repeat disturbed readings, all `records` in turn so that time passes between those of one; then decide."""
        disturbed = [r for r in self._still_open(records) if self._recorder.job(r, constraints).undisturbed]
        for _ in range(N_REPEATS):
            repeats = [self._recorder.job_of_repeats(r, constraints, N_REPEATS) for r in self._still_open(disturbed)]
            if not (jobs := [job for job in repeats if job is not None]):
                break
            self._measure(jobs)
        for record in self._still_open(disturbed):
            self._verdicts.run(self._recorder.job(record, constraints), self._on_event)

    def _still_open(self, records: Iterable[Record]) -> list[Record]:
        return [record for record in records if self._recorder.current(record).state is RecordState.ASKED]

    def _job(self, record: Record, constraints: tuple[Constraint, ...]) -> Job:
        job = self._recorder.job(record, constraints)
        if record.role is Role.REFERENCE:
            return job
        return dataclasses.replace(job, thresholds=self._parts.thresholds(job.metrics, self._told))
