"""One candidate after the other, in this process."""

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar

from annotated_types import Ge

from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Event, Job
from nas.evaluation.verdicts import memory_fault
from nas.execution.base import Executor, JobQueue, free_unused_memory
from nas.torch_tools import torch_threads
from nas.values.bounds import bounded


class SerialExecutor(Executor):
    """Evaluates candidates one after the other in the calling process.

    A candidate that runs out of memory is tried once more, after the memory of the first attempt is released.

    Args:
        n_threads: CPU threads of a training.
    """

    measures_apart: ClassVar[bool] = True  # a job is taken when nothing runs, so that nothing has to be waited for

    @bounded
    def __init__(self, n_threads: Annotated[int, Ge(1)] = 1) -> None:
        self._n_threads = n_threads

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
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
