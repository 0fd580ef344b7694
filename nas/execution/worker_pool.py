"""Worker processes of this machine: given jobs, waited for, replaced when they are lost."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nas.errors import LostProcessError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Reading
from nas.evaluation.verdicts import MAX_ATTEMPTS, memory_fault
from nas.execution.base import JobQueue
from nas.execution.machine import check_machine
from nas.execution.time_limit import START_LIMIT_S, TimeLimit
from nas.execution.worker_main import Result
from nas.execution.worker_process import WorkerProcess


class WorkerPool:
    """Evaluates candidates in processes that live as long as the pool.

    A worker that dies, does not start, exceeds its limit or runs out of memory costs its candidate an attempt, and is
    replaced, so that all its memory is released. Subclasses may change the number of workers while they work.

    Args:
        n_threads: CPU threads of a training, in each worker.
        candidate_timeout_s: As for `TimeLimit`.
        n_places: Workers at a time.
        name: Of its workers; they are numbered, and whoever replaces a worker has its number.
    """

    def __init__(
        self, n_threads: int, candidate_timeout_s: float | None = None, n_places: int = 1, name: str = "worker"
    ) -> None:
        self.workers: list[WorkerProcess] = []
        self._n_threads = n_threads
        TimeLimit(candidate_timeout_s)  # refuses one that cannot be
        self._timeout_s = candidate_timeout_s
        self._fixed_n_places = n_places
        self._name = name
        self._limits: dict[int, tuple[Evaluator, TimeLimit]] = {}

    @property
    def n_places(self) -> int:
        """Workers at a time, as it is now."""
        return self._fixed_n_places

    @property
    def busy(self) -> list[WorkerProcess]:
        """Workers that have a job."""
        return [worker for worker in self.workers if worker.job]

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`, as `Executor.run`."""
        queue = JobQueue(jobs, on_event, functools.partial(check_machine, evaluator))
        limit = self._limit(evaluator)
        try:
            while self._start_jobs(evaluator, queue):
                self.note_working()
                busy = self.busy
                seconds = max(0.0, min(self._seconds_left(worker, limit) for worker in busy))
                for worker in WorkerProcess.with_news(busy, seconds):
                    self._receive(worker, queue, limit, on_event)
                self._stop_late(queue, limit)
        except BaseException:
            self.close()
            raise

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call `function` in a worker and return its result; a call whose worker dies is made once more.

        Raises:
            LostProcessError: If that one died too.
            Exception: What the function raises.
        """
        for _ in range(MAX_ATTEMPTS - 1):
            with contextlib.suppress(LostProcessError):
                return self._call(function, arguments)
        return self._call(function, arguments)

    def _call(self, function: Callable[..., Any], arguments: Sequence[object]) -> Any:
        worker = next((worker for worker in self.workers if not worker.job), None) or self._new_worker()
        try:
            worker.call(function, arguments)
        except OSError as error:
            self.drop(worker)
            raise LostProcessError("died before it was called") from error
        news: object = None
        try:
            while not isinstance(news, Result):
                WorkerProcess.with_news([worker], None)
                news = worker.receive()
        except BaseException as error:
            if isinstance(error, LostProcessError) or not isinstance(error, Exception):
                self.drop(worker)  # it is dead, or may still be at work
            raise
        return news.value

    def close(self) -> None:
        """End the worker processes."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def drop(self, worker: WorkerProcess) -> None:
        """End a worker."""
        worker.stop()
        self.workers.remove(worker)

    # Where the number of workers is found on the way

    def gpu_for_next(self) -> str | None:
        """Return the GPU that a new worker is to see; `None` for all."""
        return None

    def note_working(self) -> None:
        """Take note of the workers that work from now on."""

    def note_end(self) -> None:
        """Take note of a candidate that ended."""

    def note_memory_fault(self) -> None:
        """Take note of a candidate that found too little memory."""

    def _limit(self, evaluator: Evaluator) -> TimeLimit:
        """Return the limit for `evaluator`: how long others took, tells nothing of its jobs."""
        limit = TimeLimit(self._timeout_s)
        return self._limits.setdefault(id(evaluator), (evaluator, limit))[1]

    def _new_worker(self) -> WorkerProcess:
        taken = {worker.name for worker in self.workers}
        name = next(name for number in itertools.count(1) if (name := f"{self._name} {number}") not in taken)
        worker = WorkerProcess(self._n_threads, self.gpu_for_next(), name)
        self.workers.append(worker)
        return worker

    def _start_jobs(self, evaluator: Evaluator, queue: JobQueue) -> bool:
        """Give jobs to all free places; return whether anything runs."""
        while (n_busy := len(self.busy)) < self.n_places and (job := queue.take(n_busy)) is not None:
            worker = next((worker for worker in self.workers if not worker.job), None) or self._new_worker()
            try:
                worker.start(evaluator, job)
            except OSError:  # it died while it had nothing to do: no candidate is to blame
                self.drop(worker)
                queue.put_back(job)
        return bool(self.busy)

    def _receive(
        self, worker: WorkerProcess, queue: JobQueue, limit: TimeLimit, on_event: Callable[[Event], None]
    ) -> None:
        job = worker.job
        assert job is not None  # noqa: S101 - only busy workers are listened to
        try:
            event = worker.receive()
        except LostProcessError as error:
            self.drop(worker)
            queue.lose_attempt(job, f"its process {error}")
            return
        if event is None or isinstance(event, Result):
            return
        if fault := memory_fault(event):
            self.drop(worker)  # with all that it holds
            self.note_memory_fault()
            queue.lose_attempt(job, fault)
            return
        if isinstance(event, Ended):
            worker.job = None
            event = dataclasses.replace(event, worker=worker.name)
            limit.note_end(time.monotonic() - worker.since)
            self.note_end()
            self._drop_if_broken(worker, event)
        elif isinstance(event, Reading):
            worker.job = job.with_readings(event.observations)
        on_event(event)

    def _drop_if_broken(self, worker: WorkerProcess, event: Ended) -> None:
        is_broken = event.failure is not None and "CUDA error" in event.failure.reason
        if is_broken or len(self.workers) > self.n_places:
            self.drop(worker)  # after such an error nothing works in that process any more

    def _seconds_left(self, worker: WorkerProcess, limit: TimeLimit) -> float:
        return worker.since + (limit.seconds if worker.works else START_LIMIT_S) - time.monotonic()

    def _stop_late(self, queue: JobQueue, limit: TimeLimit) -> None:
        for worker in self.busy:
            if self._seconds_left(worker, limit) <= 0 and worker.job is not None and not worker.has_news:
                job = worker.job
                self.drop(worker)
                not_started = f"its process did not start within {START_LIMIT_S:g} s"
                queue.lose_attempt(job, limit.reason if worker.works else not_started)
