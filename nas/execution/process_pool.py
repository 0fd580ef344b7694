"""Several candidates at a time, each in a process of its own, on this machine."""

import math
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from multiprocessing.connection import wait
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt

from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Reading
from nas.evaluation.verdicts import memory_fault
from nas.execution.base import Executor, JobQueue, free_unused_memory
from nas.execution.time_limit import START_LIMIT_S, TimeLimit
from nas.execution.worker_count import WorkerCount, available_cores, n_cpu_workers, n_that_fit
from nas.execution.worker_process import STARTED, VISIBLE_GPUS, WorkerProcess
from nas.values.bounds import bounded


class ProcessPoolExecutor(Executor):
    """Evaluates candidates in worker processes, which live as long as the executor.

    A worker that dies, does not start within 10 minutes, exceeds its time limit or runs out of memory costs its
    candidate an attempt; the process is replaced, so that all its memory is released. A candidate that loses two
    attempts is FAILED.

    With `training.device: cuda` the workers share out all GPUs that this process sees.

    Args:
        n_workers: Processes, hence candidates at a time. `auto`: on CPUs one for each `n_threads` cores; on GPUs
            as many as fit into memory and raise the candidates an hour, which is measured on the way.
        n_threads: CPU threads of a training, in each worker.
        candidate_timeout_s: The limit of one attempt; by default 20 times the longest candidate so far and at least 10
            minutes, a day while none has ended.
    """

    @bounded
    def __init__(
        self,
        n_workers: Annotated[int, Ge(1)] | Literal["auto"] = 2,
        n_threads: Annotated[int, Ge(1)] = 1,
        candidate_timeout_s: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        self._fixed_n_workers = None if n_workers == "auto" else n_workers
        self._n_threads = n_threads
        self._limit = TimeLimit(candidate_timeout_s)
        self._workers: list[WorkerProcess] = []
        self._evaluator: Evaluator | None = None
        self._gpus: list[str] = []
        self._n_wanted = 0  # jobs of this run, where their number is known
        self._count: WorkerCount | None = None  # where the number is to be found
        self._context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        if evaluator is not self._evaluator:
            self.close()
            self._evaluator = evaluator
            free_unused_memory()  # which the teacher took; the workers need it
            self._gpus = visible_gpus() if evaluator.device == "cuda" else []
            self._count = self._new_count(evaluator)
            self._limit.forget()
        self._n_wanted = len(jobs) if isinstance(jobs, Sized) else sys.maxsize
        queue = JobQueue(jobs, on_event)
        try:
            while self._start_jobs(queue):
                self._note_working()
                busy = {worker.connection: worker for worker in self._busy}
                seconds = max(0.0, min(map(self._seconds_left, self._busy)))
                for connection in wait(list(busy), seconds):
                    self._receive(busy[connection], queue, on_event)
                self._stop_late(queue)
        except BaseException:
            self.close()
            raise

    def n_gpus(self, device: str) -> float:
        """Return how many GPUs the workers share out."""
        return float(len(visible_gpus())) if device == "cuda" else super().n_gpus(device)

    def n_at_a_time(self, device: str) -> int:
        """Return the number of workers that there are cores for; one for each GPU where the number is to be found."""
        on_cpu = n_cpu_workers(self._n_threads)
        if self._fixed_n_workers is None:
            return on_cpu if device == "cpu" else max(1, int(self.n_gpus(device)))
        return min(self._fixed_n_workers, on_cpu)

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    @property
    def _busy(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.job]

    @property
    def _n_places(self) -> int:
        if self._fixed_n_workers is not None:
            return self._fixed_n_workers
        if self._count is not None:
            return self._count.n * max(1, len(self._gpus))
        return n_cpu_workers(self._n_threads)

    def _new_count(self, evaluator: Evaluator) -> WorkerCount | None:
        """Return a search for the number of workers of each GPU; `None` where it is fixed."""
        if self._fixed_n_workers is not None or not evaluator.device.startswith("cuda"):
            return None
        n_gpus = max(1, len(self._gpus))
        free_at_first = free_gpu_bytes(evaluator.device)

        def limit(n_now: int) -> int:
            free = free_gpu_bytes(evaluator.device)
            by_memory = n_that_fit(n_now, free, (free_at_first - free) / n_now)
            return min(by_memory, max(1, available_cores() // n_gpus), max(1, math.ceil(self._n_wanted / n_gpus)))

        return WorkerCount(limit, time.monotonic)

    def _start_jobs(self, queue: JobQueue) -> bool:
        """Give jobs to all free places; return whether anything runs."""
        while (n_busy := len(self._busy)) < self._n_places and (job := queue.take(n_busy)) is not None:
            worker = next((worker for worker in self._workers if not worker.job), None) or self._new_worker()
            try:
                worker.start(job)
            except OSError:  # it died while it had nothing to do: no candidate is to blame
                self._drop(worker)
                queue.put_back(job)
        return bool(self._busy)

    def _note_working(self) -> None:
        if self._count:
            self._count.note_working(all_work=sum(worker.works for worker in self._busy) >= self._n_places)

    def _new_worker(self) -> WorkerProcess:
        assert self._evaluator is not None  # noqa: S101 - set by run()
        taken = Counter(worker.gpu for worker in self._workers)
        gpu = min(self._gpus, key=lambda gpu: taken[gpu], default=None)
        worker = WorkerProcess(self._context, self._evaluator, self._n_threads, gpu)
        self._workers.append(worker)
        return worker

    def _drop(self, worker: WorkerProcess) -> None:
        worker.stop()
        self._workers.remove(worker)

    def _receive(self, worker: WorkerProcess, queue: JobQueue, on_event: Callable[[Event], None]) -> None:
        job = worker.job
        assert job is not None  # noqa: S101 - only busy workers are listened to
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            reason = f"its process died {worker.exit_reason()}"
            self._drop(worker)
            queue.lose_attempt(job, reason)
            return
        if isinstance(event, Exception):
            raise event
        if event == STARTED:
            worker.works, worker.since = True, time.monotonic()
            return
        if fault := memory_fault(event):
            self._drop(worker)  # with all that it holds
            if self._count:
                self._count.note_memory_fault()
            queue.lose_attempt(job, fault)
            return
        if isinstance(event, Ended):
            self._end_job(worker, event)
        elif isinstance(event, Reading):
            worker.job = job.with_readings(event.observations)
        on_event(event)

    def _end_job(self, worker: WorkerProcess, event: Ended) -> None:
        worker.job = None
        self._limit.note_end(time.monotonic() - worker.since)
        if self._count:
            self._count.note_end()
        is_broken = event.failure is not None and "CUDA error" in event.failure.reason
        if is_broken or len(self._workers) > self._n_places:
            self._drop(worker)  # after such an error nothing works in that process any more

    def _seconds_left(self, worker: WorkerProcess) -> float:
        limit_s = self._limit.seconds if worker.works else START_LIMIT_S
        return worker.since + limit_s - time.monotonic()

    def _stop_late(self, queue: JobQueue) -> None:
        for worker in self._busy:
            if self._seconds_left(worker) <= 0 and worker.job is not None and not worker.connection.poll():
                job = worker.job
                self._drop(worker)
                not_started = f"its process did not start within {START_LIMIT_S:g} s"
                queue.lose_attempt(job, self._limit.reason if worker.works else not_started)


def visible_gpus() -> list[str]:
    """Return the names by which CUDA knows the GPUs that this process sees."""
    n_gpus = torch.cuda.device_count()
    names = [name for name in os.environ.get(VISIBLE_GPUS, "").split(",") if name]
    return names[:n_gpus] or [str(index) for index in range(n_gpus)]


def free_gpu_bytes(device: str) -> int:
    """Return the memory that is free on the fullest GPU that trainings on `device` use: `cuda` is all, `cuda:N` one."""
    _, _, index = device.partition(":")
    indices = [int(index)] if index else range(torch.cuda.device_count())
    return min(torch.cuda.mem_get_info(index)[0] for index in indices)
