"""A process that evaluates candidates: given one job at a time, ended with its parent and with all that it starts.

Workers are forked from a server that has imported what they need and has done nothing else. Unlike a fork of the
process that searches, that is safe with torch's threads and with CUDA; and another worker is there within milliseconds.
"""

import atexit
import contextlib
import math
import multiprocessing
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, spawn
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

from nas.errors import InputError, LostProcessError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Event, Job
from nas.execution.worker_main import Call, Code, Main, Result, Started, work
from nas.faults import blaming_machine, reason_of

_PRELOADED = ["nas.execution.worker_main", "nas.evaluation.stages"]
_N_TRIES, _RETRY_S = 40, 0.05  # to start a process beside a server that is being killed
_SERVER_LOST = 255  # the exit code that multiprocessing gives to a process whose server has died


class WorkerProcess:
    """A process that evaluates one job at a time, and the connection to it.

    Args:
        n_threads: CPU threads of a training.
        gpu: The one that it sees; `None` for all.
        name: By which records of where time went know it.

    Attributes:
        gpu: As given.
        name: As given.
        process: Of the operating system.
        job: That it was given; `None` when idle.
        works: Whether it has begun: before that it may still be starting, or importing what it was sent.
        since: When it was given the job, or began.

    Raises:
        MachineError: If no process can be started.
    """

    def __init__(self, n_threads: int, gpu: str | None = None, name: str = "worker") -> None:
        self.gpu = gpu
        self.name = name
        self.job: Job | None = None
        self.works = False
        self.since = math.inf
        self._known: list[Evaluator] = []
        self._has_main = False
        with blaming_machine("no worker process can be started", OSError):
            context = start_server()
            self._connection, theirs = context.Pipe()
            # No daemon: those may have no children, which streamed images need. It ends with this process all the same.
            self.process = context.Process(target=work, args=(theirs, dict(os.environ), n_threads, gpu))
            with _hidden_main():
                _start(self.process)
        atexit.register(self.stop)
        theirs.close()

    @property
    def has_news(self) -> bool:
        """Whether `receive` has something to say."""
        return bool(WorkerProcess.with_news([self], 0.0))

    @staticmethod
    def with_news(workers: Sequence["WorkerProcess"], seconds: float | None) -> list["WorkerProcess"]:
        """Wait until one of `workers` has sent something or died, and return those that have.

        A worker's death is waited for by itself: a child of its own may keep the connection open.
        """
        poller = select.poll()  # quicker than multiprocessing's `wait`, and near-free evaluations are many
        owners: dict[int, WorkerProcess] = {}
        for worker in workers:
            for source in (worker._connection.fileno(), worker.process.sentinel):
                owners[source] = worker
                poller.register(source, select.POLLIN)
        ready = poller.poll(None if seconds is None else math.ceil(seconds * 1000))
        return list(dict.fromkeys(owners[source] for source, _ in ready))

    def start(self, evaluator: Evaluator, job: Job) -> None:
        """Give the process a job.

        Raises:
            OSError: If it has died.
            InputError: If the stages cannot be sent to another process.
        """
        if not any(known is evaluator for known in self._known):
            self._send_code(evaluator)
            self._known.append(evaluator)
        number = next(number for number, known in enumerate(self._known) if known is evaluator)
        self._connection.send((number, job))
        self.job, self.since = job, time.monotonic()

    def call(self, function: Callable[..., Any], arguments: Sequence[object]) -> None:
        """Let the process call `function`; `receive` returns the `Result`.

        Raises:
            OSError: If it has died.
            InputError: If function and arguments cannot be sent to another process.
        """
        self._send_code(Call(function, tuple(arguments)))
        self.since = time.monotonic()

    def receive(self) -> Event | Result | None:
        """Return the next event of its job, or the result of a call; `None` if there is none yet.

        Only for a worker that has news.

        Raises:
            LostProcessError: If the process died or cannot be understood.
            Exception: What ended a job or a call without a verdict on the candidate.
        """
        poller = select.poll()
        poller.register(self._connection.fileno(), select.POLLIN)
        if not poller.poll(0):  # its last words come before its end
            raise LostProcessError(f"died {self._exit_reason()}")
        try:
            message = self._connection.recv()
        except (EOFError, ConnectionError):
            raise LostProcessError(f"died {self._exit_reason()}") from None
        except Exception as error:
            raise LostProcessError(f"sent what cannot be read: {reason_of(error)}") from error
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Started):
            self.works, self.since = True, time.monotonic()
            return None
        news: Event | Result = message
        return news

    def stop(self) -> None:
        """Kill the process, and all that it started."""
        atexit.unregister(self.stop)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # which may not have begun its session
        self.process.join()
        self._connection.close()

    def _send_code(self, content: object) -> None:
        """Send what may name the user's classes and functions."""
        try:
            code = bytes(ForkingPickler.dumps(content))
        except Exception as error:
            raise InputError(
                f"the stages cannot be sent to another process: {reason_of(error)}; use functions and classes that "
                "stand in modules, or execution: {kind: serial, isolated: false}"
            ) from error
        if b"__main__" in code and not self._has_main:
            preparation = spawn.get_preparation_data("worker")
            del preparation["authkey"]  # which the process has
            self._connection.send(Main(preparation))
            self._has_main = True
        self._connection.send(Code(code))
        self.works = False

    def _exit_reason(self) -> str:
        """Return how the process died; continues "died ..."."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"by {_signal_name(-code)}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        return "with the server that started it" if code == _SERVER_LOST else f"with exit code {code}"


def start_server() -> Any:
    """Return the context of worker processes; their server runs from now on, or is on its way.

    Raises:
        OSError: If it cannot be started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or "." for path in sys.path)  # it is to import the same
    try:
        forkserver.ensure_running()
    except ChildProcessError:  # this process was forked from the one whose server it is
        cast(Any, forkserver.ensure_running).__self__.__init__()
        context.set_forkserver_preload(_PRELOADED)
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _start(process: Any) -> None:
    """Start a process, by another server if the server was killed: which may take a moment to show."""
    for _ in range(_N_TRIES - 1):
        try:
            process.start()
        except (EOFError, ConnectionError):
            time.sleep(_RETRY_S)
        else:
            return
    process.start()


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Start processes that do not import the main module: few need it, and not every script can be imported."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
