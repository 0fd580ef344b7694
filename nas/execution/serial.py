"""One candidate after the other, in this process."""

from collections.abc import Callable, Sequence

from nas.evaluation.evaluator import Evaluator, Event, Job
from nas.execution.base import Executor
from nas.training import torch_threads


class SerialExecutor(Executor):
    """Evaluates candidates one after the other in the calling process.

    Args:
        n_threads: CPU threads of a training.
    """

    def __init__(self, n_threads: int = 1) -> None:
        if n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, got {n_threads}")
        self._n_threads = n_threads

    def run(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        with torch_threads(self._n_threads):
            for job in jobs:
                evaluator.run(job, on_event)
