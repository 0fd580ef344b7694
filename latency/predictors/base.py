"""The contract of a latency predictor: it learns from measured models, and says how sure it is of others."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

Z_90 = 1.6449
"""Standard deviations to each side that hold 90 % of a normal distribution."""


@dataclass(frozen=True)
class Encodings:
    """Models as numbers.

    Attributes:
        groups: Features by group, `(n, n_features)` float64 each; a predictor may weigh groups differently.
        tokens: The layers of each model in their order, `(n, length, n_numbers)` float32; shorter ones end in zeros.
        n_layers: How many of them there are, `(n,)`.
    """

    groups: Mapping[str, np.ndarray]
    tokens: np.ndarray
    n_layers: np.ndarray

    def __len__(self) -> int:
        return len(self.n_layers)

    def take(self, rows: np.ndarray | Sequence[int]) -> Self:
        """Return the models at `rows`."""
        groups = {name: columns[rows] for name, columns in self.groups.items()}
        return replace(self, groups=groups, tokens=self.tokens[rows], n_layers=self.n_layers[rows])

    def with_groups(self, groups: Mapping[str, np.ndarray]) -> Self:
        """Return the same models with more features."""
        return replace(self, groups={**self.groups, **groups})

    @property
    def features(self) -> np.ndarray:
        """All groups side by side, `(n, n_features)`."""
        return np.concatenate(list(self.groups.values()), axis=1)


@dataclass(frozen=True)
class LatencyPrediction:
    """What a predictor says of some models.

    Attributes:
        mean_ms: `(n,)`.
        spread_ms: Standard deviation of a reading around it, `(n,)`.
    """

    mean_ms: np.ndarray
    spread_ms: np.ndarray

    @property
    def low_ms(self) -> np.ndarray:
        """Lower end of the interval that is to hold 90 % of the readings, at least 0."""
        return np.maximum(self.mean_ms - Z_90 * self.spread_ms, 0.0)

    @property
    def high_ms(self) -> np.ndarray:
        """Its upper end."""
        return self.mean_ms + Z_90 * self.spread_ms


class LatencyPredictor(ABC):
    """Learns latencies from measured models."""

    @abstractmethod
    def fit(self, encodings: Encodings, latencies_ms: np.ndarray) -> None:
        """Learn from models and their latencies, `(n,)`; equal arguments give an equal predictor.

        Raises:
            ValueError: If there are too few, or a latency is not positive and finite.
        """

    @abstractmethod
    def predict(self, encodings: Encodings) -> LatencyPrediction:
        """Predict models that need not have been measured; after `fit`."""

    def held_out(self) -> LatencyPrediction | None:
        """Return what is predicted of each model learnt from without its own reading, `None` if that takes a refit."""
        return None


def checked(encodings: Encodings, latencies_ms: np.ndarray, least: int = 3) -> np.ndarray:
    """Return `latencies_ms` as float64.

    Raises:
        ValueError: If they do not belong to `encodings`, are too few, or are no latencies.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    if latencies.shape != (len(encodings),):
        raise ValueError(
            f"latencies_ms must hold one number for each of {len(encodings)} models, got {latencies.shape}"
        )
    if len(latencies) < least:
        raise ValueError(f"latencies_ms must hold at least {least} readings, got {len(latencies)}")
    bad = np.flatnonzero(~(np.isfinite(latencies) & (latencies > 0)))
    if len(bad):
        raise ValueError(f"latencies_ms must be positive and finite, got {latencies[bad[0]]} for model {bad[0]}")
    return latencies
