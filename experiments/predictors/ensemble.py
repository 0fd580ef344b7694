"""Several predictors as one."""

import numpy as np

from nas.predictors import FeatureGroups, Prediction, Predictor


class Ensemble(Predictor):
    """The mean of several predictors; their disagreement adds to the spread."""

    def __init__(self, members: tuple[Predictor, ...]) -> None:
        if not members:
            raise ValueError("members must hold at least one predictor")
        self._members = members

    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Fit every member."""
        for member in self._members:
            member.fit(features, values)

    def predict(self, features: FeatureGroups) -> Prediction:
        """Return the moments of the mixture with equal weights."""
        predictions = [member.predict(features) for member in self._members]
        means = np.stack([prediction.mean for prediction in predictions])
        variances = np.stack([prediction.spread**2 for prediction in predictions])
        return Prediction(means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0)))

    def held_out(self) -> np.ndarray:
        """Return the mean over members; NaN where one does not know."""
        return np.asarray(np.mean([member.held_out() for member in self._members], axis=0))
