"""The contract of a predictor of trained metrics."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from nas.predictors.features import FeatureGroups


@dataclass(frozen=True)
class Prediction:
    """What a predictor expects.

    Attributes:
        mean: `(n,)`, in the unit of the values that it was fitted to.
        spread: `(n,)`: the standard deviation that it expects around `mean`; positive.
    """

    mean: np.ndarray
    spread: np.ndarray


class Predictor(ABC):
    """Learns a number from features of genotypes. A function of its options and of what it was fitted to."""

    @abstractmethod
    def fit(self, features: FeatureGroups, values: np.ndarray) -> None:
        """Learn from `values`, `(n,)`, finite, at least two; forgets what it was fitted to before."""

    @abstractmethod
    def predict(self, features: FeatureGroups) -> Prediction:
        """Return what it expects of other genotypes."""

    @abstractmethod
    def held_out(self) -> np.ndarray:
        """Return `(n,)`: for each genotype that it was fitted to, what it expects without having seen its value.

        NaN where that is not known.
        """
