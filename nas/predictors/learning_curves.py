"""The final score of a training, predicted from how its first epochs went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.predictors.base import Prediction

_PENALTIES = np.logspace(-3, 3, 13)
_LEAST_LOSS = 1e-6  # below which a loss counts as this: its logarithm is taken
_LEAST_SPREAD = 1e-9
_FADING = 0.9  # of a loss's weight in the fading training-speed estimate, for each epoch that it lies back


@dataclass(frozen=True)
class LearningCurve:
    """The first epochs of a training.

    Attributes:
        losses: The mean training loss of each epoch, finite.
        scores: Validation scores taken on the way, finite; may be none.
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses must hold at least one epoch's, got none")
        if not np.isfinite([*self.losses, *self.scores]).all():
            raise ValueError("losses and scores must be finite")


def training_speed(losses: Sequence[float], fading: float = 1.0) -> float:
    """Return the sum of an epoch's losses, later ones counting more where `fading` is below 1; small is fast.

    Source:
        Ru et al. 2021, arXiv:2006.04492: TSE, and TSE-EMA with `fading`.
    """
    weights = fading ** np.arange(len(losses) - 1, -1, -1)
    return float(weights @ np.asarray(losses))


class CurvePredictor:
    """A ridge regression of final scores on features of curves, its penalty chosen by leaving each curve out."""

    def fit(self, curves: Sequence[LearningCurve], finals: np.ndarray) -> None:
        """Learn from finished trainings; forgets what it was fitted to before.

        Args:
            curves: All of the same number of epochs and of scores, at least three.
            finals: `(n,)`: their final scores, finite.

        Raises:
            ValueError: If there are too few, or they are not alike.
        """
        if len(curves) < 3:
            raise ValueError(f"curves must be at least 3, got {len(curves)}")
        self._lengths = _lengths(curves)
        features = _features(curves)
        self._center = features.mean(axis=0)
        width = features.std(axis=0)
        self._width = np.where(width > 0, width, 1.0)
        matrix = (features - self._center) / self._width
        self._mean = float(np.mean(finals))
        residuals = [_left_out_residuals(matrix, finals - self._mean, penalty) for penalty in _PENALTIES]
        best = int(np.argmin([(residual**2).mean() for residual in residuals]))
        self._held_out = finals - residuals[best]
        self._spread = max(float(np.sqrt((residuals[best] ** 2).mean())), _LEAST_SPREAD)
        self._weights = _solve(matrix, finals - self._mean, _PENALTIES[best])

    def predict(self, curves: Sequence[LearningCurve]) -> Prediction:
        """Return what final scores it expects after `curves`, which must be as long as those that it was fitted to.

        Raises:
            ValueError: If they are not.
        """
        if _lengths(curves) != self._lengths:
            raise ValueError(f"curves must hold {self._lengths} losses and scores, as fitted, got {_lengths(curves)}")
        matrix = (_features(curves) - self._center) / self._width
        return Prediction(np.asarray(self._mean + matrix @ self._weights), np.full(len(curves), self._spread))

    def held_out(self) -> np.ndarray:
        """Return `(n,)`: for each curve that it was fitted to, what it expects without having seen its final score."""
        return np.array(self._held_out)


def _lengths(curves: Sequence[LearningCurve]) -> tuple[int, int]:
    lengths = {(len(curve.losses), len(curve.scores)) for curve in curves}
    if len(lengths) != 1:
        raise ValueError(f"curves must have equally many losses and equally many scores, got {sorted(lengths)}")
    return lengths.pop()


def _features(curves: Sequence[LearningCurve]) -> np.ndarray:
    """Return `(n, n_features)`: training speed, last loss, slope of the loss's logarithm, scores and their rise."""
    losses = np.log(np.maximum([curve.losses for curve in curves], _LEAST_LOSS))  # (n, n_epochs)
    epochs = np.arange(losses.shape[1]) - (losses.shape[1] - 1) / 2
    columns = [
        [np.log(max(training_speed(curve.losses), _LEAST_LOSS)) for curve in curves],
        [np.log(max(training_speed(curve.losses, _FADING), _LEAST_LOSS)) for curve in curves],
        losses[:, -1],
        losses @ epochs / max(float(epochs @ epochs), 1.0),
    ]
    scores = np.array([curve.scores for curve in curves]).reshape(len(curves), -1)
    return np.column_stack([*columns, scores, scores[:, 1:] - scores[:, :-1]])


def _solve(matrix: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.asarray(np.linalg.solve(matrix.T @ matrix + penalty * np.eye(matrix.shape[1]), matrix.T @ targets))


def _left_out_residuals(matrix: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Return `(n,)`: each target minus what a fit to all others expects, their mean included in the fit."""
    n = len(matrix)
    inverse = np.linalg.inv(matrix.T @ matrix + penalty * np.eye(matrix.shape[1]))
    leverage = np.einsum("ij,jk,ik->i", matrix, inverse, matrix) + 1 / n
    residuals = targets - matrix @ (inverse @ (matrix.T @ targets))
    return np.asarray(residuals / (1 - np.minimum(leverage, 1 - 1e-9)))
