"""Several candidates side by side, each in a process of its own, on this machine."""

import atexit
import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch

from nas.errors import InputError
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Reading
from nas.execution.base import Executor, JobQueue, free_unused_memory, memory_fault
from nas.execution.time_limit import START_LIMIT_S, TimeLimit
from nas.execution.worker_count import WorkerCount, available_cores, n_cpu_workers, n_that_fit
from nas.torch_tools import torch_threads

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_STARTED = "started"  # what a worker says when it takes a job: until then it was importing


class _Worker:
    """A process that evaluates one job at a time, and the connection to it."""

    def __init__(self, context: Any, evaluator: Evaluator, n_threads: int, gpu: str | None) -> None:
        self.connection, theirs = context.Pipe()
        self.gpu = gpu
        # No daemon: those may have no children, which streamed images need. It ends with this process all the same.
        self.process = context.Process(target=_work, args=(theirs, evaluator, n_threads))
        with _showing_only(gpu):
            self.process.start()
        atexit.register(self.stop)
        theirs.close()
        self.job: Job | None = None
        self.works = False  # on its job: it is not importing any more
        self.since = math.inf  # when it began to start, or to work

    def start(self, job: Job) -> None:
        self.connection.send(job)
        self.job, self.works, self.since = job, False, time.monotonic()

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.join()
        self.connection.close()


class ProcessPoolExecutor(Executor):
    """Evaluates candidates in worker processes, which live as long as the executor.

    A worker that dies, does not start within 10 minutes, works longer than its limit or runs out of memory costs its
    candidate an attempt; the process is replaced, so that all it held is given back. A candidate of two such attempts
    is FAILED.

    With `training.device: cuda` the workers share out all GPUs that this process sees.

    Args:
        n_workers: Processes, hence candidates at a time. `auto`: on CPUs one for each `n_threads` cores; on GPUs
            as many as fit into memory and raise the candidates an hour, which is measured on the way.
        n_threads: CPU threads of a training, in each worker.
        candidate_timeout_s: The limit of one attempt; by default 20 times the longest candidate so far and at least 10
            minutes, a day while none has ended.
    """

    def __init__(
        self,
        n_workers: int | Literal["auto"] = 2,
        n_threads: int = 1,
        candidate_timeout_s: float | None = None,
    ) -> None:
        for name, value in (("n_workers", n_workers), ("n_threads", n_threads)):
            if value != "auto" and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._fixed_n_workers = None if n_workers == "auto" else n_workers
        self._n_threads = n_threads
        self._limit = TimeLimit(candidate_timeout_s)
        self._workers: list[_Worker] = []
        self._evaluator: Evaluator | None = None
        self._gpus: list[str] = []
        self._n_wanted = 0  # candidates in hand, where that is known
        self._count: WorkerCount | None = None  # where the number is to be found
        self._context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        if evaluator is not self._evaluator:
            self.close()
            self._evaluator = evaluator
            free_unused_memory()  # the workers need what this process took for the teacher
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
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job]

    @property
    def _n_places(self) -> int:
        if self._fixed_n_workers is not None:
            return self._fixed_n_workers
        if self._count is not None:
            return self._count.n * max(1, len(self._gpus))
        return n_cpu_workers(self._n_threads)

    def _new_count(self, evaluator: Evaluator) -> WorkerCount | None:
        """Return what finds the number of workers of each GPU; `None` where it is known."""
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

    def _new_worker(self) -> _Worker:
        assert self._evaluator is not None  # noqa: S101 - set by run()
        taken = Counter(worker.gpu for worker in self._workers)
        gpu = min(self._gpus, key=lambda gpu: taken[gpu], default=None)
        worker = _Worker(self._context, self._evaluator, self._n_threads, gpu)
        self._workers.append(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        worker.stop()
        self._workers.remove(worker)

    def _receive(self, worker: _Worker, queue: JobQueue, on_event: Callable[[Event], None]) -> None:
        job = worker.job
        assert job is not None  # noqa: S101 - only busy workers are listened to
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            reason = f"its process died {_exit_reason(worker.process.exitcode)}"
            self._drop(worker)
            queue.fail_attempt(job, reason)
            return
        if isinstance(event, Exception):
            raise event
        if event == _STARTED:
            worker.works, worker.since = True, time.monotonic()
            return
        if fault := memory_fault(event):
            self._drop(worker)  # with all that it holds
            if self._count:
                self._count.note_memory_fault()
            queue.fail_attempt(job, fault)
            return
        if isinstance(event, Ended):
            self._end_job(worker, event)
        elif isinstance(event, Reading):
            worker.job = job.with_readings(event.observations)
        on_event(event)

    def _end_job(self, worker: _Worker, event: Ended) -> None:
        worker.job = None
        self._limit.note_end(time.monotonic() - worker.since)
        if self._count:
            self._count.note_end()
        is_broken = event.failure is not None and "CUDA error" in event.failure.reason
        if is_broken or len(self._workers) > self._n_places:
            self._drop(worker)  # after such an error nothing works in that process any more

    def _seconds_left(self, worker: _Worker) -> float:
        limit_s = self._limit.seconds if worker.works else START_LIMIT_S
        return worker.since + limit_s - time.monotonic()

    def _stop_late(self, queue: JobQueue) -> None:
        for worker in self._busy:
            if self._seconds_left(worker) <= 0 and worker.job is not None and not worker.connection.poll():
                job = worker.job
                self._drop(worker)
                not_started = f"its process did not start within {START_LIMIT_S:g} s"
                queue.fail_attempt(job, self._limit.reason if worker.works else not_started)


def visible_gpus() -> list[str]:
    """Return the names by which CUDA knows the GPUs that this process sees."""
    n_gpus = torch.cuda.device_count()
    names = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    return names[:n_gpus] or [str(index) for index in range(n_gpus)]


@contextlib.contextmanager
def _showing_only(gpu: str | None) -> Iterator[None]:
    """Let processes that are started in the block see only that GPU; `None` to let them see what this one does.

    They are born with it: a worker may use CUDA while it imports, or while its evaluator is unpickled.
    """
    before = os.environ.get(_VISIBLE)
    if gpu is not None:
        os.environ[_VISIBLE] = gpu
    try:
        yield
    finally:
        if before is not None:
            os.environ[_VISIBLE] = before
        else:
            os.environ.pop(_VISIBLE, None)


def free_gpu_bytes(device: str) -> int:
    """Return the memory that is free on the fullest GPU that trainings on `device` use: `cuda` is all, `cuda:N` one."""
    _, _, index = device.partition(":")
    indices = [int(index)] if index else range(torch.cuda.device_count())
    return min(torch.cuda.mem_get_info(index)[0] for index in indices)


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    hint = ' (a script that starts a search must do so under `if __name__ == "__main__":`)' if code == 1 else ""
    return f"with exit code {code}{hint}"


def _work(connection: "Connection[Any, Any]", evaluator: Evaluator, n_threads: int) -> None:
    """Evaluate jobs until the parent goes away. Runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with torch_threads(n_threads):
            while True:
                job = connection.recv()
                connection.send(_STARTED)
                try:
                    evaluator.run(job, connection.send)
                except InputError as error:
                    connection.send(InputError(str(error)))
    except (EOFError, ConnectionError):
        return  # the parent ended, cleanly or not


def _end_with_parent() -> None:
    """End this process when its parent does, in the middle of a training if need be: the device must be free."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
