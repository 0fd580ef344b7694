"""A metric that does every eighth kind of harm: which candidate meets which fault follows from its genes alone."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from nas.evaluation import Subject
from nas.values.records import RecordState

MARK = "SOAK_CHILD"
"""The environment variable that a child left behind carries."""
_SCALE = 1_000_000


class _UnspeakableError(Exception):
    """An error that has no text: asking for it is another error."""

    def __str__(self) -> str:
        raise RuntimeError("this error cannot be shown")


def _raise() -> object:
    raise _UnspeakableError


def _exit() -> object:
    os._exit(0)


def _crash() -> object:
    return ctypes.string_at(0)  # reads address 0: a real segmentation fault


def _killed_beside_a_child() -> object:
    subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(86400)"], env={**os.environ, MARK: str(os.getppid())}
    )
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def _hang() -> object:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def _run_out_of_memory() -> object:
    raise MemoryError


FAULTS: dict[str, tuple[Callable[[], object], RecordState]] = {
    "raises": (_raise, RecordState.FAILED),
    "nan": (lambda: float("nan"), RecordState.FAILED),
    "text": (lambda: "12", RecordState.FAILED),
    "exits": (_exit, RecordState.COMPLETE),
    "crashes": (_crash, RecordState.COMPLETE),
    "killed_beside_a_child": (_killed_beside_a_child, RecordState.COMPLETE),
    "hangs": (_hang, RecordState.COMPLETE),
    "out_of_memory": (_run_out_of_memory, RecordState.COMPLETE),
}
"""What happens by kind, and the verdict that the candidate deserves.

The candidate's own faults come in every attempt; those that end a process or exhaust the machine come in the first
attempt only, so that the second one has to bring the score.
"""


def fault_of(seed: int, share: float) -> str | None:
    """Return the fault that a candidate of this seed meets; each kind for `share` of all candidates, at most 1/8."""
    place = (seed * 2_654_435_761 % 2**32) % _SCALE / _SCALE
    names = tuple(FAULTS)
    return names[int(place / share)] if place < share * len(names) else None


def score(subject: Subject) -> float:
    """Return the sum of the genes, or do harm."""
    share = float(os.environ["SOAK_SHARE"])
    kind = fault_of(subject.seed, share)
    if kind is not None:
        does_harm, deserved = FAULTS[kind]
        if deserved is RecordState.FAILED or subject.attempt == 1:
            with contextlib.suppress(ZeroDivisionError):
                return does_harm()  # type: ignore[return-value]
    return float(sum(subject.genotype.genes))
