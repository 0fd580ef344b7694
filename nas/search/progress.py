"""The state of a running search."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from nas.search.budget_meter import BudgetMeter
from nas.search.convergence import VolumeHistory, joined_gain
from nas.search.parts import SearchParts
from nas.store.run_folder import RunFolder
from nas.values.budgets import Usage
from nas.values.pareto import ParetoArchive
from nas.values.records import Record, RecordState


class SearchProgress:
    """What a search has asked for, what has ended and what is left; listeners read it as a `SearchView`.

    Args:
        parts: Of the search.
        folder: Of the run; its reference point is fixed.
        stored: The record of every candidate that earlier processes asked for, readings of the confirmation left out.

    Attributes:
        folder: The run's folder.
        objectives: What is optimised.
        records: Of the candidates that have ended: those of earlier processes in the order of asking, then those of
            this process in the order in which they ended.
        archive: The all-time front.
        meter: Of the budget.
        n_candidates: How many the whole search asks for.
        n_asked: How many it has asked for.
    """

    def __init__(self, parts: SearchParts, folder: RunFolder, stored: Sequence[Record]) -> None:
        self.folder = folder
        self.objectives = parts.problem.objectives
        self._controller = parts.controller
        self.n_candidates = parts.controller.n_candidates
        self.n_asked = len(stored)
        self.records: list[Record] = []
        self.archive = ParetoArchive(self.objectives)
        self._budget, self._was_trained = parts.budget, parts.was_trained
        self._history = VolumeHistory(self.objectives, lambda: self._reference_point)
        for record in stored:
            if record.state is not RecordState.ASKED:
                self.add(record)
        self.meter = _meter(parts, folder, self.records, lambda: self.has_converged)

    def add(self, record: Record) -> None:
        """Take in a candidate that ended."""
        self.records.append(record)
        self.archive.add(record)
        if self._was_trained(record):
            self._history.add(record)

    @property
    def n_running(self) -> int:
        """How many candidates were asked for and have not ended."""
        return self.n_asked - len(self.records)

    @property
    def n_expected(self) -> int:
        """How many candidates will have ended when the search does, as far as its budget can be foreseen."""
        n_ended = len(self.records)
        return n_ended + self.meter.n_expected(self.n_candidates - n_ended, self.n_running)

    @property
    def remaining_s(self) -> float | None:
        """The seconds left at the pace of this process, at first of those before; `None` before a candidate ended."""
        return self.meter.remaining_s(self.n_candidates - len(self.records))

    @property
    def expected_gain(self) -> float | None:
        """The share of the hypervolume that the next `budget.converged_next` candidates can be expected to add.

        By the archive's history, and by the controller's model where that expects more; `None` without a history.
        """
        n_next = self._budget.converged_next
        return joined_gain(self._history.expected_gain(n_next), self._controller.expected_gain(n_next))

    @property
    def has_converged(self) -> bool:
        """Whether the search is to stop because that is little."""
        return self._budget.stop_when_converged and self._budget.has_converged(self.expected_gain)

    @property
    def hypervolume(self) -> float:
        """Of the all-time front."""
        return self.archive.hypervolume(self._reference_point)

    @functools.cached_property
    def _reference_point(self) -> np.ndarray:
        """`(n_objectives,)`, minimised."""
        point = self.folder.store.fact("reference_point")
        return np.array([objective.sign * point[objective.metric] for objective in self.objectives])


def _meter(
    parts: SearchParts, folder: RunFolder, ended: Sequence[Record], has_converged: Callable[[], bool]
) -> BudgetMeter:
    stored = folder.store.fact("usage") or {}
    # Trainings are counted anew: a process may have been killed between a verdict and the storing of the usage.
    used = Usage(**{**stored, "n_trained": sum(map(parts.was_trained, ended))})
    device = parts.working.device
    return BudgetMeter(
        parts.budget,
        used,
        lambda: parts.executor.n_gpus(device),
        n_ended=len(ended),
        n_at_once=lambda: parts.executor.n_at_a_time(device),
        has_converged=has_converged,
    )
