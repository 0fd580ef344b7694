"""Starts `nas` commands in processes that are forked from this one, and kills them at random instants."""

import atexit
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas import cli

_MARK = "CRASH_RESUME_TRIAL"
_GONE_WITHIN_S = 10.0
KINDS = ("group", "parent", "worker")


class Command:
    """A running `nas` command, the leader of a process group.

    The process that it is forked from has imported everything and computed nothing, so that only imports are saved.

    Args:
        arguments: Of `nas`.
        folder: That it runs in.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._mark = f"{folder}:{time.monotonic_ns()}"
        self.pid = os.fork()
        if not self.pid:
            _run(arguments, folder, self._mark)
        self.exit_code: int | None = None

    def wait(self, seconds: float) -> bool:
        """Return whether it has ended, at the latest after `seconds`."""
        end = time.monotonic() + seconds
        while self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                return False
            else:
                time.sleep(0.002)
        return True

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kill the group, its leader alone, or a worker; return whether there was one."""
        if kind == "group":
            os.killpg(self.pid, signal.SIGKILL)
        elif kind == "parent":
            os.kill(self.pid, signal.SIGKILL)
        else:
            workers = [pid for pid in self._marked() if _is_session_leader(pid)]
            if not workers:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
        return True

    def orphans(self) -> int:
        """Return how many of its processes outlive it for long; they are named on standard error, and ended."""
        end = time.monotonic() + _GONE_WITHIN_S
        while (left := self._marked()) and time.monotonic() < end:
            time.sleep(0.01)
        for pid in left:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone by itself
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                print(f"orphan of {self._mark}: {command}", file=sys.stderr)
                os.kill(pid, signal.SIGKILL)
        return len(left)

    def _marked(self) -> list[int]:
        """Return the processes that it has started, and those that these have."""
        wanted, found = f"{_MARK}={self._mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != self.pid:
                    found.append(int(folder.name))
        return found


def in_fork(function: Callable[..., Any], *arguments: object) -> Any:
    """Return what `function` returns, computed in a process of its own: this one must stay fit to be forked."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: theirs.send(function(*arguments)), name="in_fork"
    )
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _run(arguments: Sequence[str], folder: Path, mark: str) -> None:
    """Be the command `nas` with these arguments; never returns."""
    code = 1
    try:
        os.setsid()
        os.environ[_MARK] = mark
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
        sys.argv = ["nas", *arguments]
        cli.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the last place where it can be shown
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_session_leader(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False
