"""Errors of this package.

LatencyError
├── DeviceUnavailableError (RuntimeError)   the device, or a provider or driver it needs, is not here
├── MeasurementError (RuntimeError)         a measurement was tried and failed, or ran out of time
├── UnsupportedMeasurementError (ValueError)    the device has no way to take this measurement
├── PredictionError (ValueError)            readings that nothing can be learnt from, or a damaged file of them
├── UncountedOperatorError (ValueError)     an operator without a formula in an exact count
├── TracingError (RuntimeError)             the model cannot be traced (it branches on data, say)
└── OnnxExportError (RuntimeError)          the ONNX graph is invalid or computes something else
    └── UntranslatedOperatorError           an operator that only torch's own exporter may know
"""


class LatencyError(Exception):
    """Base of the errors that `latency` raises on purpose."""


class DeviceUnavailableError(LatencyError, RuntimeError):
    """The device is not on this machine."""


class MeasurementError(LatencyError, RuntimeError):
    """A measurement failed; there is no number."""


class UnsupportedMeasurementError(LatencyError, ValueError):
    """The device has no honest way to take this measurement."""


class PredictionError(LatencyError, ValueError):
    """Nothing can be learnt from these readings."""


class UncountedOperatorError(LatencyError, ValueError):
    """A count met operators that it has no formula for.

    Attributes:
        operators: Their names, e.g. `("aten.cumsum",)`.
    """

    def __init__(self, message: str, operators: tuple[str, ...]) -> None:
        super().__init__(message)
        self.operators = operators


class TracingError(LatencyError, RuntimeError):
    """The model's operators cannot be listed without running it on data."""


class OnnxExportError(LatencyError, RuntimeError):
    """The ONNX graph was not written because it is not the model."""


class UntranslatedOperatorError(OnnxExportError):
    """The quick way to ONNX has no translation of an operator, or of this use of it."""
