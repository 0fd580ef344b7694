"""Callbacks of a search, and what they may read of it."""

from collections.abc import Sequence
from typing import Protocol

from nas.store.run_folder import RunFolder
from nas.values.objectives import Objective
from nas.values.pareto import ParetoArchive
from nas.values.recipes import EpochSummary
from nas.values.records import Record


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
    """Passes each callback on to several listeners, in their order."""

    def __init__(self, listeners: Sequence[SearchListener]) -> None:
        self._listeners = tuple(listeners)

    def on_start(self, search: SearchView) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_start(search)

    def on_message(self, text: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_message(text)

    def on_progress(self, name: str, n_done: int, n_total: int) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_progress(name, n_done, n_total)

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_epoch(candidate, epoch)

    def on_record(self, record: Record, search: SearchView) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_record(record, search)

    def on_batch(self, search: SearchView) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_batch(search)

    def on_end(self, search: SearchView) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_end(search)
