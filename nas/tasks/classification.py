"""One class for each image."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Lt

from nas.tasks.base import Scorer, Task
from nas.tasks.confusion import ConfusionMatrix, counted_cross_entropy
from nas.tasks.mirroring import FlipPairs
from nas.values.bounds import bounded
from nas.values.metrics import CLASSIFICATION_SCORES


class Classification(Task):
    """Logits `(B, n_classes)` against class indices `(B,)`.

    Metrics: `accuracy`, the share of images whose largest logit is their class's.

    Args:
        class_names: In order of their index.
        ignore_index: The target of images that do not count, if there is one.
        label_smoothing: The share of each target that the loss spreads over all classes.
        flip_pairs: Classes that become each other in a mirrored image, two by two.

    Raises:
        ValueError: If an option cannot be.
    """

    kind = "classification"
    is_dense = False
    scores = CLASSIFICATION_SCORES
    main_metric = "accuracy"

    @bounded
    def __init__(
        self,
        class_names: Sequence[str],
        ignore_index: int | None = None,
        *,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        flip_pairs: FlipPairs = (),
    ) -> None:
        super().__init__(class_names, ignore_index, flip_pairs)
        self._n_classes = len(class_names)
        self._label_smoothing = label_smoothing

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy over the images that count; 0 if none does."""
        return counted_cross_entropy(output, target, self.ignore_index, label_smoothing=self._label_smoothing)

    def new_scorer(self) -> Scorer:
        """Return an empty scorer."""
        return _AccuracyScorer(self._n_classes, self.ignore_index)

    def chance_level(self, metric: str) -> float:
        """Return `1 / n_classes`: what guessing reaches, and what one constant answer does on equal classes.

        Raises:
            KeyError: If the task has no such metric.
        """
        if metric != self.main_metric:
            raise KeyError(metric)
        return 1 / self._n_classes


class _AccuracyScorer(Scorer):
    def __init__(self, n_classes: int, ignore_index: int | None) -> None:
        self._confusion = ConfusionMatrix(n_classes, ignore_index)

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self._confusion.update(output, target)

    def compute(self) -> dict[str, float]:
        counts = self._confusion.counts()
        return {"accuracy": float(counts.trace() / counts.sum())}
