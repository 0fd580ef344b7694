"""Recording of everything that happens to candidates: first in the store, then to the listeners."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from latency.timing.conditions import is_disturbed
from nas.evaluation.events import Ended, Event, Job, Progress, Reading
from nas.search.listener import SearchListener
from nas.search.parts import SearchParts
from nas.search.progress import SearchProgress
from nas.store.folding import CONFIRMATION, folded, search_readings
from nas.values.objectives import Constraint
from nas.values.records import Candidate, Observation, Record, RecordState, Role


@dataclasses.dataclass
class _OpenCandidate:
    """A candidate without a verdict: its record as asked for, and the readings so far."""

    record: Record
    readings: list[Observation]


class EventRecorder:
    """The only writer of candidates, readings and verdicts while a search runs.

    It keeps the records of open candidates in memory, equal to those in the store: nothing is read back.

    Args:
        parts: Of the search.
        progress: Of the search; kept up to date.
        listener: Callbacks, called after the event is stored.
    """

    def __init__(self, parts: SearchParts, progress: SearchProgress, listener: SearchListener) -> None:
        self._parts = parts
        self._progress = progress
        self._listener = listener
        self._store = progress.folder.store
        self._open: dict[str, _OpenCandidate] = {}
        self._ended: dict[str, Record] = {}
        self._busy_s = defaultdict[str, float](float, self._store.fact("busy_s") or {})

    def add_batch(
        self,
        candidates: Sequence[Candidate],
        *,
        batch: int,
        n_requested: int | None = None,
        role: Role = Role.CANDIDATE,
    ) -> list[Record]:
        """Store that `candidates` are asked for and return their records; arguments as for `RunStore.add_batch`."""
        records = self._store.add_batch(candidates, batch=batch, n_requested=n_requested, role=role)
        self._open |= {record.id: _OpenCandidate(record, []) for record in records}
        if role is Role.CANDIDATE:
            self._progress.n_asked += len(records)
        return records

    def reopen(self, stored: Sequence[Record]) -> None:
        """Take over those of the `stored` records that an earlier process left without a verdict."""
        for record in stored:
            if record.state is RecordState.ASKED:
                readings = search_readings(self._store.observations(record.id))
                self._open[record.id] = _OpenCandidate(record, readings)

    def current(self, record: Record) -> Record:
        """Return `record` with its verdict if it has got one since."""
        return self._ended.get(record.id, record)

    def job(self, record: Record, constraints: tuple[Constraint, ...]) -> Job:
        """Return the job of an open candidate, with the readings so far."""
        job = Job(record.candidate, attempt=record.attempts + 1, constraints=constraints)
        return job.with_readings(self._open[record.id].readings)

    def job_of_repeats(self, record: Record, constraints: tuple[Constraint, ...], n_repeats: int) -> Job | None:
        """Return the job that repeats disturbed readings of an open candidate; `None` if there is nothing to repeat.

        Args:
            record: Of the candidate.
            constraints: Bounds that it must keep.
            n_repeats: How often each reading is repeated at most, by earlier processes too.
        """
        readings = self._open[record.id].readings
        n_taken = Counter((o.stage, o.metric) for o in readings)
        latest = {o.metric: o for o in readings}
        stages = {
            o.stage for o in latest.values() if is_disturbed(o.conditions) and n_taken[o.stage, o.metric] <= n_repeats
        }
        job = self.job(record, constraints)
        return dataclasses.replace(job, stages_done=job.stages_done - stages) if stages else None

    def on_event(self, event: Event) -> None:
        """Record an event; the callback of executors."""
        self.record(event)

    def record(self, event: Event) -> Record | None:
        """Store an event and report it; return the record of a candidate or a reference that has ended by it."""
        match event:
            case Progress(candidate, epoch):
                self._store.check_in_place()  # a training may take hours
                self._listener.on_epoch(candidate, epoch)
            case Reading(candidate, observations):
                self._store.add_observations(observations)
                self._open[candidate].readings += observations
            case Ended():
                self.note_busy(event.worker or "this process", event.seconds)
                if event.state is not RecordState.ASKED:
                    return self._end(event)
        return None

    def add_confirmation(self, observations: Sequence[Observation]) -> None:
        """Store readings of a front member that were taken again."""
        self._store.add_observations([dataclasses.replace(o, stage=CONFIRMATION) for o in observations])

    def _end(self, event: Ended) -> Record:
        candidate = self._open[event.candidate]
        record = event.applied_to(folded(candidate.record, candidate.readings))
        self._store.add_verdict(
            record.id,
            record.state,
            attempts=record.attempts,
            violations=record.violations,
            failure=record.failure,
            pruning=record.pruning,
        )
        del self._open[record.id]
        self._ended[record.id] = record
        if record.role is Role.CANDIDATE:
            self._progress.add(record)
            self._progress.meter.note_end(was_trained=self._parts.was_trained(record))
            self.store_usage()
        self._listener.on_record(record, self._progress)
        return record

    def note_busy(self, name: str, seconds: float) -> None:
        """Take note of the seconds that a worker, or the controller, was busy; kept with the next stored usage."""
        self._busy_s[name] += seconds

    def store_usage(self) -> None:
        """Store how much of the budget is used up, and by whom."""
        usage = dataclasses.asdict(self._progress.meter.usage)
        self._store.set_facts({"usage": usage, "busy_s": self._busy_s})

    def report_batch(self) -> None:
        """Report that as many candidates as make a batch have ended and the controller was told."""
        self._listener.on_batch(self._progress)

    def report(self, text: str) -> None:
        """Report a message to the user."""
        self._listener.on_message(text)
