"""What a search joins."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nas.controllers.base import Controller, SearchProblem
from nas.evaluation.evaluator import Evaluator
from nas.execution.base import Executor
from nas.values.budgets import Budget
from nas.values.objectives import Constraint
from nas.values.records import Candidate, Record

Thresholds = Callable[[Mapping[str, float], Sequence[Record]], Mapping[str, float]]
"""From a candidate's costs and the finished records to the scores that its training must reach between its stages."""


class Scheduling(StrEnum):
    """When the controller is asked for candidates and told of them."""

    GENERATIONAL = "generational"  # a batch at a time: the same search with any number of workers
    STEADY_STATE = "steady_state"  # one for each that ended: nobody waits for the slowest of a batch


@dataclass(frozen=True)
class SearchParts:
    """What a search joins; `nas.assembly` makes them from a configuration.

    Attributes:
        problem: Space, objectives and seed.
        constraints: Bounds that every candidate must keep.
        controller: Not yet set up.
        measuring: Everything that runs in this process before trainings: counts, then devices.
        working: The rest; run by the executor. Without stages where measuring is all.
        executor: Where the rest runs.
        given_reference_point: By metric, from the configuration.
        chance_levels: By metric, from the task.
        references: Networks to compare with, not from the space.
        thresholds: Which trainings are stopped early; asked with the records that the controller was told, so that the
            order in which a batch's trainings end does not matter.
        budget: What may be used up.
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
