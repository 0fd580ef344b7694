"""A Gaussian process that adds up one kernel for each group of features."""

import numpy as np
from scipy.optimize import minimize

from nas.predictors.base import Prediction, Predictor
from nas.predictors.features import FeatureGroups

_JITTER = 1e-6
_BLOCK = 512  # genotypes to predict at a time: their kernels stay in the processor's cache
_LEAST_SPREAD = 1e-4  # of the values' standard deviation
_PRIOR_NOISE = 0.03  # share of the variance
_BOUNDS = ((-7.0, 2.5), (-2.5, 3.0), (-7.0, 0.0))  # logarithms: amplitude, length, noise
_PRIOR_WIDTHS = (1.5, 1.0, 1.5)


class GaussianProcess(Predictor):
    """A Gaussian process on standardised features, a squared-exponential kernel for each group of them.

    Each group has one amplitude and one length, found with the noise by maximising the posterior under wide
    log-normal priors. Starting from the values of the last fit, a refit takes a few steps.

    Args:
        n_max: The most genotypes to learn from, since the time grows with the cube: for a half those of the smallest
            values, for the other half some of all ranks behind them, lest what is bad be forgotten.
        n_steps: The most steps of the optimiser for each fit.

    Source:
        Rasmussen & Williams 2006, chapters 2 and 5; leave-one-out by equation 5.12.
    """

    def __init__(self, n_max: int = 300, n_steps: int = 15) -> None:
        for name, value in (("n_max", n_max), ("n_steps", n_steps)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        self._n_max = n_max
        self._n_steps = n_steps
        self._parameters: np.ndarray | None = None

    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Find the kernels' parameters, from those of the last fit on."""
        self._rows = _representatives(values, self._n_max)
        self._n_values = len(values)
        values = values[self._rows]
        self._center, self._scale = values.mean(), values.std() or 1.0
        self._standardizers = [_standardizer(columns[self._rows]) for columns in features.columns.values()]
        self._inputs = self._standardized(features.take(self._rows))
        distances = [_squared_distances(columns, columns) for columns in self._inputs]
        targets = (values - self._center) / self._scale
        self._parameters = self._fitted(distances, targets)
        kernel = self._kernel(distances)
        kernel[np.diag_indices_from(kernel)] += np.exp(self._parameters[-1]) + _JITTER
        self._precision = np.linalg.inv(kernel)
        self._weights = self._precision @ targets
        self._targets = targets

    def predict(self, features: FeatureGroups) -> Prediction:
        """Return the posterior of the noise-free value."""
        n = len(features)
        blocks = [self._posterior(features.take(slice(row, row + _BLOCK))) for row in range(0, n, _BLOCK)]
        means, spreads = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return Prediction(means * self._scale + self._center, spreads * self._scale)

    def _posterior(self, features: FeatureGroups) -> tuple[np.ndarray, np.ndarray]:
        """Return means and spreads of standardised values, for as many genotypes as the processor's cache holds."""
        assert self._parameters is not None  # noqa: S101 - fit comes first
        inputs = self._standardized(features)
        cross = self._kernel([_squared_distances(a, b) for a, b in zip(inputs, self._inputs, strict=True)])
        prior = np.exp(self._parameters[: len(inputs)]).sum()
        variances = prior - np.einsum("ij,ij->i", cross @ self._precision, cross)
        return cross @ self._weights, np.sqrt(np.maximum(variances, _LEAST_SPREAD**2))

    def held_out(self) -> np.ndarray:
        """Return the leave-one-out means; NaN for genotypes beyond `n_max`."""
        means = np.full(self._n_values, np.nan)
        left_out = self._targets - self._weights / np.diag(self._precision)
        means[self._rows] = left_out * self._scale + self._center
        return means

    def _standardized(self, features: FeatureGroups) -> list[np.ndarray]:
        columns = features.columns.values()
        return [(c - center) / width for c, (center, width) in zip(columns, self._standardizers, strict=True)]

    def _kernel(self, distances: list[np.ndarray]) -> np.ndarray:
        assert self._parameters is not None  # noqa: S101 - as above
        return np.asarray(np.sum(_kernels(self._parameters, distances), axis=0))

    def _fitted(self, distances: list[np.ndarray], targets: np.ndarray) -> np.ndarray:
        n_groups = len(distances)
        repeats = (n_groups, n_groups, 1)
        centers = np.repeat((-np.log(n_groups), 0.3, np.log(_PRIOR_NOISE)), repeats)
        widths = np.repeat(_PRIOR_WIDTHS, repeats)
        bounds = np.repeat(_BOUNDS, repeats, axis=0)
        start = centers if self._parameters is None or len(self._parameters) != len(centers) else self._parameters
        result = minimize(
            _negative_log_posterior,
            np.clip(start, bounds[:, 0], bounds[:, 1]),
            args=(distances, targets, centers, widths),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": self._n_steps},
        )
        return np.asarray(result.x)


def _representatives(values: np.ndarray, n_max: int) -> np.ndarray:
    """Return the rows of the smallest values and of some evenly spaced by rank behind them; at most `n_max`."""
    order = np.argsort(values, kind="stable")
    if len(order) > n_max:
        n_smallest = n_max // 2
        behind = np.linspace(n_smallest, len(order) - 1, n_max - n_smallest).round().astype(np.int64)
        order = np.concatenate([order[:n_smallest], order[behind]])
    return np.sort(order)


def _kernels(parameters: np.ndarray, distances: list[np.ndarray]) -> list[np.ndarray]:
    amplitudes, lengths = np.exp(parameters[: len(distances)]), np.exp(parameters[len(distances) : -1])
    return [
        amplitude * np.exp(squared * (-0.5 / length**2))
        for amplitude, length, squared in zip(amplitudes, lengths, distances, strict=True)
    ]


def _negative_log_posterior(
    parameters: np.ndarray, distances: list[np.ndarray], targets: np.ndarray, centers: np.ndarray, widths: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative log posterior and its gradient by the logarithms of amplitudes, lengths and noise."""
    n_groups = len(distances)
    kernels = _kernels(parameters, distances)
    noise = np.exp(parameters[-1])
    total = np.sum(kernels, axis=0)
    total[np.diag_indices_from(total)] += noise + _JITTER
    precision = np.linalg.inv(total)
    weights = precision @ targets
    log_determinant = np.linalg.slogdet(total)[1]
    slopes = 0.5 * (precision - np.outer(weights, weights))  # by the entries of the kernel matrix
    by_amplitude = [(slopes * kernel).sum() for kernel in kernels]
    by_length = [
        (slopes * kernel * squared).sum() * np.exp(-2 * log_length)
        for kernel, squared, log_length in zip(kernels, distances, parameters[n_groups:-1], strict=True)
    ]
    gradient = np.array([*by_amplitude, *by_length, np.trace(slopes) * noise])
    deviations = (parameters - centers) / widths
    value = 0.5 * (targets @ weights + log_determinant + (deviations**2).sum())
    return float(value), gradient + deviations / widths


def _standardizer(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from each feature and what to divide by, so that a group's mean squared norm is 1."""
    spread = columns.std(axis=0)
    varying = spread > 0
    width = np.where(varying, spread, 1.0) * np.sqrt(max(varying.sum(), 1))
    return columns.mean(axis=0), width


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = a @ b.T
    squares *= -2
    squares += (a**2).sum(axis=1)[:, np.newaxis]
    squares += (b**2).sum(axis=1)
    return np.asarray(np.maximum(squares, 0.0, out=squares))
