"""The steady loop: the controller is told as each candidate ends, and asked whenever a worker is free."""

from collections.abc import Iterator, Sequence

from nas.evaluation.base import Need
from nas.evaluation.events import Event, Job
from nas.search.asking import AskTell
from nas.search.candidate_evaluation import CandidateEvaluation
from nas.search.parts import SearchParts
from nas.search.progress import SearchProgress
from nas.search.recording import EventRecorder
from nas.search.replay import Replay
from nas.values.records import Record, RecordState, Role


class SteadyLoop:
    """Keeps all workers busy: nobody waits for the slowest candidate of a batch."""

    def __init__(
        self,
        parts: SearchParts,
        progress: SearchProgress,
        recorder: EventRecorder,
        ask_tell: AskTell,
        replay: Replay,
    ) -> None:
        self._parts = parts
        self._progress = progress
        self._recorder = recorder
        self._ask_tell = ask_tell
        self._replay = replay
        self._evaluation = CandidateEvaluation(parts, recorder, self._on_event, ask_tell.told)

    def run(self, batches: Sequence[Sequence[Record]]) -> None:
        """Replay the stored `batches`, finish their open candidates, then go on until the search is at its end."""
        self._replay.run_steadily(batches)
        waiting = [record for batch in batches for record in batch if record.state is RecordState.ASKED]
        self._parts.executor.run(self._parts.working, self._jobs(waiting), self._on_event)

    def _jobs(self, waiting: Sequence[Record]) -> Iterator[Job | None]:
        """Yield a job whenever the executor has a place for it: those of `waiting` first, then new candidates.

        Where measurements need all workers drained, a whole batch is measured at a time: each time the workers wait for
        their slowest candidate, however many are measured.
        """
        n_wanted = self._ask_tell.batch_size if self._drains_to_measure else 1
        while True:
            if self._drains_to_measure:
                yield None
            waiting = waiting or self._ask_tell.ask(n_wanted)
            if not waiting:
                return
            yield from self._evaluation.measured_jobs(waiting, self._parts.constraints)
            waiting = []

    @property
    def _drains_to_measure(self) -> bool:
        needs_device = any(Need.EXCLUSIVE_DEVICE in stage.needs for stage in self._parts.measuring.stages)
        return needs_device and not self._parts.executor.measures_apart

    def _on_event(self, event: Event) -> None:
        record = self._recorder.record(event)
        if record is not None and record.role is Role.CANDIDATE:
            self._ask_tell.tell([record])
            if len(self._progress.records) % self._ask_tell.batch_size == 0:
                self._recorder.report_batch()
