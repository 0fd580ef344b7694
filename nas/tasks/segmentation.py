"""One class for each pixel."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le

from nas.tasks.base import Scorer, Task
from nas.tasks.confusion import ConfusionMatrix, counted_cross_entropy
from nas.tasks.mirroring import FlipPairs
from nas.tasks.region_losses import dice_loss, near_boundary
from nas.torch_tools import constant
from nas.values.bounds import bounded
from nas.values.metrics import CLASS_METRICS, SEGMENTATION_SCORES

_GEOMETRIC_MEAN_OF = ("mean_iou", "mean_accuracy", "frequency_weighted_iou")


class Segmentation(Task):
    """Logits `(B, n_classes, H, W)` against a class for each pixel `(B, H, W)`.

    From one confusion matrix over all pixels that count, with TP, FP and FN of each class:

    - `iou[NAME]`: TP / (TP + FP + FN).
    - `f1[NAME]`: 2 TP / (2 TP + FP + FN), also called Dice.
    - `mean_iou`, `mean_f1`: means over the classes that occur in the targets or the predictions.
    - `mean_accuracy`: mean of TP / (TP + FN) over the classes that occur in the targets.
    - `frequency_weighted_iou`: mean of the IoU, weighted by the classes' pixels in the targets.
    - `geometric_mean_score`: cube root of mean_iou x mean_accuracy x frequency_weighted_iou; what segmentation
      search rewards: no single one of the three can be bought with another.

    A metric without a value is left out of the scores, never 0 or 1: those of a class that occurs in neither
    targets nor predictions, and a mean over no class.

    Args:
        class_names: In order of their index.
        ignore_index: The target of pixels that do not count, if there is one.
        include_background: Whether the means take the background in. Its own metrics stay either way.
        background: The background's name; looked at only if it is not included.
        class_weights: How much a pixel of each class counts in the loss, in order of `class_names`; scores do not
            change. Raises what networks reach on small classes in short trainings. `None` for equally.
        dice_weight: Factor of the Dice term that is added to the cross-entropy: all classes of a batch count alike.
        boundary_weight: Factor of the boundary term that is added: the cross-entropy over pixels with another
            class within 2 pixels alone.
        flip_pairs: Classes that become each other in a mirrored image, two by two, e.g. left and right eye.

    Raises:
        ValueError: If an option cannot be.

    Source:
        The boundary term: the weights of Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, equation 2; here a band
        of fixed width at every border of two classes, averaged on its own.

        Nekrasov et al. 2019, arXiv:1810.10804, for the geometric mean.

        Long, Shelhamer, Darrell 2015, arXiv:1411.4038, section 5.
        Differs: a class that is predicted but is not in the targets counts in the mean IoU, as 0.
    """

    kind = "segmentation"
    is_dense = True
    scores = SEGMENTATION_SCORES
    class_scores = CLASS_METRICS
    main_metric = "mean_iou"

    @bounded
    def __init__(
        self,
        class_names: Sequence[str],
        ignore_index: int | None = None,
        *,
        include_background: bool = True,
        background: str = "background",
        class_weights: tuple[float, ...] | None = None,
        dice_weight: Annotated[float, Ge(0), Le(1e6)] = 0.0,
        boundary_weight: Annotated[float, Ge(0), Le(1e6)] = 0.0,
        flip_pairs: FlipPairs = (),
    ) -> None:
        super().__init__(class_names, ignore_index, flip_pairs)
        if not include_background and background not in class_names:
            raise ValueError(f"background must be one of the classes {list(class_names)}, got {background!r}")
        if class_weights is not None:
            if len(class_weights) != len(class_names):
                raise ValueError(
                    f"class_weights must be {len(class_names)} numbers, one for each of {list(class_names)}, "
                    f"got {len(class_weights)}"
                )
            if min(class_weights) <= 0:
                raise ValueError(f"class_weights must be positive, got {list(class_weights)}")
        self._dice_weight = dice_weight
        self._boundary_weight = boundary_weight
        self._class_weights = class_weights
        self._is_counted = np.array([include_background or name != background for name in class_names])

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy over the pixels that count, by class weight, and the terms asked for.

        A term over pixels or classes of which there are none is 0.
        """
        total = self._cross_entropy(output, target)
        if self._dice_weight:
            total = total + self._dice_weight * dice_loss(output, target, self.ignore_index)
        if self._boundary_weight:
            is_near = near_boundary(target, len(self.class_names), self.ignore_index)
            total = total + self._boundary_weight * self._cross_entropy(output, target, is_near)
        return total

    def _cross_entropy(
        self, output: torch.Tensor, target: torch.Tensor, is_counted: torch.Tensor | None = None
    ) -> torch.Tensor:
        weights = None if self._class_weights is None else constant(self._class_weights, output.device, output.dtype)
        return counted_cross_entropy(output, target, self.ignore_index, class_weights=weights, is_counted=is_counted)

    def target_weights(self, target: torch.Tensor) -> torch.Tensor | None:
        """Return the class weight of each pixel of `target`, 0 where it is ignored."""
        if self._class_weights is None and self.ignore_index is None:
            return None
        weights = constant(self._class_weights or (1.0,) * len(self.class_names), target.device, torch.float32)
        ignored = target == self.ignore_index if self.ignore_index is not None else torch.zeros_like(target).bool()
        return weights[target.long().masked_fill(ignored, 0)].masked_fill(ignored, 0.0)

    def new_scorer(self) -> Scorer:
        """Return an empty scorer."""
        return _RegionScorer(self.class_names, self.ignore_index, self._is_counted)

    def chance_level(self, metric: str) -> float:
        """Return what the same answer at every pixel reaches, with n classes in the means.

        - `mean_iou`, `mean_f1`, `mean_accuracy`: 1 / n. Where all classes occur, no constant answer is above
          it: every class but one scores 0, and that one 1 at most.
        - `iou[NAME]`, `f1[NAME]`, `frequency_weighted_iou`: the values for classes of equal frequency, 1 / N,
          2 / (N + 1) and 1 / N**2 of all N classes, since the frequencies are not known here.
        - `geometric_mean_score`: the geometric mean of the three chance levels.

        Raises:
            KeyError: If the task has no such metric.
        """
        if metric not in self.metrics:
            raise KeyError(metric)
        if metric == "geometric_mean_score":
            return _geometric_mean([self.chance_level(name) for name in _GEOMETRIC_MEAN_OF])
        n_classes = len(self.class_names)
        if metric == "frequency_weighted_iou":
            return 1 / n_classes**2
        if metric in self.scores:
            return 1 / int(self._is_counted.sum())
        return 1 / n_classes if metric.startswith("iou") else 2 / (n_classes + 1)


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.prod(values) ** (1 / len(values)))


class _RegionScorer(Scorer):
    def __init__(self, class_names: tuple[str, ...], ignore_index: int | None, is_counted: np.ndarray) -> None:
        self._class_names = class_names
        self._is_counted = is_counted
        self._confusion = ConfusionMatrix(len(class_names), ignore_index)

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self._confusion.update(output, target)

    def compute(self) -> dict[str, float]:
        counts = self._confusion.counts()
        right, n_targets, n_predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        n_union = n_targets + n_predicted - right
        iou = right / np.maximum(n_union, 1)
        f1 = 2 * right / np.maximum(n_targets + n_predicted, 1)
        recall = right / np.maximum(n_targets, 1)
        occurs = n_union > 0
        in_means = occurs & self._is_counted
        in_targets = (n_targets > 0) & self._is_counted
        scores: dict[str, float] = {}
        if in_means.any():
            scores["mean_iou"] = float(iou[in_means].mean())
            scores["mean_f1"] = float(f1[in_means].mean())
        if in_targets.any():
            scores["mean_accuracy"] = float(recall[in_targets].mean())
            weights = n_targets[in_targets]
            scores["frequency_weighted_iou"] = float(np.average(iou[in_targets], weights=weights))
        if all(name in scores for name in _GEOMETRIC_MEAN_OF):
            scores["geometric_mean_score"] = _geometric_mean([scores[name] for name in _GEOMETRIC_MEAN_OF])
        for metric, values in (("iou", iou), ("f1", f1)):
            names = zip(self._class_names, values, occurs, strict=True)
            scores |= {f"{metric}[{name}]": float(value) for name, value, is_there in names if is_there}
        return scores
