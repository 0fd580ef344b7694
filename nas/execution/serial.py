"""One candidate after the other, in a process of its own or in this one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar, TypeVar

from annotated_types import Ge, Gt, Le, Unit

from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Event, Job
from nas.evaluation.verdicts import memory_fault
from nas.execution.base import Executor, JobQueue, free_unused_memory
from nas.execution.worker_pool import WorkerPool
from nas.execution.worker_process import start_server
from nas.torch_tools import torch_threads
from nas.values.bounds import bounded

T = TypeVar("T")


class SerialExecutor(Executor):
    """Evaluates candidates one after the other.

    A candidate that kills its process, exceeds its limit or runs out of memory costs an attempt. One that loses two
    attempts is FAILED. Stages that only look up numbers run in this process, whatever the options say.

    Args:
        n_threads: CPU threads of a training.
        isolated: Whether candidates are evaluated in a process of their own. In this process, for a debugger, a
            candidate that kills its process ends the search, and one that hangs is not ended.
        candidate_timeout_s: The limit of one attempt; by default 20 times the longest candidate so far and at least 10
            minutes, a day while none has ended.
    """

    measures_apart: ClassVar[bool] = True  # a job is taken when nothing runs, so that nothing has to be waited for

    @bounded
    def __init__(
        self,
        n_threads: Annotated[int, Ge(1), Le(1024)] = 1,
        isolated: bool = True,
        candidate_timeout_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] | None = None,
    ) -> None:
        self._n_threads = n_threads
        self._is_isolated = isolated
        self._pool = WorkerPool(n_threads, candidate_timeout_s)

    def prepare(self) -> None:
        """Start the server of worker processes."""
        if self._is_isolated:
            start_server()

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        if not self._is_isolated or evaluator.is_harmless:
            self._run_here(evaluator, jobs, on_event)
            return
        if not self._pool.workers:
            free_unused_memory()  # which the teacher took; the worker needs it
        self._pool.run(evaluator, jobs, on_event)

    def measure(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate `jobs`."""
        SerialExecutor.run(self, evaluator, jobs, on_event)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call `function` in the process of candidates."""
        if not self._is_isolated:
            return function(*arguments)
        result: T = self._pool.call(function, *arguments)
        return result

    def close(self) -> None:
        """End the process."""
        self._pool.close()

    def _run_here(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        queue = JobQueue(jobs, on_event)
        while (job := queue.take(n_running=0)) is not None:
            fault: str | None = None

            def pass_on(event: Event) -> None:
                nonlocal fault
                if (fault := memory_fault(event)) is None:
                    on_event(event)

            with torch_threads(self._n_threads):
                evaluator.run(job, pass_on)
            if fault is not None:
                free_unused_memory()
                queue.lose_attempt(job, fault)
