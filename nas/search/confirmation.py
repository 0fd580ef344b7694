"""Before a front is final its members are trained and measured again: who stands there by luck or noise goes."""

import dataclasses
from collections.abc import Callable, Sequence

from latency.errors import LatencyError
from nas.controllers.base import SearchProblem
from nas.evaluation.base import Stage
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Progress, Reading
from nas.evaluation.stages import DeviceStage, confirm
from nas.execution.base import Executor
from nas.store.run_store import CONFIRMATION, RunStore
from nas.values.objectives import Constraint
from nas.values.pareto import pareto_front
from nas.values.records import Observation, Record, Role

_N_ROUNDS = 3


class FrontConfirmation:
    """Trains and measures the front's members again, until all that stand on it have been.

    What is confirmed may let others onto the front; each time at least one more is confirmed, so this ends.

    Args:
        store: Of the run; confirmed readings take the place of the first.
        problem: Gives the objectives.
        constraints: That members keep.
        measuring: Its devices measure again, side by side.
        training: Trains again, under other seeds; `None` for not at all.
        executor: Where both run.
        on_event: Told how trainings go on.
        say: Told what a person should know.
    """

    def __init__(
        self,
        store: RunStore,
        problem: SearchProblem,
        constraints: Sequence[Constraint],
        *,
        measuring: Evaluator,
        training: Evaluator | None,
        executor: Executor,
        on_event: Callable[[Event], None],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._problem = problem
        self._constraints = constraints
        self._measuring, self._training = measuring, training
        self._executor = executor
        self._on_event = on_event
        self._say = say

    def run(self) -> None:
        """Confirm the front."""
        training = self._training.stages if self._training else ()
        devices = [stage for stage in self._measuring.stages if isinstance(stage, DeviceStage)]
        failed: set[str] = set()
        goes_on = True
        while goes_on:
            front = pareto_front(self._store.records(), self._problem.objectives, self._constraints)
            untrained = [r for r in front if not self._is_confirmed(r, training) and r.id not in failed]
            if untrained:
                failed |= self._train_again(untrained)
            elif not all(self._is_confirmed(record, devices) for record in front):
                goes_on = self._measure_again(front, devices)
            else:
                goes_on = False

    def _train_again(self, records: Sequence[Record]) -> set[str]:
        """Train members of the front under other seeds; return the ids of those whose trainings failed."""
        self._say(f"Training the {_members(records)} of the front again, under other seeds.")
        failed: set[str] = set()

        def take(event: Event) -> None:
            if isinstance(event, Reading):
                self._keep(event.observations)
            elif isinstance(event, Ended) and event.failure is not None:
                failed.add(event.candidate)
                self._say(f"{event.candidate}: the first score stands, its training failed: {event.failure.reason}")
            elif isinstance(event, Progress):
                self._on_event(event)

        assert self._training is not None  # noqa: S101 - without it nothing is untrained
        with self._executor:
            self._executor.run(self._training, [Job(record.candidate) for record in records], take)
        return failed

    def _measure_again(self, front: Sequence[Record], stages: Sequence[DeviceStage]) -> bool:
        """Measure the front's members side by side, and the references with them; return whether that could be done."""
        references = [record for record in self._store.records(role=Role.REFERENCE) if record.is_complete]
        beside = ", and the references" if references else ""
        self._say(f"Measuring the {_members(front)} of the front again, side by side{beside}.")
        subjects = [self._measuring.subject(Job(record.candidate)) for record in (*front, *references)]
        for stage in stages:
            try:
                confirmed = self._executor.at_device(stage.name, confirm, stage, subjects, _N_ROUNDS)
            except LatencyError as error:
                self._say(f"{stage.name}: the front could not be measured again, first readings stand: {error}")
                return False
            for observations in confirmed.values():
                self._keep(observations)
        return True

    def _keep(self, observations: Sequence[Observation]) -> None:
        self._store.add_observations([dataclasses.replace(o, stage=CONFIRMATION) for o in observations])

    def _is_confirmed(self, record: Record, stages: Sequence[Stage]) -> bool:
        confirmed = {o.metric for o in self._store.observations(record.id) if o.stage == CONFIRMATION}
        return all(stage.provides <= confirmed for stage in stages)


def _members(records: Sequence[Record]) -> str:
    return "only member" if len(records) == 1 else f"{len(records)} members"
