"""Brings a controller back to where it was: the asks and tells of earlier processes, from the store."""

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence

from nas.controllers.base import Controller
from nas.errors import SpaceExhaustedError
from nas.search.asking import AskTell
from nas.search.recording import EventRecorder
from nas.store.run_store import RunStore
from nas.values.records import Candidate, Record


def in_batches(stored: Iterable[Record]) -> list[list[Record]]:
    """Return stored records by batch, in the order of asking."""
    batches: dict[int, list[Record]] = {}
    for record in stored:
        batches.setdefault(record.batch, []).append(record)
    return [batches[batch] for batch in sorted(batches)]


class Replay:
    """Repeats stored asks and tells.

    Args:
        store: Of the run.
        controller: Set up, asked for nothing yet.
        ask_tell: Tells the controller.
        recorder: Reports where the controller differs from the store.
    """

    def __init__(self, store: RunStore, controller: Controller, ask_tell: AskTell, recorder: EventRecorder) -> None:
        self._store = store
        self._controller = controller
        self._ask_tell = ask_tell
        self._recorder = recorder

    def ask(self, batch: Sequence[Record]) -> None:
        """Repeat the ask that gave `batch`. If the controller gives other candidates now, the stored ones stand."""
        stored = [record.candidate for record in batch]
        asked: tuple[Candidate, ...] = ()
        with contextlib.suppress(SpaceExhaustedError):
            asked = self._controller.ask(self._store.n_requested(batch[0].batch))
        if [candidate.id for candidate in asked] != [candidate.id for candidate in stored]:
            self._recorder.report(
                "The controller would ask for other candidates now than it did then; the stored ones stand."
            )
        self._controller.adopt(stored, instead_of=asked)

    def run_steadily(self, batches: Sequence[Sequence[Record]]) -> None:
        """Repeat all asks and tells of a steady search, in the order in which they came."""
        records = {record.id: record for batch in batches for record in batch}
        coming = deque(batches)
        for candidate, last_asked in self._store.endings():
            while coming and coming[0][0].number <= last_asked:
                self.ask(coming.popleft())
            if candidate in records:  # else it is a reference
                self._ask_tell.tell([records[candidate]])
        for batch in coming:
            self.ask(batch)
