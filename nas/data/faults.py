"""Gathers what is wrong with data, so that one error can tell of it all."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from nas.errors import DataError, DataFault

Value = TypeVar("Value")

_MAX_LISTED = 8


class FaultList:
    """Collects faults, so that a single error can name them all."""

    def __init__(self) -> None:
        self._faults: list[DataFault] = []

    def add(self, where: Path | str, fault: str, *, group: str = "", remedy: str = "") -> None:
        """Add the fault of a file or folder; see `DataFault`."""
        self._faults.append(DataFault(shown_path(where), fault, group, remedy))

    def extend(self, faults: Iterable[DataFault]) -> None:
        """Add faults."""
        self._faults.extend(faults)

    def attempt(self, read: Callable[[], Value]) -> Value | None:
        """Return what `read` returns; `None`, keeping its faults, if it raises a `DataError`."""
        try:
            return read()
        except DataError as error:
            self._faults.extend(error.details)
            return None

    def __bool__(self) -> bool:
        return bool(self._faults)

    def error(self) -> DataError:
        """Return the error that names all that was added."""
        return DataError(self._faults)

    def raise_if_any(self) -> None:
        """Raise what was added.

        Raises:
            DataError: If there was any fault.
        """
        if self:
            raise self.error()


def shown_path(path: Path | str) -> str:
    """Return a path as messages show it: on one line, and in letters that any terminal takes."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def shown_list(values: Iterable[object]) -> str:
    """Return values joined by commas, the first few of many."""
    texts = [str(value) for value in values]
    more = f", ... ({len(texts)} in all)" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more
