"""Errors of this package.

NasError
├── InputError (ValueError)            a fault in what the user gave: configuration, data, arguments
│   ├── ConfigurationError             one or more faults of a configuration, all of them listed
│   ├── DataError                      data that is missing, broken or does not fit, all of it listed
│   ├── RunFolderError                 a run folder that is not there, is in use, or is not this run's
│   └── DamagedFileError               a file of ours that is not what was written and cannot be made again
├── MachineError (OSError)             disk, files or memory of the machine fail: nobody's verdict, nobody's input
├── EvaluationError (RuntimeError)     a candidate gave no usable number (NaN, infinity, an exception)
├── LostProcessError (RuntimeError)    a worker process died, or sends what nobody understands
├── SpaceExhaustedError (RuntimeError) a finite search space holds no genotype that was not asked before
└── ExportError (RuntimeError)         an exported model is not the model; no file was written

The command line exits with 2 for an `InputError` and with 1 for anything else that is raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_LINES = 20  # of one error about data
_MAX_LISTED = 3  # faults of one kind that are listed one by one
_MAX_LINE_LENGTH = 600


class NasError(Exception):
    """Base of the errors that `nas` raises on purpose."""


class InputError(NasError, ValueError):
    """A fault in what the user gave."""


class ConfigurationError(InputError):
    """A configuration is faulty.

    Attributes:
        faults: One line each, with file, line and key where they are known.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class DataFault:
    """One thing that is wrong with data.

    Attributes:
        where: The file or folder; may be empty.
        text: What is wrong with it; follows `where` and a colon.
        group: The same of several, following their number: "images have no mask". By default faults of equal
            text are told together.
        remedy: What to do; equal for all of a group.
    """

    where: str
    text: str
    group: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Return the line that tells of it alone, without the remedy."""
        return f"{self.where}: {self.text}" if self.where else self.text


class DataError(InputError):
    """Data is missing, broken, or does not fit.

    The message tells faults of one kind together, with their remedy, in 20 lines at most.

    Args:
        faults: A sentence alone is a fault as well.

    Attributes:
        details: All of them, one for each file or property at fault.
        faults: Likewise, as lines.
    """

    def __init__(self, faults: Sequence[DataFault | str]) -> None:
        self.details = tuple(fault if isinstance(fault, DataFault) else DataFault("", fault) for fault in faults)
        self.faults = tuple(map(str, self.details))
        super().__init__("\n".join(_report(self.details)))

    def __reduce__(self) -> tuple[type["DataError"], tuple[tuple[DataFault, ...]]]:
        """Let it pass between processes: by default an exception is made anew of its message."""
        return type(self), (self.details,)


def _report(faults: Sequence[DataFault]) -> list[str]:
    """Return the lines of a message: one for each of a few faults of a kind, one for all of many."""
    groups: dict[tuple[str, str], list[DataFault]] = {}
    for fault in faults:
        groups.setdefault((fault.group or fault.text, fault.remedy), []).append(fault)
    blocks = [_lines_of_group(members) for members in groups.values()]
    if sum(map(len, blocks)) > _MAX_LINES:
        blocks = [_lines_of_group(members, at_most=1) for members in groups.values()]
    lines = [line if len(line) <= _MAX_LINE_LENGTH else f"{line[:_MAX_LINE_LENGTH]} ..." for b in blocks for line in b]
    if len(lines) <= _MAX_LINES:
        return lines
    n_more = len(lines) - _MAX_LINES + 1
    return [*lines[: _MAX_LINES - 1], f"... and faults of {n_more} more kinds."]


def _lines_of_group(members: Sequence[DataFault], at_most: int = _MAX_LISTED) -> list[str]:
    first = members[0]
    if len(members) <= at_most:
        lines = [str(fault) for fault in members]
    elif first.group:
        _, _, said = first.text.partition(" ")
        lines = [f"{len(members)} {first.group} (first: {first.where if said in first.group else first})"]
    else:
        lines = [f"{first.where} and {len(members) - 1} more: {first.text}" if first.where else first.text]
    if first.remedy:
        lines[-1] += f"; {first.remedy}"
    return lines


class RunFolderError(InputError):
    """A run folder is missing, in use, or belongs to another configuration."""


class MachineError(NasError, OSError):
    """A fault of the machine: the text says what failed, what to mend and how to go on; no candidate is to blame."""


class EvaluationError(NasError, RuntimeError):
    """An evaluation gave no usable number."""


class LostProcessError(NasError, RuntimeError):
    """A worker process died, or sends what nobody understands; the text continues "its process ..."."""


class SpaceExhaustedError(NasError, RuntimeError):
    """Every genotype of a finite space was asked for already."""


class ExportError(NasError, RuntimeError):
    """An exported model does not compute what the model computes."""


class DamagedFileError(InputError):
    """A file that this program wrote is not what was written, and cannot be made again by itself."""
