"""Several candidates at a time, each in a process of its own, on this machine."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Annotated, Literal, TypeVar

import torch
from annotated_types import Ge, Gt, Le, Unit

from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Event, Job
from nas.execution.base import Executor, free_unused_memory
from nas.execution.worker_count import WorkerCount, available_cores, n_cpu_workers, n_that_fit
from nas.execution.worker_main import VISIBLE_GPUS
from nas.execution.worker_pool import WorkerPool
from nas.execution.worker_process import start_server
from nas.values.bounds import bounded

T = TypeVar("T")


class ProcessPoolExecutor(Executor):
    """Evaluates candidates in worker processes, which live as long as the executor.

    A worker that dies, does not start within 10 minutes, exceeds its time limit or runs out of memory costs its
    candidate an attempt; the process is replaced, so that all its memory is released. A candidate that loses two
    attempts is FAILED. Measurements that need a device to themselves are made in one more process, one at a time.

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
        n_workers: Annotated[int, Ge(1), Le(1024)] | Literal["auto"] = 2,
        n_threads: Annotated[int, Ge(1), Le(1024)] = 1,
        candidate_timeout_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] | None = None,
    ) -> None:
        self._fixed_n_workers = None if n_workers == "auto" else n_workers
        self._n_threads = n_threads
        self._pool = _SharedPool(n_threads, candidate_timeout_s, self._fixed_n_workers)
        self._measuring = WorkerPool(n_threads, candidate_timeout_s, name="measuring")

    def prepare(self) -> None:
        """Start the server of worker processes."""
        start_server()

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        self._pool.take_over(evaluator, len(jobs) if isinstance(jobs, Sized) else sys.maxsize)
        self._pool.run(evaluator, jobs, on_event)

    def measure(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate `jobs` one after the other, in one process."""
        self._measuring.run(evaluator, jobs, on_event)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call `function` in the process that measures."""
        result: T = self._measuring.call(function, *arguments)
        return result

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
        self._pool.close()
        self._measuring.close()


class _SharedPool(WorkerPool):
    """Workers that share out the GPUs, their number fixed or found on the way.

    Args:
        n_threads: As for `WorkerPool`.
        candidate_timeout_s: As for `WorkerPool`.
        n_workers: `None` to find it.
    """

    def __init__(self, n_threads: int, candidate_timeout_s: float | None, n_workers: int | None) -> None:
        super().__init__(n_threads, candidate_timeout_s, n_workers or n_cpu_workers(n_threads))
        self._is_fixed = n_workers is not None
        self._evaluator: Evaluator | None = None
        self._gpus: list[str] = []
        self._n_wanted = 0  # jobs of this run, where their number is known
        self._count: WorkerCount | None = None  # where the number is to be found

    def take_over(self, evaluator: Evaluator, n_jobs: int) -> None:
        """Get ready for `n_jobs` jobs; workers of another evaluator hold memory that these need."""
        self._n_wanted = n_jobs
        if evaluator is not self._evaluator:
            self.close()
            self._evaluator = evaluator
            free_unused_memory()  # which the teacher took; the workers need it
            self._gpus = visible_gpus() if evaluator.device == "cuda" else []
            self._count = self._new_count(evaluator)

    @property
    def n_places(self) -> int:
        """Workers at a time, on all GPUs together."""
        return self._count.n * max(1, len(self._gpus)) if self._count else super().n_places

    def gpu_for_next(self) -> str | None:
        """Return the GPU that has the fewest workers."""
        taken = Counter(worker.gpu for worker in self.workers)
        return min(self._gpus, key=lambda gpu: taken[gpu], default=None)

    def note_working(self) -> None:
        """Take note of whether all workers work."""
        if self._count:
            self._count.note_working(all_work=sum(worker.works for worker in self.busy) >= self.n_places)

    def note_end(self) -> None:
        """Count the candidate for the rate."""
        if self._count:
            self._count.note_end()

    def note_memory_fault(self) -> None:
        """Go on with fewer workers, if their number is not fixed."""
        if self._count:
            self._count.note_memory_fault()

    def _new_count(self, evaluator: Evaluator) -> WorkerCount | None:
        """Return a search for the number of workers of each GPU; `None` where it is fixed."""
        if self._is_fixed or not evaluator.device.startswith("cuda"):
            return None
        n_gpus = max(1, len(self._gpus))
        free_at_first = free_gpu_bytes(evaluator.device)

        def limit(n_now: int) -> int:
            free = free_gpu_bytes(evaluator.device)
            by_memory = n_that_fit(n_now, free, (free_at_first - free) / n_now)
            return min(by_memory, max(1, available_cores() // n_gpus), max(1, math.ceil(self._n_wanted / n_gpus)))

        return WorkerCount(limit, time.monotonic)


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
