"""The lookup table: a model takes what its layers take alone, all together."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import RidgeCV

from latency.predictors.base import Encodings, LatencyPrediction, LatencyPredictor, checked
from latency.predictors.layers import Layer

GROUP = "lookup"
"""The group of features that holds the sum, `(n, 1)`."""

_PENALTIES = np.logspace(-3, 3, 13)


class LookupTable:
    """What layers take alone on a device.

    Args:
        latencies_ms: Of each layer that was measured.
    """

    def __init__(self, latencies_ms: Mapping[Layer, float]) -> None:
        self._latencies_ms = dict(latencies_ms)
        layers = list(latencies_ms)
        self._kinds = sorted({layer.kind for layer in layers})
        targets = np.log(list(latencies_ms.values()))
        self._others = RidgeCV(_PENALTIES).fit(_columns(layers, self._kinds), targets)

    def sums(self, models: Sequence[Sequence[Layer]]) -> np.ndarray:
        """Return what the layers of each model take together, in ms, `(n,)`.

        A layer that was not measured counts as a regression on size and kind says from those that were.
        """
        known = dict(self._latencies_ms)
        if unknown := list({layer: None for layers in models for layer in layers if layer not in known}):
            estimates = np.exp(self._others.predict(_columns(unknown, self._kinds)))
            known |= dict(zip(unknown, map(float, estimates), strict=True))
        return np.array([sum(known[layer] for layer in layers) for layers in models])


def _columns(layers: Sequence[Layer], kinds: Sequence[str]) -> np.ndarray:
    """Return logarithms of the layers' numbers, and which kind each is of."""
    sizes = np.log1p(np.array([layer.numbers for layer in layers], float))
    return np.hstack([sizes, np.array([[layer.kind == kind for kind in kinds] for layer in layers], float)])


class Lookup(LatencyPredictor):
    """A straight line through the sums of a `LookupTable`.

    Its offset is what starting a model takes, its slope by what running it whole differs from running its layers alone.
    Errors count as shares of the latency.
    """

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Fit the line; see `LatencyPredictor.fit`."""
        latencies = checked(encodings, latencies_ms)
        weighted = _line(encodings) / latencies[:, None]
        inverse = np.linalg.pinv(weighted)
        self._coefficients = inverse.sum(axis=1)
        residuals = 1 - weighted @ self._coefficients
        leverages = np.minimum(np.einsum("ij,ji->i", weighted, inverse), 0.99)
        left_out = residuals / (1 - leverages)
        self._spread = float(np.sqrt(np.mean(left_out**2)))
        self._held_out = LatencyPrediction(latencies * (1 - left_out), latencies * self._spread)

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict by the line."""
        mean = np.maximum(_line(encodings) @ self._coefficients, 1e-6)
        return LatencyPrediction(mean, mean * self._spread)

    def held_out(self) -> LatencyPrediction:
        """Return the leave-one-out predictions."""
        return self._held_out


def _line(encodings: Encodings) -> np.ndarray:
    sums = encodings.groups[GROUP]
    return np.hstack([np.ones_like(sums), sums])
