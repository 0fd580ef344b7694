"""A whole search: from wherever its store stands to its end, as if never interrupted."""

from collections.abc import Sequence

from nas.search.asking import AskTell
from nas.search.candidate_evaluation import CandidateEvaluation
from nas.search.confirmation import FrontConfirmation
from nas.search.generational import GenerationalLoop
from nas.search.listener import ListenerGroup, SearchListener, SearchView
from nas.search.parts import Scheduling, SearchParts
from nas.search.progress import SearchProgress
from nas.search.recording import EventRecorder
from nas.search.reference_point import fix_reference_point
from nas.search.replay import Replay, in_batches
from nas.search.steady import SteadyLoop
from nas.store.run_folder import RunFolder
from nas.values.budgets import Budget
from nas.values.records import Record, RecordState, Role

_LOOPS: dict[Scheduling, type[GenerationalLoop | SteadyLoop]] = {
    Scheduling.GENERATIONAL: GenerationalLoop,
    Scheduling.STEADY_STATE: SteadyLoop,
}


class Search:
    """One run of a search.

    Args:
        parts: From the configuration.
        folder: Of the run, open for writing.
        listeners: Callbacks; they see the search as a `SearchView`.
    """

    def __init__(self, parts: SearchParts, folder: RunFolder, listeners: Sequence[SearchListener] = ()) -> None:
        self._parts = parts
        self._folder = folder
        self._store = folder.store
        self._listener = ListenerGroup(listeners)

    def run(self) -> SearchView:
        """Run to the end, from wherever the store stands, and return the state at the end.

        Raises:
            InputError: A fault of the user's that only showed when it was used.
            MachineError: Disk, files or memory failed; all that was computed is stored.
            EvaluationError: If every candidate of the first batch failed, or every network sampled for the
                reference point: that is no search.
        """
        self._store.set_fact("finished_size", 0)
        self._store.set_fact("planned_size", self._parts.controller.n_candidates)
        with self._parts.executor:
            fix_reference_point(self._parts, self._store, self._listener)
            self._parts.controller.setup(self._parts.problem)
            stored = self._with_failed_start_reopened(self._store.records(confirmed=False))
            progress = SearchProgress(self._parts, self._folder, stored)
            recorder = EventRecorder(self._parts, progress, self._listener)
            recorder.reopen(stored)
            self._listener.on_start(progress)
            self._evaluate_references(recorder)
            self._search(in_batches(stored), progress, recorder)
            FrontConfirmation(self._parts, self._store, recorder).run()
            recorder.store_usage()  # while the executor still holds the GPUs that are counted
        is_used_up = progress.meter.is_used_up
        if progress.has_converged:
            recorder.report(_convergence_text(self._parts.budget, progress.expected_gain or 0.0))
        elif is_used_up:
            recorder.report(f"The budget ({self._parts.budget}) is used up.")
        recorder.store_usage()
        if self._parts.budget.stop_when_converged:
            self._store.set_fact("expected_gain", progress.expected_gain)
        self._store.set_fact("finished_size", len(progress.records) if is_used_up else progress.n_candidates)
        self._listener.on_end(progress)
        return progress

    def _with_failed_start_reopened(self, stored: list[Record]) -> list[Record]:
        """Ask anew for all candidates of a run whose first batch failed, which else could never go on.

        Return the `stored` records as they are then.
        """
        failed = [record for record in stored if record.state is RecordState.FAILED]
        is_whole_start = len(failed) >= min(len(stored), self._parts.controller.batch_size)
        if (
            not failed
            or not is_whole_start
            or any(r.state not in (RecordState.FAILED, RecordState.ASKED) for r in stored)
        ):
            return stored
        self._listener.on_message(f"All {len(failed)} candidates that ended have failed: they are asked for anew.")
        self._store.reopen(failed)
        return self._store.records(confirmed=False)

    def _search(self, batches: Sequence[Sequence[Record]], progress: SearchProgress, recorder: EventRecorder) -> None:
        """Replay the stored `batches` and go on until nothing more is asked for."""
        controller = self._parts.controller
        n_batches = batches[-1][0].batch + 1 if batches else 0
        ask_tell = AskTell(controller, progress, recorder, n_batches=n_batches)
        replay = Replay(self._store, controller, ask_tell, recorder)
        _LOOPS[self._parts.scheduling](self._parts, progress, recorder, ask_tell, replay).run(batches)
        ask_tell.check_end()

    def _evaluate_references(self, recorder: EventRecorder) -> None:
        stored = self._store.records(role=Role.REFERENCE)
        recorder.reopen(stored)
        known = {record.id for record in stored}
        new = [candidate for candidate in self._parts.references if candidate.id not in known]
        added = recorder.add_batch(new, batch=-1, role=Role.REFERENCE) if new else []
        evaluation = CandidateEvaluation(self._parts, recorder, recorder.on_event)
        evaluation.run([*stored, *added], constraints=())


def _convergence_text(budget: Budget, gain: float) -> str:
    return (
        f"The search has converged: the next {budget.converged_next} candidates can be expected to add "
        f"{100 * gain:.2g} % of the hypervolume, less than budget.converged_gain, {100 * budget.converged_gain:.2g} %. "
        "With budget.stop_when_converged=false and --resume it goes on."
    )
