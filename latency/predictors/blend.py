"""The blend: several predictors weighed by how well each foretells readings that it was not shown."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import t as student

from latency.predictors.base import Z_90, Encodings, LatencyPrediction, LatencyPredictor, checked
from latency.predictors.gaussian_process import GaussianProcess
from latency.predictors.lookup import GROUP, Lookup
from latency.predictors.regression import BoostedTrees, Ridge

_N_FOLDS = 5
_TAIL = 4.0  # degrees of freedom of a reading's distribution
_PRIOR_READINGS = 30.0  # which say that the spreads are right
_LEAST_WEIGHT = 0.01  # a member below it is left out
_LEAST_READINGS = {"boosted_trees": 40, "lstm": 200, "attention": 200}

Members = Mapping[str, Callable[[], LatencyPredictor]]


def default_members(scaled_on: Encodings | None = None) -> Members:
    """Return the members that take less than a second to fit.

    Where the encodings tell of known devices, there is one process with and one without them: far devices do no harm.
    Where they hold what layers take alone, there is the lookup table.

    Args:
        scaled_on: As for `GaussianProcess`.
    """
    return {
        "gaussian_process": lambda: GaussianProcess(scaled_on),
        "without_devices": lambda: WithoutDevices(GaussianProcess(None if scaled_on is None else _own(scaled_on))),
        "lookup": Lookup,
        "ridge": Ridge,
        "boosted_trees": BoostedTrees,
    }


class WithoutDevices(LatencyPredictor):
    """A predictor that is not told of known devices."""

    def __init__(self, predictor: LatencyPredictor) -> None:
        self._predictor = predictor

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Fit to the rest."""
        self._predictor.fit(_own(encodings), latencies_ms)

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict from the rest."""
        return self._predictor.predict(_own(encodings))

    def held_out(self) -> LatencyPrediction | None:
        """Return the predictor's own."""
        return self._predictor.held_out()


class Blend(LatencyPredictor):
    """A weighted mean of predictors.

    Weights are those of cross-validation (leave-one-out where a member can do that without a refit): each member's
    likelihood of the readings that it was not shown. The spread is widened or narrowed to what these readings say.

    Args:
        members: Makes each predictor, by name; by default `default_members()`.

    Attributes:
        weights: Of each member, by name; they add up to 1.

    Source:
        Weights by leave-one-out densities: Yao et al. 2018, arXiv:1704.02030, section 3.4 (pseudo-BMA).
    """

    def __init__(self, members: Members | None = None) -> None:
        self._members = members or default_members()
        self.weights: dict[str, float] = {}

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Fit all members to all readings, weigh them by readings held out."""
        latencies = checked(encodings, latencies_ms)
        lacks = {"without_devices": not any(name.startswith("devices") for name in encodings.groups)}
        lacks["lookup"] = GROUP not in encodings.groups
        names = [
            name
            for name in self._members
            if len(latencies) >= _LEAST_READINGS.get(name, 0) and not lacks.get(name, False)
        ]
        held_out: dict[str, LatencyPrediction] = {}
        self._fitted: dict[str, LatencyPredictor] = {}
        for name in names:
            predictor = self._members[name]()
            predictor.fit(encodings, latencies)
            own = predictor.held_out()
            held_out[name] = own or _cross_validated(self._members[name], encodings, latencies)
            self._fitted[name] = predictor
        evidence = np.array([_log_density(held_out[name], latencies) for name in names])
        weights = np.exp(evidence - evidence.max())
        weights = np.where(weights / weights.sum() < _LEAST_WEIGHT, 0.0, weights)
        self.weights = {n: float(w) for n, w in zip(names, weights / weights.sum(), strict=True) if w > 0}
        together = self._blended(held_out)
        self._widening = _widening((latencies - together.mean_ms) / together.spread_ms)

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Return the weighted mean, and the spread within and between the members."""
        found = self._blended({name: self._fitted[name].predict(encodings) for name in self.weights})
        return LatencyPrediction(found.mean_ms, found.spread_ms * self._widening)

    def _blended(self, predictions: Mapping[str, LatencyPrediction]) -> LatencyPrediction:
        weights = np.array(list(self.weights.values()))[:, None]
        means = np.stack([predictions[name].mean_ms for name in self.weights])
        spreads = np.stack([predictions[name].spread_ms for name in self.weights])
        mean = (weights * means).sum(axis=0)
        variance = (weights * (spreads**2 + (means - mean) ** 2)).sum(axis=0)
        return LatencyPrediction(mean, np.sqrt(variance))


def _own(encodings: Encodings) -> Encodings:
    """Return the encodings without what is known of other devices."""
    groups = {name: columns for name, columns in encodings.groups.items() if not name.startswith("devices")}
    return Encodings(groups, encodings.tokens, encodings.n_layers)


def _cross_validated(
    make: Callable[[], LatencyPredictor], encodings: Encodings, latencies: np.ndarray
) -> LatencyPrediction:
    """Return predictions of each reading by a predictor of the other folds."""
    n = len(latencies)
    folds = np.random.default_rng(0).permutation(n) % min(_N_FOLDS, n)
    mean, spread = np.empty(n), np.empty(n)
    for fold in range(folds.max() + 1):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        predictor = make()
        predictor.fit(encodings.take(rest), latencies[rest])
        found = predictor.predict(encodings.take(here))
        mean[here], spread[here] = found.mean_ms, found.spread_ms
    return LatencyPrediction(mean, spread)


def _log_density(prediction: LatencyPrediction, latencies: np.ndarray) -> float:
    """Return the sum of the readings' log densities; heavy tails keep one odd reading from deciding."""
    return float(student.logpdf(latencies, _TAIL, prediction.mean_ms, prediction.spread_ms).sum())


def _widening(standard: np.ndarray) -> float:
    """Return by what to multiply spreads so that 90 % of the held-out readings lie within the interval.

    Few readings say little of a quantile: the ratio is drawn, as if some more of them had been there, to that of
    Student's t, which stands for spreads that were found from half as many readings as there are.
    """
    n = len(standard)
    expected = float(student.ppf(0.95, max(2.0, n / 2))) / Z_90
    found = float(np.quantile(np.abs(standard), min(1.0, 0.9 * (1 + 1 / n)))) / Z_90
    share = n / (n + _PRIOR_READINGS)
    return float(found**share * expected ** (1 - share))
