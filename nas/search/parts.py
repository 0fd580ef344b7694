"""The parts of a search, and when its controller is asked and told."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nas.controllers.base import Controller, SearchProblem
from nas.evaluation.evaluator import Evaluator
from nas.execution.base import Executor
from nas.values.budgets import Budget
from nas.values.objectives import Constraint
from nas.values.records import Candidate, Record, RecordState

Thresholds = Callable[[Mapping[str, float], Sequence[Record]], Mapping[str, float]]
"""From a candidate's costs and the finished records to the scores that its training must reach between its stages."""


class Scheduling(StrEnum):
    """When the controller is asked for candidates and told how they ended."""

    GENERATIONAL = "generational"  # a batch at a time: the same search with any number of workers
    STEADY_STATE = "steady_state"  # one for each that ended: nobody waits for the slowest of a batch


@dataclass(frozen=True)
class SearchParts:
    """Everything that a search is put together from; `nas.assembly` makes them from a configuration.

    Attributes:
        problem: Space, objectives and seed.
        constraints: Bounds that every candidate must keep.
        controller: Not yet set up.
        measuring: The stages before any training: counts, then devices.
        working: The other stages; run by the executor. None where measuring is all.
        executor: Where they run.
        given_reference_point: By metric, from the configuration.
        chance_levels: By metric, from the task.
        references: Networks to compare with, not from the space.
        thresholds: Which trainings are stopped early; they depend on the records that the controller was told, so that
            the order in which a batch's trainings end does not matter.
        budget: Limits of trainings and hours.
        scheduling: When the controller is asked and told.
        front_training: Trains the members of the final front again, under other seeds; `None` for not at all.
    """

    problem: SearchProblem
    constraints: tuple[Constraint, ...]
    controller: Controller
    measuring: Evaluator
    working: Evaluator
    executor: Executor
    given_reference_point: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chance_levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    references: tuple[Candidate, ...] = ()
    thresholds: Thresholds = lambda costs, finished: {}
    budget: Budget = dataclasses.field(default_factory=Budget)
    scheduling: Scheduling = Scheduling.GENERATIONAL
    front_training: Evaluator | None = None

    def was_trained(self, record: Record) -> bool:
        """Return whether a candidate that ended went beyond the measurements."""
        if record.failure is not None:
            return record.failure.stage not in {stage.name for stage in self.measuring.stages}
        provided = frozenset[str]().union(*(stage.provides for stage in self.working.stages))
        return record.state is RecordState.PRUNED or bool(provided & record.metrics.keys())
