"""What runs in a worker process, and the messages between it and the process that searches."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from nas.errors import InputError, MachineError
from nas.evaluation.evaluator import Evaluator
from nas.faults import reason_of
from nas.torch_tools import torch_threads

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Main:
    """To a worker: how to import the main module of the process that searches."""

    preparation: Mapping[str, Any]


@dataclass(frozen=True)
class Code:
    """To a worker: a pickled `Evaluator`, to be kept, or a pickled `Call`."""

    content: bytes


@dataclass(frozen=True)
class Call:
    """A call to be made in a worker."""

    function: Callable[..., Any]
    arguments: tuple[object, ...]


@dataclass(frozen=True)
class Started:
    """From a worker: it has loaded what it was sent, and begins."""


@dataclass(frozen=True)
class Result:
    """From a worker: what a call returned."""

    value: Any


def work(connection: "Connection[Any, Any]", environment: Mapping[str, str], n_threads: int, gpu: str | None) -> None:
    """Evaluate jobs until the parent goes away."""
    code = 1
    try:
        os.register_at_fork(after_in_child=connection.close)  # messages come from this process alone
        _lead_session()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.environ.clear()  # the server's is as old as the server
        os.environ.update(environment)
        if gpu is not None:
            os.environ[VISIBLE_GPUS] = gpu  # before anything asks CUDA what there is
        with torch_threads(n_threads):
            _serve(connection)
    except (EOFError, ConnectionError):
        code = 0  # the parent ended, cleanly or not
    except SystemExit as error:  # a candidate's: nothing is waited for
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the last place where it can be shown
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _lead_session() -> None:
    """Begin a session, of which all processes end with the parent.

    Another process watches for that: this one may hang in a library while its parent is killed.
    """
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - this is a worker
    helper = os.fork()
    if helper:
        os.waitpid(helper, 0)
        return
    if os.fork():
        os._exit(0)  # so that the watching process is no child of a candidate that waits for its children
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _serve(connection: "Connection[Any, Any]") -> None:
    """Do what messages say, one after the other."""
    evaluators: list[Evaluator] = []
    while True:
        message = connection.recv()
        try:
            match message:
                case Main():
                    _import_main(message.preparation)
                case Code():
                    code = _loaded(message.content)
                    connection.send(Started())
                    if isinstance(code, Call):
                        connection.send(Result(code.function(*code.arguments)))
                    else:
                        evaluators.append(code)
                case (number, job):
                    evaluators[number].run(job, connection.send)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - raised again by the parent
            connection.send(_sendable(error))


def _loaded(content: bytes) -> Any:
    try:
        return ForkingPickler.loads(content)
    except Exception as error:
        raise InputError(f"a worker process cannot load the stages: {reason_of(error)}") from error


def _import_main(preparation: Mapping[str, Any]) -> None:
    """Import the parent's main module as `multiprocessing` does: it may define stages' functions."""
    process: Any = multiprocessing.current_process()
    process._inheriting = True  # so that a search that it starts is refused
    try:
        spawn.prepare(dict(preparation))
    except BaseException as error:
        raise InputError(
            f"a worker process cannot import the main module: {reason_of(error)} (a script that starts a search must "
            'do so under `if __name__ == "__main__":`)'
        ) from error
    finally:
        del process._inheriting


def _sendable(error: Exception) -> Exception:
    """Return `error` as the parent can read it."""
    if isinstance(error, MachineError | InputError):
        return type(error)(str(error)) if type(error) in (MachineError, InputError) else InputError(str(error))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001 - made by anybody's code
        return RuntimeError(reason_of(error))
    return error
