"""What both tasks share: the confusion matrix, and the loss over what counts."""

import numpy as np
import torch
from torch.nn import functional as F

from nas.errors import EvaluationError

_TORCH_IGNORES = -100  # cross_entropy's own default; no target has it


class ConfusionMatrix:
    """Counts how often each class was taken for each other, on the outputs' device, without waiting for it.

    Args:
        n_classes: Number of classes.
        ignore_index: The target that does not count, if there is one.
    """

    def __init__(self, n_classes: int, ignore_index: int | None) -> None:
        self._n_classes = n_classes
        self._ignore_index = ignore_index
        # One bin for each pair, one for ignored targets, one for targets that are no class. Counting the
        # last two instead of selecting the rest keeps shapes fixed, so a GPU is never waited for.
        self._bins: torch.Tensor | None = None
        self._n_nan: torch.Tensor | None = None

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        """Add logits `(B, n_classes, ...)` and targets `(B, ...)`, uint8 or int64."""
        n = self._n_classes
        if self._bins is None or self._n_nan is None:
            self._bins = torch.zeros(n * n + 2, dtype=torch.int64, device=output.device)
            self._n_nan = torch.zeros((), dtype=torch.int64, device=output.device)
        top, predicted = output.detach().max(dim=1)
        target = target.long()
        index = target * n + predicted
        index.masked_fill_((target < 0) | (target >= n), n * n + 1)
        if self._ignore_index is not None:
            index.masked_fill_(target == self._ignore_index, n * n)
        index = index.flatten()
        self._bins.scatter_add_(0, index, torch.ones_like(index))
        self._n_nan += top.isnan().sum()

    def counts(self) -> np.ndarray:
        """Return `(n_classes, n_classes)` int64: rows are targets, columns predictions.

        Raises:
            ValueError: If nothing was added that counts, or a target is no class.
            EvaluationError: If an output was NaN.
        """
        n = self._n_classes
        if self._bins is None or self._n_nan is None:
            raise ValueError("nothing was added")
        bins = self._bins.cpu().numpy()
        if bins[-1]:
            raise ValueError(f"{bins[-1]} targets are no class: must be 0 .. {n - 1}")
        if n_nan := int(self._n_nan):
            raise EvaluationError(f"the network's output is NaN at {n_nan} places")
        if not bins[:-2].any():
            raise ValueError("nothing was added that counts: every target is ignored")
        return bins[:-2].reshape(n, n)


def counted_cross_entropy(
    output: torch.Tensor,
    target: torch.Tensor,
    ignore_index: int | None,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
    is_counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean cross-entropy over the targets that count; 0 (with zero gradients) if none does.

    Args:
        output: Logits `(B, n_classes, ...)`.
        target: `(B, ...)`, uint8 or int64.
        ignore_index: The target that does not count, if there is one.
        label_smoothing: The share of each target that is spread over all classes.
        class_weights: `(n_classes,)`: how much a target of each class counts in the mean; `None` for equally.
        is_counted: `(B, ...)` bool: leaves out targets beside the ignored; `None` for none.
    """
    ignored = _TORCH_IGNORES if ignore_index is None else ignore_index
    target = target.long()
    if is_counted is not None:
        target = target.masked_fill(~is_counted, ignored)
    total = F.cross_entropy(
        output,
        target,
        weight=class_weights,
        ignore_index=ignored,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    counts = target != ignored
    if class_weights is None:
        return total / counts.sum().clamp(min=1)
    weight = class_weights[target.masked_fill(~counts, 0)].masked_fill(~counts, 0.0).sum()
    return total / torch.where(weight > 0, weight, torch.ones_like(weight))
