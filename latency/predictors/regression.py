"""Ridge regression on the logarithm of the latency, and boosted trees on what it leaves."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV

from latency.predictors.base import Encodings, LatencyPrediction, LatencyPredictor, checked

_PENALTIES = np.logspace(-3, 3, 13)
_SUMS = ("operations", "costs", "devices", "lookup")
_N_TREES = 100
_LEAST_IN_LEAF = 10


class Ridge(LatencyPredictor):
    """Ridge regression on counts of operations and sums of costs, its penalty chosen by leave-one-out.

    Source:
        On four counts of operations and a logarithmic target it ranks unseen devices of NAS-Bench-201 as HELP does.
    """

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Fit to the logarithm."""
        targets = np.log(checked(encodings, latencies_ms))
        columns = self._columns(encodings)
        self._center, self._width = columns.mean(axis=0), columns.std(axis=0) + 1e-12
        model = RidgeCV(_PENALTIES, store_cv_results=True).fit(self._standard(encodings), targets)
        chosen = int(np.argmin(np.abs(_PENALTIES - model.alpha_)))
        self._spread = float(np.sqrt(model.cv_results_[:, chosen].mean()))
        self._model = model

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict, with the leave-one-out error as spread."""
        mean = np.exp(self._model.predict(self._standard(encodings)))
        return LatencyPrediction(mean, mean * self._spread)

    def _columns(self, encodings: Encodings) -> np.ndarray:
        found = [columns for name, columns in encodings.groups.items() if name.partition(".")[0] in _SUMS]
        return np.concatenate(found or list(encodings.groups.values()), axis=1)

    def _standard(self, encodings: Encodings) -> np.ndarray:
        standard: np.ndarray = (self._columns(encodings) - self._center) / self._width
        return standard


class BoostedTrees(LatencyPredictor):
    """Gradient-boosted trees on the residual of `Ridge`; with few readings they add nothing."""

    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Fit the ridge, then the trees to the logarithm's residual."""
        latencies = checked(encodings, latencies_ms)
        self._ridge = Ridge()
        self._ridge.fit(encodings, latencies)
        residual = np.log(latencies / self._ridge.predict(encodings).mean_ms)
        self._trees = HistGradientBoostingRegressor(
            max_iter=_N_TREES,
            learning_rate=0.1,
            max_leaf_nodes=15,
            min_samples_leaf=_LEAST_IN_LEAF,
            random_state=0,
        ).fit(encodings.features, residual)
        # Training residuals flatter trees; half of what is left of the ridge's is a cautious spread.
        left = float((residual - self._trees.predict(encodings.features)).std())
        self._spread = max(left, float(residual.std()) / 2)

    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict both parts."""
        mean = self._ridge.predict(encodings).mean_ms * np.exp(self._trees.predict(encodings.features))
        return LatencyPrediction(mean, mean * self._spread)
