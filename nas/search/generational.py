"""The generational loop: the controller is told when all candidates of a batch have ended."""

from collections.abc import Sequence

from nas.search.asking import AskTell
from nas.search.candidate_evaluation import CandidateEvaluation
from nas.search.parts import SearchParts
from nas.search.progress import SearchProgress
from nas.search.recording import EventRecorder
from nas.search.replay import Replay
from nas.values.records import Record, RecordState


class GenerationalLoop:
    """Evaluates batch after batch: the same search with any number of workers."""

    def __init__(
        self,
        parts: SearchParts,
        progress: SearchProgress,
        recorder: EventRecorder,
        ask_tell: AskTell,
        replay: Replay,
    ) -> None:
        self._constraints = parts.constraints
        self._progress = progress
        self._recorder = recorder
        self._ask_tell = ask_tell
        self._replay = replay
        self._evaluation = CandidateEvaluation(parts, recorder, recorder.on_event, ask_tell.told)

    def run(self, batches: Sequence[Sequence[Record]]) -> None:
        """Replay and finish the stored `batches`, then go on until the search is at its end."""
        for batch in batches:
            self._replay.ask(batch)
            self._finish(batch)
        batch_size = self._ask_tell.batch_size
        # If the budget cut a generation short, its rest is asked for first, so that later ones begin where they would.
        while batch := self._ask_tell.ask(batch_size - self._progress.n_asked % batch_size):
            self._finish(batch)

    def _finish(self, batch: Sequence[Record]) -> None:
        has_open = any(record.state is RecordState.ASKED for record in batch)
        self._evaluation.run(batch, self._constraints)
        self._ask_tell.tell([self._recorder.current(record) for record in batch])
        if has_open:
            self._recorder.report_batch()
