"""Before a front is final its members are trained and measured again: those that stood there by luck or noise go."""

from collections.abc import Mapping, Sequence

from latency.errors import LatencyError
from nas.errors import LostProcessError
from nas.evaluation.base import Stage
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Progress, Reading
from nas.evaluation.stages import DeviceStage, confirm
from nas.search.parts import SearchParts
from nas.search.recording import EventRecorder
from nas.store.run_store import RunStore
from nas.values.objectives import to_losses, violations
from nas.values.pareto import non_dominated, pareto_front
from nas.values.records import Observation, Record, Role

N_ROUNDS = 3
"""How often each member of the final front is measured again."""


class FrontConfirmation:
    """Trains and measures the front's members again, until this has been done for all of the front.

    Confirmed readings replace the first ones, so that other records may join the front; each time at least one more is
    confirmed, so this ends. Those that stand beside the front by bad luck, a disturbed reading, are measured with it.

    Args:
        parts: Of the search; `front_training` trains again, the devices of `measuring` measure again, side by side.
        store: Of the run.
        recorder: Stores the new readings, and reports.
    """

    def __init__(self, parts: SearchParts, store: RunStore, recorder: EventRecorder) -> None:
        self._parts = parts
        self._store = store
        self._recorder = recorder

    def run(self) -> None:
        """Confirm the front."""
        training = self._parts.front_training.stages if self._parts.front_training else ()
        devices = [stage for stage in self._parts.measuring.stages if isinstance(stage, DeviceStage)]
        failed: set[str] = set()
        goes_on = bool(training or devices)
        while goes_on:
            front = pareto_front(self._store.records(), self._parts.problem.objectives, self._parts.constraints)
            confirmed = self._store.confirmed_metrics()
            untrained = [r for r in front if not _is_confirmed(r, training, confirmed) and r.id not in failed]
            if untrained:
                failed |= self._train_again(untrained)
            else:
                hopeful = [r for r in self._hopeful(front) if not _is_confirmed(r, devices, confirmed)]
                is_final = not hopeful and all(_is_confirmed(record, devices, confirmed) for record in front)
                goes_on = not is_final and self._measure_again(front, hopeful, devices)

    def _hopeful(self, front: Sequence[Record]) -> list[Record]:
        """Return the records that only a disturbed reading keeps off the front: no member dominates the undisturbed."""
        objectives, on_front = self._parts.problem.objectives, {record.id for record in front}
        others = [r for r in self._store.records() if r.is_complete and r.undisturbed and r.id not in on_front]
        hopeful = []
        for record in others:
            if violations(self._parts.constraints, record.metrics, record.undisturbed):
                continue
            best = {**record.metrics, **record.undisturbed}
            losses = to_losses(objectives, [*(member.metrics for member in front), best])
            if non_dominated(losses)[-1]:
                hopeful.append(record)
        return hopeful

    def _train_again(self, records: Sequence[Record]) -> set[str]:
        """Train members of the front under other seeds; return the ids of those whose trainings failed."""
        self._recorder.report(f"Training the {_members(records)} of the front again, under other seeds.")
        failed: set[str] = set()

        def on_event(event: Event) -> None:
            match event:
                case Reading():
                    self._keep(event.observations)
                case Progress():
                    self._recorder.on_event(event)
                case Ended() if event.failure is not None:
                    failed.add(event.candidate)
                    reason = event.failure.reason
                    self._recorder.report(f"{event.candidate}: the first score stands, its training failed: {reason}")

        assert self._parts.front_training is not None  # noqa: S101 - without it nothing is untrained
        with self._parts.executor as executor:
            executor.run(self._parts.front_training, [Job(record.candidate) for record in records], on_event)
        return failed

    def _measure_again(self, front: Sequence[Record], hopeful: Sequence[Record], stages: Sequence[DeviceStage]) -> bool:
        """Measure members, `hopeful` and the references again, side by side; return whether that was possible."""
        references = [record for record in self._store.records(role=Role.REFERENCE) if record.is_complete]
        beside = ", and the references" if references else ""
        others = f", {len(hopeful)} more that disturbed readings may keep off it" if hopeful else ""
        self._recorder.report(f"Measuring the {_members(front)} of the front again, side by side{others}{beside}.")
        jobs = [Job(record.candidate) for record in (*front, *hopeful, *references)]
        for stage in stages:
            try:
                confirmed = self._parts.executor.at_device(
                    stage.name, _confirmed, self._parts.measuring, stage, jobs, isolated=True
                )
            except (LatencyError, LostProcessError) as error:
                self._recorder.report(
                    f"{stage.name}: the front could not be measured again, first readings stand: {error}"
                )
                return False
            for observations in confirmed.values():
                self._keep(observations)
        return True

    def _keep(self, observations: Sequence[Observation]) -> None:
        self._recorder.add_confirmation(observations)


def _confirmed(evaluator: Evaluator, stage: DeviceStage, jobs: Sequence[Job]) -> dict[str, list[Observation]]:
    """Measure the networks of `jobs` again, side by side; runs where the device is."""
    return confirm(stage, [evaluator.subject(job) for job in jobs], N_ROUNDS)


def _is_confirmed(record: Record, stages: Sequence[Stage], confirmed: Mapping[str, set[str]]) -> bool:
    return all(stage.provides <= confirmed.get(record.id, set()) for stage in stages)


def _members(records: Sequence[Record]) -> str:
    return "only member" if len(records) == 1 else f"{len(records)} members"
