"""A process that evaluates candidates: started by spawning, given one job at a time, ended with its parent."""

import atexit
import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from nas.errors import InputError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Job
from nas.torch_tools import torch_threads

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
STARTED = "started"
"""Message of a worker when it takes its job: until then it was importing."""


class WorkerProcess:
    """A process that evaluates one job at a time, and the connection to it.

    Args:
        context: Of `multiprocessing`.
        evaluator: Pickled to the process.
        n_threads: CPU threads of a training.
        gpu: The one that it sees; `None` for all.

    Attributes:
        connection: Events come from it.
        gpu: As given.
        process: Of the operating system.
        job: That it was given; `None` when idle.
        works: Whether it has taken the job: before that it may still be importing.
        since: When it was given the job, or took it.
    """

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
        self.works = False
        self.since = math.inf

    def start(self, job: Job) -> None:
        """Give the process a job.

        Raises:
            OSError: If it has died.
        """
        self.connection.send(job)
        self.job, self.works, self.since = job, False, time.monotonic()

    def stop(self) -> None:
        """Kill the process."""
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.join()
        self.connection.close()

    def exit_reason(self) -> str:
        """Return how the process died, once it is dead; continues "its process died ..."."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        hint = ' (a script that starts a search must do so under `if __name__ == "__main__":`)' if code == 1 else ""
        return f"with exit code {code}{hint}"


@contextlib.contextmanager
def _showing_only(gpu: str | None) -> Iterator[None]:
    """Let processes that are started in the block see only that GPU; `None` to let them see all that this one sees.

    They are born with it: a worker may use CUDA while it imports, or while its evaluator is unpickled.
    """
    before = os.environ.get(VISIBLE_GPUS)
    if gpu is not None:
        os.environ[VISIBLE_GPUS] = gpu
    try:
        yield
    finally:
        if before is not None:
            os.environ[VISIBLE_GPUS] = before
        else:
            os.environ.pop(VISIBLE_GPUS, None)


def _work(connection: "Connection[Any, Any]", evaluator: Evaluator, n_threads: int) -> None:
    """Evaluate jobs until the parent goes away. Runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with torch_threads(n_threads):
            while True:
                job = connection.recv()
                connection.send(STARTED)
                try:
                    evaluator.run(job, connection.send)
                except InputError as error:
                    connection.send(InputError(str(error)))
    except (EOFError, ConnectionError):
        return  # the parent ended, cleanly or not


def _end_with_parent() -> None:
    """End this process when its parent ends, even in the middle of a training, so that its device is free."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
