"""What is known of other devices, as features of a model: the prior of a new device."""

from collections.abc import Mapping

import numpy as np

from latency.predictors.base import Encodings, LatencyPredictor

_N_DIRECTIONS = 4  # in which devices are let to differ beyond their mean


class KnownDevices:
    """Devices whose models were measured, and what they say together of any model.

    What a fitted predictor of each device says is standardised. Their mean is one group of features, `devices.mean`;
    the directions in which they differ most are others, `devices.1` and so on. A Gaussian process gives each group an
    amplitude: devices that have nothing to do with the new one get a small one.

    Args:
        predictors: Fitted, by the name of the device.
        reference: Models of the space, whose predictions give scale and directions.

    Source:
        The directions are principal components, as Lee et al. 2021 (HELP, arXiv:2106.08630) represent a device by its
        latencies of reference models.
    """

    def __init__(self, predictors: Mapping[str, LatencyPredictor], reference: Encodings) -> None:
        if not predictors:
            raise ValueError("predictors must hold one device at least, got none")
        self._predictors = dict(predictors)
        said = self._said(reference)
        self._centers, self._widths = said.mean(axis=0), said.std(axis=0)
        standard = self._standard(said)
        self._directions = np.linalg.svd(standard - standard.mean(axis=1, keepdims=True), full_matrices=False)[2]

    def features(self, encodings: Encodings) -> dict[str, np.ndarray]:
        """Return the groups of features, `(n, 1)` each."""
        standard = self._standard(self._said(encodings))
        mean = standard.mean(axis=1, keepdims=True)
        n = min(_N_DIRECTIONS, len(self._predictors) - 1)
        scores = (standard - mean) @ self._directions[:n].T
        return {"devices.mean": mean} | {f"devices.{k + 1}": scores[:, k : k + 1] for k in range(n)}

    def extended(self, encodings: Encodings) -> Encodings:
        """Return the same models with these features beside their own."""
        return encodings.with_groups(self.features(encodings))

    def _said(self, encodings: Encodings) -> np.ndarray:
        return np.stack([predictor.predict(encodings).mean_ms for predictor in self._predictors.values()], axis=1)

    def _standard(self, said: np.ndarray) -> np.ndarray:
        standard: np.ndarray = (said - self._centers) / np.where(self._widths > 0, self._widths, 1.0)
        return standard
