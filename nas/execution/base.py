"""The contract of an executor (where and when evaluations run), and the queue of jobs that all executors use."""

import gc
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Self, TypeVar

import torch

from nas.evaluation import verdicts
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job

T = TypeVar("T")


class Executor(ABC):
    """Runs jobs, one or several at a time. Constructors take the executor's own options and are cheap.

    A candidate's result does not depend on the executor: the threads of a training are an option of their
    own, never derived from the number of workers.

    Attributes:
        measures_apart: Whether no training disturbs measurements made while a job is taken; otherwise all workers must
            be drained first.
    """

    measures_apart: ClassVar[bool] = False

    @abstractmethod
    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs` and return when the last has ended.

        Args:
            evaluator: Its stages are run.
            jobs: Started in this order; each is taken when there is a place for it, so that it may depend on the
                results of earlier ones. A `None` drains: the next is taken when all running jobs have ended.
            on_event: Called in the calling process and thread, as events happen; events of different jobs may
                mix.

        Raises:
            InputError: A fault of the user's met by a job; the jobs still running are given up.
        """

    def measure(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate `jobs` one after the other, each device alone with the one that it measures."""
        for job in jobs:
            evaluator.run(job, on_event)

    def prepare(self) -> None:  # noqa: B027 - most executors have nothing to start
        """Start in the background what takes seconds and is needed later."""

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call `function`, which runs networks of candidates, where it can't end this process, and return its result.

        Raises:
            LostProcessError: If it ended its process.
        """
        return function(*arguments)

    def at_device(self, stage: str, function: Callable[..., T], *arguments: object, isolated: bool = False) -> T:
        """Call `function` on the machine that has the device of the stage of that name, and return its result.

        Args:
            stage: Its name.
            function: To be called.
            arguments: Of the function.
            isolated: Whether it runs networks of candidates; then as `call`.
        """
        return self.call(function, *arguments) if isolated else function(*arguments)

    def check_device(self, device: str) -> None:  # noqa: B027 - most executors see what this process sees
        """Check that workers can train on the torch device `device`.

        Raises:
            ValueError: If they can't; the message starts with the option's name.
        """

    def n_gpus(self, device: str) -> float:
        """Return how many GPUs trainings on the torch device `device` occupy."""
        return float(device.startswith("cuda"))

    def n_at_a_time(self, device: str) -> int:
        """Return how many candidates are expected to train side by side on the torch device `device`."""
        return 1

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Release processes and devices. The executor may be used again afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class JobQueue:
    """Hands out jobs: those of another attempt first, and none while it drains.

    Args:
        jobs: As for `Executor.run`.
        on_event: Callback for the end of candidates that are given up.
        check: Called with the reason when an attempt is lost, and whether it is the last one; raises `MachineError` if
            that is the machine's fault.
    """

    def __init__(
        self,
        jobs: Iterable[Job | None],
        on_event: Callable[[Event], None],
        check: Callable[[str, bool], None] = lambda reason, is_last: None,
    ) -> None:
        self._source = iter(jobs)
        self._on_event = on_event
        self._check = check
        self._again: deque[Job] = deque()
        self._draining = False  # no new job until all running jobs have ended
        self._is_used_up = False

    def take(self, n_running: int) -> Job | None:
        """Return the next job; `None` if there is none now, `n_running` others being under way."""
        if self._again:
            return self._again.popleft()
        if self._draining and n_running:
            return None
        self._draining = False
        for job in self._source if not self._is_used_up else ():
            if job is not None:
                return job
            if n_running:
                self._draining = True
                return None
        self._is_used_up = True
        return None

    def put_back(self, job: Job) -> None:
        """Queue the same attempt of `job` again: it was not started, or was lost through no fault of its own."""
        self._again.append(job)

    def lose_attempt(self, job: Job, reason: str) -> None:
        """Queue another attempt of `job` or report its failure: one ended without a verdict because `reason`.

        Raises:
            MachineError: If no candidate is to blame.
        """
        next_one = verdicts.after_lost_attempt(job, reason)
        self._check(reason, isinstance(next_one, Ended))
        if isinstance(next_one, Job):
            self._again.append(next_one)
        else:
            self._on_event(next_one)


def free_unused_memory() -> None:
    """Release GPU memory that this process has cached but does not use, after a training in it."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was never used
