"""A Gaussian process whose mean is a sum over groups of features: few readings go far with a physical prior."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from latency.predictors.base import Encodings, LatencyPrediction, LatencyPredictor, checked

_BIAS = 4.0  # variance of the common part of all latencies, as a share of the mean's square
_JITTER = 1e-6
_N_FOR_AMPLITUDES = 200  # readings that amplitudes are found from: a step takes the cube of their number
_BOUNDS = (-9.0, 2.0)  # of the logarithm of an amplitude
_N_STEPS = 40
_NOISE = (np.log(0.03), 1.0)  # mean and width of the prior on its logarithm
_DEFAULT_PRIOR = (np.log(0.03), 1.0)
_PRIORS = {
    "operations": (np.log(0.2), 1.0),
    "operations_squared": (np.log(0.02), 1.0),
    "costs": (np.log(0.2), 1.0),
    "roots": (np.log(0.1), 1.0),
    "devices": (np.log(0.2), 1.0),
    "lookup": (np.log(0.3), 1.0),
}
_TAIL = 4.0  # degrees of freedom of the noise
_N_REWEIGHTINGS = 2
_RELATIVE = (0.0, 0.9)  # shares of the noise's variance that grow with the latency's square; the likelier one is taken


@dataclass(frozen=True)
class _Scale:
    """Makes a group's columns comparable: centred, all of them together of length 1 in the mean."""

    center: np.ndarray
    factor: float

    @classmethod
    def of(cls, columns: np.ndarray) -> "_Scale":
        center = columns.mean(axis=0)
        length = float(np.sqrt(((columns - center) ** 2).sum(axis=1).mean()))
        return cls(center, 1 / length if length > 1e-12 else 0.0)

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (columns - self.center) * self.factor
        return scaled


class GaussianProcess(LatencyPredictor):
    """A Gaussian process with a linear kernel for each group of features and a squared-exponential one over the first.

    A latency is nearly the sum of what its layers take, so that sums and counts over layers explain most of it. Each
    group has one amplitude, found with the noise by maximising the posterior under wide log-normal priors.

    Args:
        scaled_on: Models whose features give each group's scale, such as a sample of the space; by default those
            learnt from.

    Source:
        Rasmussen & Williams 2006, chapters 2 and 5; leave-one-out by equations 5.10 to 5.12.
    """

    def __init__(self, scaled_on: Encodings | None = None) -> None:
        self._scaled_on = scaled_on

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Find amplitudes and noise, then the posterior given all readings."""
        latencies = checked(encodings, latencies_ms)
        with threadpool_limits(1, "blas"):  # more threads only get in each other's way on matrices of this size
            self._fit(encodings, latencies)

    def _fit(self, encodings: Encodings, latencies: np.ndarray) -> None:
        self._mean_ms = float(latencies.mean())
        self._targets = latencies / self._mean_ms - 1
        self._set_scales(encodings)
        self._inputs = self._scaled(encodings)
        some = np.linspace(0, len(latencies) - 1, min(len(latencies), _N_FOR_AMPLITUDES)).astype(int)
        kernels = self._kernels([columns[some] for columns in self._inputs], [c[some] for c in self._inputs])
        self._doubts = np.ones(len(latencies))
        for _ in range(_N_REWEIGHTINGS + 1):
            found = [self._amplitudes_of(kernels, latencies, some, relative) for relative in _RELATIVE]
            _, self._amplitudes, self._relative = min(found, key=lambda each: each[0])
            self._condition(latencies)
            self._doubts = _doubts(self._weights / np.sqrt(np.diag(self._precision)))
        self._condition(latencies)

    def _amplitudes_of(
        self, kernels: list[np.ndarray], latencies: np.ndarray, rows: np.ndarray, relative: float
    ) -> tuple[float, np.ndarray, float]:
        """Return the loss and the most likely amplitudes where this share of the noise is relative, and the share."""
        noise = _noise_shape(latencies[rows], relative, self._mean_ms) * self._doubts[rows]
        return *_most_likely(kernels, self._targets[rows], noise, self._priors), relative

    def _condition(self, latencies: np.ndarray) -> None:
        """Take in the readings."""
        covariance = self._joined(self._kernels(self._inputs, self._inputs))
        covariance[np.diag_indices_from(covariance)] += self._noise(latencies) * self._doubts
        self._precision = cho_solve(cho_factor(covariance), np.eye(len(latencies)))
        self._weights = self._precision @ self._targets

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Return the posterior of a reading."""
        inputs = self._scaled(encodings)
        cross = self._joined(self._kernels(inputs, self._inputs))
        means = cross @ self._weights
        variances = self._prior_variances(inputs) - np.einsum("ij,ij->i", cross @ self._precision, cross)
        return self._prediction(means, np.maximum(variances, 0.0))

    def held_out(self) -> LatencyPrediction:
        """Return the leave-one-out predictions, with the amplitudes found from all readings."""
        diagonal = np.diag(self._precision)
        means = self._targets - self._weights / diagonal
        latencies = (self._targets + 1) * self._mean_ms
        return self._prediction(means, np.maximum(1 / diagonal - self._noise(latencies) * self._doubts, 0.0))

    def covariance(self, encodings: Encodings) -> np.ndarray:
        """Return the covariance of the noise-free latencies of some models given the readings, as shares, `(n, n)`."""
        inputs = self._scaled(encodings)
        cross = self._joined(self._kernels(inputs, self._inputs))
        covariance: np.ndarray = self._joined(self._kernels(inputs, inputs)) - cross @ self._precision @ cross.T
        return covariance

    def prior_covariance(self, encodings: Encodings) -> np.ndarray:
        """Return the same before any reading; needs no `fit`."""
        self._set_scales(encodings)
        self._amplitudes = np.array([mean for mean, _ in self._priors])
        inputs = self._scaled(encodings)
        return self._joined(self._kernels(inputs, inputs))

    @property
    def noise(self) -> float:
        """Standard deviation of a reading of mean latency, as a share of it."""
        return float(np.exp(self._amplitudes[-1]))

    def _prediction(self, means: np.ndarray, variances: np.ndarray) -> LatencyPrediction:
        mean_ms = np.maximum(means + 1, 1e-3) * self._mean_ms
        return LatencyPrediction(mean_ms, np.sqrt(variances + self._noise(mean_ms)) * self._mean_ms)

    def _noise(self, latencies: np.ndarray) -> np.ndarray:
        """Return the variance of readings of these latencies, as shares of the mean's square."""
        shape = _noise_shape(latencies, self._relative, self._mean_ms)
        noise: np.ndarray = np.exp(2 * self._amplitudes[-1]) * shape + _JITTER
        return noise

    def _set_scales(self, encodings: Encodings) -> None:
        reference = self._scaled_on or encodings
        self._names = list(encodings.groups)
        self._scales = [_Scale.of(reference.groups[name]) for name in self._names]
        priors = [_PRIORS.get(name.partition(".")[0], _DEFAULT_PRIOR) for name in self._names]
        self._priors = [*priors, _DEFAULT_PRIOR, _NOISE]  # the squared-exponential kernel's, the noise's

    def _scaled(self, encodings: Encodings) -> list[np.ndarray]:
        return [scale(encodings.groups[name]) for name, scale in zip(self._names, self._scales, strict=True)]

    def _kernels(self, left: list[np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
        """Return one kernel for each amplitude but the noise's."""
        linear = [a @ b.T for a, b in zip(left, right, strict=True)]
        distances = (left[0] ** 2).sum(1)[:, None] + (right[0] ** 2).sum(1) - 2 * linear[0]
        return [*linear, np.exp(-np.maximum(distances, 0.0) / 2)]

    def _joined(self, kernels: list[np.ndarray]) -> np.ndarray:
        joined: np.ndarray = sum(
            (np.exp(2 * a) * kernel for a, kernel in zip(self._amplitudes, kernels, strict=False)),
            np.full(kernels[0].shape, _BIAS),
        )
        return joined

    def _prior_variances(self, inputs: list[np.ndarray]) -> np.ndarray:
        squares = np.exp(2 * self._amplitudes)
        linear = sum(square * (columns**2).sum(axis=1) for square, columns in zip(squares, inputs, strict=False))
        variances: np.ndarray = linear + squares[len(inputs)] + _BIAS
        return variances


def _noise_shape(latencies: np.ndarray, relative: float, mean: float) -> np.ndarray:
    """Return the noise's variance of each reading, as a share of a mean reading's."""
    shape: np.ndarray = 1 - relative + relative * (latencies / mean) ** 2
    return shape


def _doubts(residuals: np.ndarray) -> np.ndarray:
    """Return by what to multiply the noise's variance of each reading, given standardised leave-one-out residuals.

    A reading far off is believed less, as if the noise had the heavy tails of Student's t.
    """
    doubts: np.ndarray = np.maximum(1.0, (_TAIL + residuals**2) / (_TAIL + 1))
    return doubts


def _most_likely(
    kernels: list[np.ndarray], targets: np.ndarray, noise_shape: np.ndarray, priors: list[tuple[float, float]]
) -> tuple[float, np.ndarray]:
    """Return the least negative log posterior and the logarithms of the amplitudes there, the noise's last."""
    means, widths = np.array(priors).T
    parts = [*kernels, np.diag(noise_shape)]
    identity = np.eye(len(targets))

    def loss(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        squares = np.exp(2 * logarithms)
        covariance = (
            sum(square * part for square, part in zip(squares, parts, strict=True)) + _BIAS + _JITTER * identity
        )
        factor = cho_factor(covariance, lower=True)
        precision = cho_solve(factor, identity)
        weights = precision @ targets
        deviations = (logarithms - means) / widths
        value = 0.5 * targets @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * deviations @ deviations
        inner = precision - np.outer(weights, weights)
        slopes = np.array([square * np.sum(inner * part) for square, part in zip(squares, parts, strict=True)])
        return float(value), slopes + deviations / widths

    found = minimize(
        loss, means, jac=True, bounds=[_BOUNDS] * len(means), method="L-BFGS-B", options={"maxiter": _N_STEPS}
    )
    return float(found.fun), found.x
