"""Extremely randomised trees on all features side by side."""

import warnings

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from nas.predictors.base import Prediction, Predictor
from nas.predictors.features import FeatureGroups

_LEAST_SPREAD = 1e-6


class Trees(Predictor):
    """Extremely randomised trees, each grown on a bootstrap sample; the spread is that of the trees.

    Args:
        n_trees: How many.
        max_features: Share of the features that a split chooses among.
        seed: Of samples and splits.

    Source:
        Geurts et al. 2006, doi:10.1007/s10994-006-6226-1, as implemented by scikit-learn.
        Differs: bootstrap samples, so that every tree has genotypes that it did not see.
    """

    def __init__(self, n_trees: int = 60, max_features: float = 0.5, seed: int = 0) -> None:
        if n_trees < 1:
            raise ValueError(f"n_trees must be at least 1, got {n_trees}")
        self._forest = ExtraTreesRegressor(
            n_trees, max_features=max_features, bootstrap=True, oob_score=True, random_state=seed
        )

    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Grow all trees anew."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")  # they are NaN below
            warnings.filterwarnings("ignore", message="R.2 score is not well-defined")
            self._forest.fit(features.matrix.astype(np.float32), values)

    def predict(self, features: FeatureGroups) -> Prediction:
        """Return mean and standard deviation over the trees."""
        matrix = features.matrix.astype(np.float32)
        trees = np.stack([tree.tree_.predict(matrix)[:, 0] for tree in self._forest.estimators_])
        return Prediction(trees.mean(axis=0), np.maximum(trees.std(axis=0), _LEAST_SPREAD))

    def held_out(self) -> np.ndarray:
        """Return what the trees that did not see a genotype expect of it."""
        return np.asarray(self._forest.oob_prediction_, dtype=np.float64)
