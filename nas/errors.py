"""Errors of this package.

NasError
├── InputError (ValueError)            a fault in what the user gave: configuration, data, arguments
│   ├── ConfigurationError             one or more faults of a configuration, all of them listed
│   ├── DataError                      data that is missing, broken or does not fit, all of it listed
│   ├── RunFolderError                 a run folder that is not there, is in use, or is not this run's
│   └── DamagedFileError               a file of ours that is not what was written and cannot be made again
├── EvaluationError (RuntimeError)     a candidate gave no usable number (NaN, infinity, an exception)
├── SpaceExhaustedError (RuntimeError) a finite search space holds no genotype that was not asked before
└── ExportError (RuntimeError)         an exported model is not the model; no file was written

The command line exits with 2 for an `InputError` and with 1 for anything else that is raised.
"""

from collections.abc import Sequence


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


class DataError(InputError):
    """Data is missing, broken, or does not fit.

    Attributes:
        faults: One line for each file or property at fault.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class RunFolderError(InputError):
    """A run folder is missing, in use, or belongs to another configuration."""


class EvaluationError(NasError, RuntimeError):
    """An evaluation gave no usable number."""


class SpaceExhaustedError(NasError, RuntimeError):
    """Every genotype of a finite space was asked for already."""


class ExportError(NasError, RuntimeError):
    """An exported model does not compute what the model computes."""


class DamagedFileError(InputError):
    """A file that this program wrote is not what was written, and cannot be made again by itself."""
