"""The contract of an executor: where and when evaluations run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from nas.evaluation.evaluator import Evaluator, Event, Job


class Executor(ABC):
    """Runs jobs, one or several at a time. Constructors take the executor's own options and are cheap.

    A candidate's result does not depend on the executor: the threads of a training are an option of their
    own, never derived from the number of workers.
    """

    @abstractmethod
    def run(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs` and return when the last has ended.

        Args:
            evaluator: What to do with a candidate.
            jobs: In the order in which they are started.
            on_event: Called in the calling process and thread, as events happen; events of different jobs may
                mix.

        Raises:
            InputError: A fault of the user's met by a job; the jobs still running are given up.
        """

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Give back what the executor holds. It may be used again afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
