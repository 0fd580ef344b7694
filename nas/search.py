"""The search: asks a controller, evaluates, stores, tells; and goes on from a store as if never stopped."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency.errors import LatencyError
from nas.controllers.base import Controller, SearchProblem
from nas.errors import EvaluationError, SpaceExhaustedError
from nas.evaluation.base import Need
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Progress, Reading
from nas.evaluation.stages import DeviceStage, confirm
from nas.execution.base import Executor
from nas.objectives import Constraint
from nas.pareto import ParetoArchive, pareto_front
from nas.records import Candidate, Record, RecordState, Role
from nas.reference_point import choose_reference_point
from nas.store import CONFIRMATION, RETRAINING, RunFolder
from nas.training import EpochSummary, torch_threads

_SAMPLE_SIZE = 16  # genotypes whose costs fix the reference point where nothing else does
_CONFIRMATION_ROUNDS = 3


class SearchListener:
    """Told what happens in a search. Every method does nothing until it is overridden."""

    def on_start(self, search: "Search") -> None:
        """Evaluation starts; `search` knows what an earlier process did."""

    def on_message(self, text: str) -> None:
        """Something that a person should know."""

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """A training in hand went on by an epoch."""

    def on_record(self, record: Record, search: "Search") -> None:
        """A candidate or a reference ended."""

    def on_batch(self, search: "Search") -> None:
        """All candidates of a batch ended and the controller was told."""

    def on_end(self, search: "Search") -> None:
        """The search is complete."""


@dataclass(frozen=True)
class SearchParts:
    """What a search joins; `nas.build` makes them from a configuration.

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


class Search:
    """One run, from wherever its store stands to its end.

    Attributes:
        records: Of the candidates that have ended, in the order in which they did in this process or, for
            earlier ones, in the order of asking.
        archive: The all-time front.
        n_candidates: How many the whole search asks for.
    """

    def __init__(self, parts: SearchParts, folder: RunFolder, listeners: Sequence[SearchListener] = ()) -> None:
        self.parts = parts
        self.folder = folder
        self.records: list[Record] = []
        self.archive = ParetoArchive(parts.problem.objectives)
        self.n_candidates = parts.controller.n_candidates
        self._store = folder.store
        self._listeners = tuple(listeners)
        self._objectives = parts.problem.objectives

    @property
    def reference_point(self) -> np.ndarray:
        """`(n_objectives,)`, minimised, as fixed in the store."""
        point = self._store.fact("reference_point")
        return np.array([objective.sign * point[objective.metric] for objective in self._objectives])

    @property
    def hypervolume(self) -> float:
        """Of the all-time front."""
        return self.archive.hypervolume(self.reference_point)

    def run(self) -> None:
        """Run to the end, from wherever the store stands.

        Raises:
            InputError: A fault of the user's that only showed when it was used.
            EvaluationError: If every candidate of the first batch failed, or every network sampled for the
                reference point: that is no search.
        """
        self._store.set_fact("finished_size", 0)
        self._fix_reference_point()
        self.parts.controller.setup(self.parts.problem)
        batches = self._stored_batches()
        for listener in self._listeners:
            listener.on_start(self)
        with self.parts.executor:
            self._evaluate_references()
            n_asked = 0
            for number, records in enumerate(batches):
                self._replay_ask(number, records)
                n_asked += len(records)
                self._finish_batch(number, records)
            self._search_on(n_asked, len(batches))
        self._confirm_front()
        self._store.set_fact("finished_size", self.n_candidates)
        for listener in self._listeners:
            listener.on_end(self)

    def _search_on(self, n_asked: int, batch: int) -> None:
        while n_asked < self.n_candidates:
            n_requested = min(self.parts.controller.batch_size, self.n_candidates - n_asked)
            try:
                candidates = self.parts.controller.ask(n_requested)
            except SpaceExhaustedError as error:
                self._say(f"The search space is used up: {error}.")
                return
            self._store.add_batch(candidates, batch=batch, n_requested=n_requested)
            n_asked += len(candidates)
            self._finish_batch(batch, [self._store.record(candidate.id) for candidate in candidates])
            batch += 1

    # Resuming

    def _stored_batches(self) -> list[list[Record]]:
        batches: dict[int, list[Record]] = {}
        for record in self._store.records(confirmed=False):
            batches.setdefault(record.batch, []).append(record)
            if record.state is not RecordState.ASKED:
                self.records.append(record)
                self.archive.add(record)
        return [batches[batch] for batch in sorted(batches)]

    def _replay_ask(self, batch: int, records: Sequence[Record]) -> None:
        """Bring the controller to where it was after it asked for `records`; what was stored wins."""
        stored = [record.candidate for record in records]
        asked: tuple[Candidate, ...] = ()
        with contextlib.suppress(SpaceExhaustedError):
            asked = self.parts.controller.ask(self._store.n_requested(batch))
        if [candidate.id for candidate in asked] != [candidate.id for candidate in stored]:
            self._say("The controller would ask for other candidates now than it did then; the stored ones stand.")
        self.parts.controller.adopt(stored, instead_of=asked)

    # Evaluating

    def _finish_batch(self, number: int, records: Sequence[Record]) -> None:
        was_complete = all(record.state is not RecordState.ASKED for record in records)
        self._evaluate(records)
        ended = [self._store.record(record.id, confirmed=False) for record in records]
        if number == 0 and all(record.state is RecordState.FAILED for record in ended):
            failure = ended[0].failure
            assert failure is not None  # noqa: S101 - a FAILED record has one
            raise EvaluationError(
                f"all {len(ended)} candidates of the first batch failed, the first one in stage "
                f"{failure.stage!r}: {failure.reason}"
            )
        self.parts.controller.tell(ended)
        if not was_complete:
            for listener in self._listeners:
                listener.on_batch(self)

    def _evaluate(self, records: Sequence[Record], constraints: tuple[Constraint, ...] | None = None) -> None:
        """Take all `records` that have not ended through the stages, measurements before trainings."""
        bounds = self.parts.constraints if constraints is None else constraints
        for record in records:
            if record.state is RecordState.ASKED and self.parts.measuring.stages:
                self.parts.measuring.run(self._job(record, bounds), self._take)
        if not self.parts.working.stages:
            return
        current = [self._store.record(record.id) for record in records]
        jobs = [self._job(record, bounds) for record in current if record.state is RecordState.ASKED]
        self.parts.executor.run(self.parts.working, jobs, self._take)

    def _evaluate_references(self) -> None:
        known = {record.id for record in self._store.records(role=Role.REFERENCE)}
        if new := [candidate for candidate in self.parts.references if candidate.id not in known]:
            self._store.add_batch(new, batch=-1, role=Role.REFERENCE)
        self._evaluate(self._store.records(role=Role.REFERENCE), constraints=())

    def _job(self, record: Record, constraints: tuple[Constraint, ...]) -> Job:
        readings = [o for o in self._store.observations(record.id) if o.stage not in (CONFIRMATION, RETRAINING)]
        return Job(
            record.candidate,
            metrics={o.metric: o.value for o in readings},
            stages_done=frozenset(o.stage for o in readings),
            constraints=constraints,
        )

    def _take(self, event: Event) -> None:
        """Store what happened, then tell it."""
        match event:
            case Progress(candidate, epoch):
                for listener in self._listeners:
                    listener.on_epoch(candidate, epoch)
            case Reading(_, observations):
                self._store.add_observations(observations)
            case Ended(candidate, state) if state is not RecordState.ASKED:
                self._store.add_verdict(
                    candidate,
                    state,
                    attempts=event.attempts,
                    violations=event.violations,
                    failure=event.failure,
                    pruning=event.pruning,
                )
                record = self._store.record(candidate, confirmed=False)
                if record.role is Role.CANDIDATE:
                    self.records.append(record)
                    self.archive.add(record)
                for listener in self._listeners:
                    listener.on_record(record, self)

    # Before and after

    def _fix_reference_point(self) -> None:
        if self._store.fact("reference_point") is None:
            point = choose_reference_point(
                self._objectives,
                self.parts.constraints,
                given=self.parts.given_reference_point,
                chance_levels=self.parts.chance_levels,
                sample=self._sample_costs,
            )
            self._store.set_fact("reference_point", point)

    def _sample_costs(self) -> list[dict[str, float]]:
        """Measure random genotypes by all stages that need no training, and keep what came out."""
        rng = np.random.default_rng([self.parts.problem.seed, 1])
        space = self.parts.problem.space
        stages = tuple(
            stage
            for stage in (*self.parts.measuring.stages, *self.parts.working.stages)
            if Need.DATA not in stage.needs
        )
        evaluator = dataclasses.replace(self.parts.measuring, stages=stages, required=frozenset())
        sample: list[dict[str, float]] = []
        genotypes = {space.canonical(space.sample(rng)): None for _ in range(_SAMPLE_SIZE)}
        self._say(f"Measuring the costs of {len(genotypes)} sampled networks to fix the reference point.")
        for genotype in genotypes:
            metrics: dict[str, float] = {}
            job = Job(Candidate.create(space, genotype, self.parts.problem.seed))

            def keep(event: Event, metrics: dict[str, float] = metrics) -> None:
                if isinstance(event, Reading):
                    metrics.update({o.metric: o.value for o in event.observations})
                elif isinstance(event, Ended) and event.failure is not None:
                    self._say(f"A sampled network failed in {event.failure.stage}: {event.failure.reason}")

            with torch_threads(1):
                evaluator.run(job, keep)
            sample.append(metrics)
        self._store.set_fact(
            "reference_sample",
            [{"genes": g.genes, "metrics": m} for g, m in zip(genotypes, sample, strict=True)],
        )
        return sample

    def _confirm_front(self) -> None:
        """Measure the front's members again, side by side, until all that stand on it have been.

        What is confirmed may let others onto the front; each time at least one more is confirmed, so this ends.
        """
        stages = [stage for stage in self.parts.measuring.stages if isinstance(stage, DeviceStage)]
        while stages:
            front = pareto_front(self._store.records(), self._objectives, self.parts.constraints)
            if all(self._is_confirmed(record, stages) for record in front):
                return
            self._say(f"Measuring the {len(front)} members of the front again, side by side.")
            subjects = [self.parts.measuring.subject(Job(record.candidate)) for record in front]
            for stage in stages:
                try:
                    confirmed = confirm(stage, subjects, _CONFIRMATION_ROUNDS)
                except LatencyError as error:
                    self._say(f"{stage.name}: the front could not be measured again, first readings stand: {error}")
                    return
                for observations in confirmed.values():
                    self._store.add_observations([dataclasses.replace(o, stage=CONFIRMATION) for o in observations])

    def _is_confirmed(self, record: Record, stages: Sequence[DeviceStage]) -> bool:
        confirmed = {o.metric for o in self._store.observations(record.id) if o.stage == CONFIRMATION}
        return all(stage.provides <= confirmed for stage in stages)

    def _say(self, text: str) -> None:
        for listener in self._listeners:
            listener.on_message(text)
