"""The search: asks a controller, evaluates, stores, tells; and goes on from a store as if never stopped."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from nas.errors import EvaluationError, SpaceExhaustedError
from nas.evaluation.base import Need
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Progress, Reading
from nas.search.budget_meter import BudgetMeter
from nas.search.confirmation import FrontConfirmation
from nas.search.listener import SearchListener
from nas.search.parts import Scheduling, SearchParts
from nas.search.reference_point import choose_reference_point
from nas.search.sampling import sample_costs
from nas.store.run_folder import RunFolder
from nas.store.run_store import CONFIRMATION, RETRAINING
from nas.values.budgets import Usage
from nas.values.objectives import Constraint
from nas.values.pareto import ParetoArchive
from nas.values.records import Candidate, Record, RecordState, Role


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
        self._meter = BudgetMeter(parts.budget)
        self._n_asked = self._n_batches = 0
        self._tells_at_once = False
        self._listeners = tuple(listeners)
        self.objectives = parts.problem.objectives
        self._finished: list[Record] = []  # those that the controller was told

    @property
    def reference_point(self) -> np.ndarray:
        """`(n_objectives,)`, minimised, as fixed in the store."""
        point = self._store.fact("reference_point")
        return np.array([objective.sign * point[objective.metric] for objective in self.objectives])

    @property
    def hypervolume(self) -> float:
        """Of the all-time front."""
        return self.archive.hypervolume(self.reference_point)

    @property
    def remaining_s(self) -> float | None:
        """The seconds left at the pace of this process, at first of those before; `None` before a candidate ended."""
        return self._meter.remaining_s(self.n_candidates - len(self.records))

    @property
    def n_expected(self) -> int:
        """How many candidates will have ended when the search does, as far as its budget lets that be told."""
        n_ended = len(self.records)
        return n_ended + self._meter.n_expected(self.n_candidates - n_ended, self._n_asked - n_ended)

    def run(self) -> None:
        """Run to the end, from wherever the store stands.

        Raises:
            InputError: A fault of the user's that only showed when it was used.
            EvaluationError: If every candidate of the first batch failed, or every network sampled for the
                reference point: that is no search.
        """
        self._store.set_fact("finished_size", 0)
        with self.parts.executor:
            self._fix_reference_point()
            self.parts.controller.setup(self.parts.problem)
            batches = self._stored_batches()
            self._meter = self._new_meter()
            for listener in self._listeners:
                listener.on_start(self)
            self._evaluate_references()
            if self.parts.scheduling is Scheduling.STEADY_STATE:
                self._search_steadily(batches)
            else:
                self._search_in_generations(batches)
            if len(self._finished) < self.parts.controller.batch_size:
                _check_first(self._finished)
            self._confirm_front()
            self._store_usage()  # while the workers still hold what they are counted for
        if self._meter.is_used_up:
            self._say(f"The budget ({self.parts.budget}) is used up.")
        self._store_usage()
        self._store.set_fact("finished_size", len(self.records) if self._meter.is_used_up else self.n_candidates)
        for listener in self._listeners:
            listener.on_end(self)

    def _ask(self, n: int) -> list[Record]:
        """Return at most `n` new candidates, stored; none if the search is at its end."""
        n_running = self._n_asked - len(self.records)
        n = self._meter.n_affordable(min(n, self.n_candidates - self._n_asked), n_running)
        if n <= 0:
            return []
        try:
            candidates = self.parts.controller.ask(n)
        except SpaceExhaustedError as error:
            self._say(f"The search space is used up: {error}.")
            return []
        self._store.add_batch(candidates, batch=self._n_batches, n_requested=n)
        self._n_batches += 1
        self._n_asked += len(candidates)
        return [self._store.record(candidate.id) for candidate in candidates]

    # Generation by generation: the controller is told when all of a batch have ended

    def _search_in_generations(self, batches: Sequence[Sequence[Record]]) -> None:
        for records in batches:
            self._replay_ask(records)
            self._finish_batch(records)
        batch_size = self.parts.controller.batch_size
        # What a budget left out of a generation is asked for first, so that the others begin where they would.
        while records := self._ask(batch_size - self._n_asked % batch_size):
            self._finish_batch(records)

    def _finish_batch(self, records: Sequence[Record]) -> None:
        was_complete = all(record.state is not RecordState.ASKED for record in records)
        self._evaluate(records)
        ended = [self._store.record(record.id, confirmed=False) for record in records]
        self._tell(ended)
        if not was_complete:
            for listener in self._listeners:
                listener.on_batch(self)

    # Steadily: the controller is told at once, and asked when there is a place for another candidate

    def _search_steadily(self, batches: Sequence[Sequence[Record]]) -> None:
        self._replay_steadily(batches)
        self._tells_at_once = True
        waiting = [record for records in batches for record in records if record.state is RecordState.ASKED]
        self.parts.executor.run(self.parts.working, self._steady_jobs(waiting), self._take)

    def _replay_steadily(self, batches: Sequence[Sequence[Record]]) -> None:
        """Bring the controller to where it was: the same asks and tells, in the order in which they came."""
        ended = {record.id: record for records in batches for record in records}
        coming = deque(batches)
        for candidate, last_asked in self._store.endings():
            while coming and coming[0][0].number <= last_asked:
                self._replay_ask(coming.popleft())
            if candidate in ended:  # else it is a reference
                self._tell([ended[candidate]])
        for records in coming:
            self._replay_ask(records)

    def _steady_jobs(self, waiting: Sequence[Record]) -> Iterator[Job | None]:
        """Yield a job whenever the executor has a place for it: those of `waiting` first, then new candidates.

        Where measurements wait until nothing runs, they are taken for a whole batch at a time: each wait costs the
        workers as long as their slowest candidate still needs, whether for one measurement or for many.
        """
        stops_all = not self.parts.executor.measures_apart and _need_device(self.parts.measuring)
        n_wanted = self.parts.controller.batch_size if stops_all else 1
        while True:
            if stops_all:
                yield None
            waiting = waiting or self._ask(n_wanted)
            if not waiting:
                return
            yield from self._measured_jobs(waiting, self.parts.constraints)
            waiting = []

    def _tell_at_once(self, record: Record) -> None:
        self._tell([record])
        batch_size = self.parts.controller.batch_size
        if len(self.records) % batch_size == 0:
            for listener in self._listeners:
                listener.on_batch(self)

    def _tell(self, records: Sequence[Record]) -> None:
        """Tell the controller; when so many as make a batch have ended, check that some of them did not fail."""
        n_before, batch_size = len(self._finished), self.parts.controller.batch_size
        self._finished += records
        if n_before < batch_size <= len(self._finished):
            _check_first(self._finished)
        self.parts.controller.tell(records)

    # Resuming

    def _stored_batches(self) -> list[list[Record]]:
        batches: dict[int, list[Record]] = {}
        for record in self._store.records(confirmed=False):
            batches.setdefault(record.batch, []).append(record)
            if record.state is not RecordState.ASKED:
                self.records.append(record)
                self.archive.add(record)
        self._n_batches = max(batches, default=-1) + 1
        self._n_asked = sum(map(len, batches.values()))
        return [batches[batch] for batch in sorted(batches)]

    def _replay_ask(self, records: Sequence[Record]) -> None:
        """Bring the controller to where it was after it asked for `records`; what was stored wins."""
        stored = [record.candidate for record in records]
        asked: tuple[Candidate, ...] = ()
        with contextlib.suppress(SpaceExhaustedError):
            asked = self.parts.controller.ask(self._store.n_requested(records[0].batch))
        if [candidate.id for candidate in asked] != [candidate.id for candidate in stored]:
            self._say("The controller would ask for other candidates now than it did then; the stored ones stand.")
        self.parts.controller.adopt(stored, instead_of=asked)

    # Evaluating

    def _evaluate(self, records: Sequence[Record], constraints: tuple[Constraint, ...] | None = None) -> None:
        """Take all `records` that have not ended through the stages, measurements before trainings."""
        jobs = self._measured_jobs(records, self.parts.constraints if constraints is None else constraints)
        if jobs:
            self.parts.executor.run(self.parts.working, jobs, self._take)

    def _measured_jobs(self, records: Iterable[Record], bounds: tuple[Constraint, ...]) -> list[Job]:
        """Measure all `records` that have not ended, and return the jobs of those that are to be trained."""
        asked = [record for record in records if record.state is RecordState.ASKED]
        if self.parts.measuring.stages:
            jobs = [self._job(record, bounds) for record in asked]
            self.parts.executor.measure(self.parts.measuring, jobs, self._take)
        if not self.parts.working.stages:
            return []
        current = [self._store.record(record.id) for record in asked]
        return [self._job(record, bounds) for record in current if record.state is RecordState.ASKED]

    def _evaluate_references(self) -> None:
        known = {record.id for record in self._store.records(role=Role.REFERENCE)}
        if new := [candidate for candidate in self.parts.references if candidate.id not in known]:
            self._store.add_batch(new, batch=-1, role=Role.REFERENCE)
        self._evaluate(self._store.records(role=Role.REFERENCE), constraints=())

    def _job(self, record: Record, constraints: tuple[Constraint, ...]) -> Job:
        readings = [o for o in self._store.observations(record.id) if o.stage not in (CONFIRMATION, RETRAINING)]
        metrics = {o.metric: o.value for o in readings}
        return Job(
            record.candidate,
            metrics=metrics,
            stages_done=frozenset(o.stage for o in readings),
            constraints=constraints,
            thresholds=self.parts.thresholds(metrics, self._finished) if record.role is Role.CANDIDATE else {},
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
                    self._meter.note_end(was_trained=self._was_trained(record))
                    self._store_usage()
                for listener in self._listeners:
                    listener.on_record(record, self)
                if record.role is Role.CANDIDATE and self._tells_at_once:
                    self._tell_at_once(record)

    # Budget

    def _new_meter(self) -> BudgetMeter:
        stored = self._store.fact("usage") or {}
        # Counted anew: a process may have been killed between a verdict and its count.
        used = Usage(**{**stored, "n_trained": sum(map(self._was_trained, self.records))})
        device = self.parts.working.device
        return BudgetMeter(
            self.parts.budget,
            used,
            lambda: self.parts.executor.n_gpus(device),
            n_ended=len(self.records),
            n_at_once=lambda: self.parts.executor.n_at_a_time(device),
        )

    def _was_trained(self, record: Record) -> bool:
        """Return whether a candidate that ended went beyond the measurements."""
        if record.failure is not None:
            return record.failure.stage not in {stage.name for stage in self.parts.measuring.stages}
        provided = frozenset[str]().union(*(stage.provides for stage in self.parts.working.stages))
        return record.state is RecordState.PRUNED or bool(provided & record.metrics.keys())

    def _store_usage(self) -> None:
        self._store.set_fact("usage", dataclasses.asdict(self._meter.usage))

    # Before and after

    def _fix_reference_point(self) -> None:
        if self._store.fact("reference_point") is None:
            point = choose_reference_point(
                self.objectives,
                self.parts.constraints,
                given=self.parts.given_reference_point,
                chance_levels=self.parts.chance_levels,
                sample=self._sample_costs,
            )
            self._store.set_fact("reference_point", point)

    def _sample_costs(self, metrics: frozenset[str]) -> list[dict[str, float]]:
        parts = self.parts
        sample = sample_costs(
            parts.problem,
            (parts.measuring, parts.working),
            parts.executor,
            metrics=metrics,
            stored=self._store.fact("reference_sample") or (),
            store=lambda rows: self._store.set_fact("reference_sample", rows),
            say=self._say,
            on_progress=self._tell_progress,
        )
        return [row["metrics"] for row in sample]

    def _tell_progress(self, name: str, n_done: int, n_total: int) -> None:
        for listener in self._listeners:
            listener.on_progress(name, n_done, n_total)

    def _confirm_front(self) -> None:
        parts = self.parts
        FrontConfirmation(
            self._store,
            parts.problem,
            parts.constraints,
            measuring=parts.measuring,
            training=parts.front_training,
            executor=parts.executor,
            on_event=self._take,
            say=self._say,
        ).run()

    def _say(self, text: str) -> None:
        for listener in self._listeners:
            listener.on_message(text)


def _check_first(ended: Sequence[Record]) -> None:
    """Stop a search whose first candidates all failed."""
    if ended and all(record.state is RecordState.FAILED for record in ended):
        failure = ended[0].failure
        assert failure is not None  # noqa: S101 - a FAILED record has one
        raise EvaluationError(
            f"all {len(ended)} candidates of the first batch failed, the first one in stage "
            f"{failure.stage!r}: {failure.reason}"
        )


def _need_device(evaluator: Evaluator) -> bool:
    return any(Need.EXCLUSIVE_DEVICE in stage.needs for stage in evaluator.stages)
