"""What becomes of a store that cannot be read, or whose file is taken away while a search writes it."""

import contextlib
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import MachineError, NasError, RunFolderError
from nas.faults import GO_ON, machine_error, reason_of

_BUSY = ("database is locked", "database table is locked")

NUMBER = float
"""Stands for a finite number in a shape."""

_NAMED_NUMBERS = {str: NUMBER}

FACTS: Mapping[str, Any] = {
    "name": str,
    "objectives": [{"metric": str, "direction": str}],
    "constraints": [{"metric": str, "min": (NUMBER, None), "max": (NUMBER, None)}],
    "versions": {str: str},
    "reference_point": _NAMED_NUMBERS,
    "reference_sample": [{"genes": [int], "metrics": _NAMED_NUMBERS}],
    "usage": {"hours": NUMBER, "gpu_hours": NUMBER, "n_trained": int},
    "busy_s": {str: NUMBER},
    "finished_size": int,
    "planned_size": int,
    "expected_gain": (NUMBER, None),
    "teacher": {"kind": str, "scores": _NAMED_NUMBERS, "n_params": int},
    "teacher_weights": str,
    "encoder": str,
    "signature": {"in_channels": int, "image_size": [int], "n_classes": int},
    "normalization": {"mean": [NUMBER], "std": [NUMBER]},
    "class_names": [str],
    "warm_start": [[int]],
    "full_trainings": {str: str},
}
"""The shape of each fact: a type, `[of each item]`, `{each: key}`, `{str: of each value}`, `(one, or another)`."""

FAILURE = {"stage": str, "reason": str, "traceback": str}
DETAIL = {
    "violations": [{"metric": str, "value": NUMBER, "min": (NUMBER, None), "max": (NUMBER, None), "amount": NUMBER}],
    "failure": (FAILURE, None),
    "pruning": ({"stage": str, "metric": str, "score": NUMBER}, None),
}
"""The shape of a verdict's detail; it may hold more."""


def check_shape(what: str, value: Any, shape: Any) -> None:
    """Check a value that was read from JSON.

    Raises:
        ValueError: If it has not this shape.
    """
    if not _fits(value, shape):
        raise ValueError(f"{what} is not what a run stores there: {str(value)[:100]!r}")


def _fits(value: Any, shape: Any) -> bool:
    match shape:
        case tuple():
            return any(_fits(value, one) for one in shape)
        case [of_each]:
            return isinstance(value, list) and all(_fits(item, of_each) for item in value)
        case dict() if not isinstance(value, dict):
            return False
        case dict() if str in shape:
            return all(_fits(item, shape[str]) for item in value.values())
        case dict():
            return all(_fits(value.get(key), item) for key, item in shape.items())
    return _is_plain(value, shape)


def _is_plain(value: Any, shape: type | None) -> bool:
    if shape is None:
        return value is None
    if shape is NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return shape is object or (isinstance(value, shape) and not isinstance(value, bool))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise whatever a damaged store leads to as one error that says what can be saved.

    Raises:
        RunFolderError: If the store cannot be read, or does not hold what a run stores.
    """
    try:
        yield
    except NasError:
        raise
    except Exception as error:  # SQLite's, JSON's, and those of values that are not what they should be
        if any(text in str(error) for text in _BUSY):
            raise RunFolderError(f"{path} is in use by another program: {error}") from error
        raise damaged(path, reason_of(error)) from error


def damaged(path: Path, reason: str) -> RunFolderError:
    """Return the error of a store that cannot be read."""
    return RunFolderError(
        f"{path} is damaged, or not a store of a run: {reason}. What can be saved: weights and config.yaml beside it "
        f"are files of their own; `sqlite3 {path} .recover` writes out the records that can still be read. Put back a "
        "copy of the store, or move the run's folder away to start anew"
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what prevents a store from being written as a fault of the machine; a doubled record is none.

    Raises:
        MachineError: If the file cannot be written.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise machine_error(f"{path} cannot be written", error) from error


class Whereabouts:
    """Files and folders as they were when a run was opened: whoever writes on must notice when they are gone.

    An open file can be written after it was deleted or renamed, and all of that is lost.

    Args:
        paths: Of the run.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._known = {path: _identity(path) for path in paths}

    def check(self) -> None:
        """Check that all are where they were, and can be written.

        Raises:
            MachineError: If one is not.
        """
        for path, known in self._known.items():
            try:
                found = _identity(path)
            except OSError as error:
                raise MachineError(_moved(path, "is gone")) from error
            if found != known:
                raise MachineError(_moved(path, "is another one now"))
            if not _is_writable(path):
                raise MachineError(
                    f"{path} was made read-only while the run was written. Everything until now is stored; make it "
                    f"writable again, then {GO_ON}"
                )


def _moved(path: Path, what: str) -> str:
    return (
        f"{path} {what}: it was deleted, renamed or replaced while the run was written. Put it back where it was, if "
        f"it still is somewhere, then {GO_ON}; what it held is not lost if it was only renamed"
    )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_writable(path: Path) -> bool:
    """Return whether `path` may be written; what nobody may write is read-only for the superuser too."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)
