"""All workers of one evaluator on a Ray cluster: started, given jobs, their events received, replaced."""

import functools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import InputError, MachineError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Reading
from nas.evaluation.verdicts import memory_fault
from nas.execution.base import JobQueue
from nas.execution.ray_api import ray_api
from nas.execution.ray_worker import NodeWorker, WeightsFile, WorkerHandle
from nas.execution.time_limit import START_LIMIT_S, TimeLimit
from nas.faults import blaming_machine
from nas.files import atomic_path

_POLL_S = 1.0  # between looks at which nodes there are
_MAX_FAILED_STARTS = 5  # of workers, one after the other
_MAX_NODES_LOST = 3  # under one candidate, before it counts as its fault

_log = logging.getLogger(__name__)


class WorkerGroup:
    """The workers that evaluate candidates for one evaluator.

    Args:
        evaluator: Put into the object store once, as are the files that it needs.
        needs: Resources of one worker, in Ray's names.
        n_threads: CPU threads of a training.
        limit: Of an attempt's time.

    Attributes:
        evaluator: As given.
    """

    def __init__(self, evaluator: Evaluator, needs: Mapping[str, float], n_threads: int, limit: TimeLimit) -> None:
        self.evaluator = evaluator
        self._needs = needs
        self._n_threads = n_threads
        self._limit = limit
        self._workers: list[WorkerHandle] = []
        self._waiting: deque[Job] = deque()  # for a worker that is being started
        self._files: dict[Path, Any] = {}  # in the object store
        self._nodes_lost: Counter[str] = Counter()  # by candidate
        self._n_failed_starts = 0

    def __len__(self) -> int:
        return len(self._workers)

    def start_jobs(self, queue: JobQueue, n_places: int) -> bool:
        """Give jobs to all free places; return whether anything runs or waits for a worker.

        Args:
            queue: Of the jobs.
            n_places: That the cluster has now.
        """
        n_busy = sum(worker.job is not None for worker in self._workers)
        n_places = max(1, n_places, len(self._workers))
        while (n_running := n_busy + len(self._waiting)) < n_places and (job := queue.take(n_running)) is not None:
            self._waiting.append(job)
        for worker in self._workers:
            if self._waiting and worker.is_ready and worker.job is None:
                worker.start(self._waiting.popleft())
        n_starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - n_starting, n_places - len(self._workers))):
            self._workers.append(WorkerHandle(self._new_actor()))
        return bool(self._waiting) or any(worker.job for worker in self._workers)

    def receive(self, queue: JobQueue, on_event: Callable[[Event], None]) -> None:
        """Wait for events of workers, for a second at most, and handle them."""
        awaited = {worker.awaited: worker for worker in self._workers if worker.awaited is not None}
        seconds = max(0.0, min((_POLL_S, *map(self._seconds_left, self._workers))))
        ready, _ = ray_api().wait(list(awaited), num_returns=1, timeout=seconds)
        for reference in ready:
            self._receive(awaited[reference], queue, on_event)

    def stop_late(self, queue: JobQueue) -> None:
        """Replace workers that are past their limit."""
        for worker in [worker for worker in self._workers if self._seconds_left(worker) <= 0]:
            if ray_api().wait([worker.awaited], timeout=0)[0]:
                continue  # something of it is there to be received, its end maybe
            self._drop(worker)
            if worker.job:
                queue.lose_attempt(worker.job, self._limit.reason)
            else:  # maybe others use its place: no candidate is to blame, and another worker will be started
                _log.warning("A worker of the Ray cluster did not start within %g s; trying another.", START_LIMIT_S)

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._drop(self._workers[-1])
        self._waiting.clear()
        self._files.clear()

    @functools.cached_property
    def _evaluator_ref(self) -> Any:
        return ray_api().put(self.evaluator)

    def _new_actor(self) -> Any:
        custom = {name: n for name, n in self._needs.items() if name not in ("CPU", "GPU")}
        options = {"num_cpus": self._needs.get("CPU", 0), "num_gpus": self._needs.get("GPU", 0), "resources": custom}
        return ray_api().remote(NodeWorker).options(**options).remote(self._evaluator_ref, self._n_threads)

    def _drop(self, worker: WorkerHandle) -> None:
        self._workers.remove(worker)
        ray_api().kill(worker.actor)

    def _receive(self, worker: WorkerHandle, queue: JobQueue, on_event: Callable[[Event], None]) -> None:
        try:
            if not worker.is_ready:
                self._make_ready(worker)
                return
            event = ray_api().get(next(worker.awaited))
        except ray_api().exceptions.RayError as error:
            self._replace_lost(worker, error, queue)
            return
        job = worker.job
        assert job is not None  # noqa: S101 - a ready worker is awaited only with a job
        if isinstance(event, InputError | MachineError):
            raise event
        if isinstance(event, WeightsFile):
            self._keep(event)
            return
        if fault := memory_fault(event):
            self._drop(worker)  # with all that it holds
            queue.lose_attempt(job, fault)
            return
        if isinstance(event, Reading):
            worker.job = job.with_readings(event.observations)
        elif isinstance(event, Ended):
            worker.set_idle()
            self._limit.note_end(time.monotonic() - worker.since)
        on_event(event)

    def _make_ready(self, worker: WorkerHandle) -> None:
        """Take the answer of a worker that is being started: send it the files that it misses, if any."""
        missing = ray_api().get(worker.awaited)
        if missing:
            for path in missing:
                if path not in self._files:
                    self._files[path] = ray_api().put(np.fromfile(path, dtype=np.uint8))
            worker.awaited = worker.actor.receive.remote({path: self._files[path] for path in missing})
        else:
            worker.set_idle()
            self._n_failed_starts = 0

    def _replace_lost(self, worker: WorkerHandle, error: Exception, queue: JobQueue) -> None:
        """Replace a worker that died, alone or with its node.

        Raises:
            InputError: If no worker can be started at all.
        """
        job = worker.job
        self._drop(worker)
        if job is None:
            self._n_failed_starts += 1
            if self._n_failed_starts >= _MAX_FAILED_STARTS:
                raise InputError(f"no worker can be started on the Ray cluster: {error}")
            return
        if _is_loss_of_node(error):
            self._nodes_lost[job.candidate.id] += 1
            if self._nodes_lost[job.candidate.id] <= _MAX_NODES_LOST:
                queue.put_back(job)
                return
        queue.lose_attempt(job, f"its process or node was lost: {error}")

    def _seconds_left(self, worker: WorkerHandle) -> float:
        """Return the seconds until a worker is past its limit; infinity if it is idle."""
        if worker.job is None and worker.is_ready:
            return math.inf
        return worker.since + (self._limit.seconds if worker.job else START_LIMIT_S) - time.monotonic()

    def _keep(self, weights: WeightsFile) -> None:
        assert self.evaluator.weights is not None  # noqa: S101 - else no weights come
        path = self.evaluator.weights(weights.candidate)
        if not path.exists():
            with blaming_machine(f"{path} cannot be written"), atomic_path(path) as temporary:
                temporary.write_bytes(weights.content)


def _is_loss_of_node(error: Exception) -> bool:
    """Return whether a worker was lost with its node: then it cannot be reached, or Ray says so."""
    return isinstance(error, ray_api().exceptions.ActorUnavailableError) or "its node has died" in str(error)
