"""The contract of whoever follows a search while it runs."""

from collections.abc import Sequence
from typing import Protocol

from nas.store.run_folder import RunFolder
from nas.values.objectives import Objective
from nas.values.pareto import ParetoArchive
from nas.values.recipes import EpochSummary
from nas.values.records import Record


class SearchView(Protocol):
    """What a listener may read of a running search."""

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
        """How many candidates will have ended when the search does."""

    @property
    def remaining_s(self) -> float | None:
        """The seconds left at the pace so far; `None` before a candidate ended."""


class SearchListener:
    """Follows a search. Every method does nothing until it is overridden."""

    def on_start(self, search: SearchView) -> None:
        """Evaluation starts; `search` knows what an earlier process did."""

    def on_message(self, text: str) -> None:
        """Something that a person should know."""

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
