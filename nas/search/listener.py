"""Callbacks of a search, and what they may read of it."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from nas.faults import reason_of
from nas.store.run_folder import RunFolder
from nas.values.objectives import Objective
from nas.values.pareto import ParetoArchive
from nas.values.recipes import EpochSummary
from nas.values.records import Record

_log = logging.getLogger(__name__)


class SearchView(Protocol):
    """A running search as listeners see it."""

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is optimised."""

    @property
    def records(self) -> Sequence[Record]:
        """Of the candidates that have ended."""

    @property
    def archive(self) -> ParetoArchive:
        """The all-time front."""

    @property
    def hypervolume(self) -> float:
        """Of the all-time front."""

    @property
    def n_expected(self) -> int:
        """How many candidates will have ended when the search does, as far as its budget can be foreseen."""

    @property
    def remaining_s(self) -> float | None:
        """The seconds left at the pace so far; `None` before a candidate ended."""


class SearchListener:
    """Callbacks of a search. Every method does nothing until it is overridden."""

    def on_start(self, search: SearchView) -> None:
        """Evaluation starts; `search` holds what earlier processes did."""

    def on_message(self, text: str) -> None:
        """A message to the user."""

    def on_progress(self, name: str, n_done: int, n_total: int) -> None:
        """Work of that name before the first candidate went on; it is complete when `n_done` is `n_total`."""

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """A running training finished an epoch."""

    def on_record(self, record: Record, search: SearchView) -> None:
        """A candidate or a reference ended."""

    def on_batch(self, search: SearchView) -> None:
        """All candidates of a batch ended and the controller was told."""

    def on_end(self, search: SearchView) -> None:
        """The search is complete."""


class ListenerGroup(SearchListener):
    """Passes each callback on to several listeners, in their order.

    A listener that fails (no room for a plot, a closed terminal) is told of once and called again next time: what shows
    a search never ends it.
    """

    def __init__(self, listeners: Sequence[SearchListener]) -> None:
        self._listeners = tuple(listeners)
        self._failed: set[SearchListener] = set()

    def on_start(self, search: SearchView) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_start(search))

    def on_message(self, text: str) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_message(text))

    def on_progress(self, name: str, n_done: int, n_total: int) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_progress(name, n_done, n_total)

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_epoch(candidate, epoch))

    def on_record(self, record: Record, search: SearchView) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_record(record, search))

    def on_batch(self, search: SearchView) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_batch(search))

    def on_end(self, search: SearchView) -> None:
        """Pass it on."""
        self._pass_on(lambda listener: listener.on_end(search))

    def _pass_on(self, call: Callable[[SearchListener], None]) -> None:
        for listener in self._listeners:
            try:
                call(listener)
            except Exception as error:  # noqa: BLE001 - whatever drawing and writing raise
                if listener not in self._failed:
                    self._failed.add(listener)
                    _log.warning(
                        "%s failed, and the search goes on without what it shows: %s",
                        type(listener).__name__,
                        reason_of(error),
                    )
