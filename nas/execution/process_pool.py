"""Several candidates side by side, each in a process of its own, on this machine."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from nas.errors import InputError
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Reading
from nas.execution.base import Executor
from nas.records import Failure, RecordState

_MAX_ATTEMPTS = 2  # of a candidate whose worker process died


class _Worker:
    """A process that evaluates one job at a time, and the connection to it."""

    def __init__(self, context: Any, evaluator: Evaluator, n_threads: int) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, evaluator, n_threads), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        self.connection.send(job)
        self.job = job

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class ProcessPoolExecutor(Executor):
    """Evaluates candidates in worker processes, which live as long as the executor.

    A worker that dies (killed for memory, say) costs its candidate an attempt and is replaced; a candidate
    that takes two workers with it is FAILED.

    Args:
        n_workers: Processes, hence candidates at a time.
        n_threads: CPU threads of a training, in each worker.
    """

    def __init__(self, n_workers: int = 2, n_threads: int = 1) -> None:
        for name, value in (("n_workers", n_workers), ("n_threads", n_threads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._n_workers = n_workers
        self._n_threads = n_threads
        self._workers: list[_Worker] = []
        self._evaluator: Evaluator | None = None
        self._context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half

    def run(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        if evaluator is not self._evaluator:
            self.close()
            self._evaluator = evaluator
        waiting = deque(jobs)
        try:
            while waiting or any(worker.job for worker in self._workers):
                self._start_jobs(waiting)
                busy = {worker.connection: worker for worker in self._workers if worker.job}
                for connection in wait(list(busy)):
                    self._receive(busy[connection], waiting, on_event)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def _start_jobs(self, waiting: deque[Job]) -> None:
        idle = [worker for worker in self._workers if worker.job is None]
        while waiting and (idle or len(self._workers) < self._n_workers):
            if not idle:
                assert self._evaluator is not None  # noqa: S101 - set by run()
                worker = _Worker(self._context, self._evaluator, self._n_threads)
                self._workers.append(worker)
                idle.append(worker)
            worker = idle.pop()
            try:
                worker.start(waiting[0])
            except OSError:  # it died while it had nothing to do: no candidate is to blame
                worker.stop()
                self._workers.remove(worker)
            else:
                waiting.popleft()

    def _receive(self, worker: _Worker, waiting: deque[Job], on_event: Callable[[Event], None]) -> None:
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, waiting, on_event)
            return
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Ended):
            worker.job = None
            if event.failure is not None and "CUDA error" in event.failure.reason:
                worker.stop()  # after such an error nothing works in that process any more
                self._workers.remove(worker)
        elif isinstance(event, Reading) and worker.job is not None:
            worker.job = worker.job.with_readings(event.observations)
        on_event(event)

    def _replace(self, worker: _Worker, waiting: deque[Job], on_event: Callable[[Event], None]) -> None:
        """Deal with a worker that died: try its job again, or give it up."""
        worker.process.join()
        job, reason = worker.job, _exit_reason(worker.process.exitcode)
        worker.stop()
        self._workers.remove(worker)
        assert job is not None  # noqa: S101 - only busy workers are listened to
        if job.attempt < _MAX_ATTEMPTS:
            waiting.appendleft(dataclasses.replace(job, attempt=job.attempt + 1))
            return
        failure = Failure("execution", f"the worker process died {job.attempt} times, last {reason}", "")
        on_event(Ended(job.candidate.id, RecordState.FAILED, job.attempt, failure=failure))


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
    torch.set_num_threads(n_threads)
    try:
        while True:
            job = connection.recv()
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
