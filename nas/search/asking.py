"""Asks the controller for candidates within the budget, and tells it how they ended."""

import time
from collections.abc import Sequence

from nas.controllers.base import Controller
from nas.errors import EvaluationError, SpaceExhaustedError
from nas.search.progress import SearchProgress
from nas.search.recording import EventRecorder
from nas.values.records import Record, RecordState


class AskTell:
    """The conversation of a search with its controller.

    Args:
        controller: Set up.
        progress: Of the search.
        recorder: Stores what was asked for.
        n_batches: Batches that earlier processes asked for.

    Attributes:
        told: Records that the controller was told, in that order.
    """

    def __init__(
        self, controller: Controller, progress: SearchProgress, recorder: EventRecorder, *, n_batches: int
    ) -> None:
        self.told: list[Record] = []
        self._controller = controller
        self._progress = progress
        self._recorder = recorder
        self._n_batches = n_batches

    @property
    def batch_size(self) -> int:
        """Candidates that make a batch, or generation."""
        return self._controller.batch_size

    def ask(self, n: int) -> list[Record]:
        """Return at most `n` new candidates, stored; none if the search is at its end."""
        progress = self._progress
        n = progress.meter.n_affordable(min(n, progress.n_candidates - progress.n_asked), progress.n_running)
        if n <= 0:
            return []
        start = time.monotonic()
        try:
            candidates = self._controller.ask(n)
        except SpaceExhaustedError as error:
            self._recorder.report(f"The search space is used up: {error}.")
            return []
        self._recorder.note_busy("controller", time.monotonic() - start)
        records = self._recorder.add_batch(candidates, batch=self._n_batches, n_requested=n)
        self._n_batches += 1
        return records

    def tell(self, records: Sequence[Record]) -> None:
        """Tell the controller how candidates ended.

        Raises:
            EvaluationError: If these complete the first batch and all of it failed.
        """
        n_before = len(self.told)
        self.told += records
        if n_before < self.batch_size <= len(self.told):
            _check_not_all_failed(self.told)
        self._controller.tell(records)

    def check_end(self) -> None:
        """Check a search that ended before its first batch was full.

        Raises:
            EvaluationError: If all its candidates failed.
        """
        if len(self.told) < self.batch_size:
            _check_not_all_failed(self.told)


def _check_not_all_failed(told: Sequence[Record]) -> None:
    if told and all(record.state is RecordState.FAILED for record in told):
        failure = told[0].failure
        assert failure is not None  # noqa: S101 - a FAILED record has one
        raise EvaluationError(
            f"all {len(told)} candidates of the first batch failed, the first one in stage "
            f"{failure.stage!r}: {failure.reason}. Once the cause is mended, --resume asks for them anew"
        )
