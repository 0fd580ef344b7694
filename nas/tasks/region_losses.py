"""Terms that a segmentation's loss may have beside the cross-entropy: for small regions, and for edges."""

import torch
from torch.nn import functional as F

_BOUNDARY_WINDOW = 5  # pixels: the band reaches 2 to each side of an edge


def dice_loss(output: torch.Tensor, target: torch.Tensor, ignore_index: int | None) -> torch.Tensor:
    """Return 1 - the mean soft Dice coefficient of the classes that occur in a batch; 0 if none does.

    A class counts the same however few its pixels are. The coefficient is taken over the whole batch, since a
    small class is absent from many an image.

    Args:
        output: Logits `(B, n_classes, H, W)`.
        target: `(B, H, W)`, uint8 or int64.
        ignore_index: The target that does not count, if there is one.

    Source:
        Milletari, Navab, Ahmadi 2016, arXiv:1606.04797.
        Differs: probabilities are not squared in the denominator (Sudre et al. 2017, arXiv:1707.03237).
    """
    n_classes = output.shape[1]
    target = target.long()
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    hot = F.one_hot(target.masked_fill(~counted, n_classes), n_classes + 1)[..., :n_classes].movedim(-1, 1)
    probability = output.softmax(dim=1) * counted[:, None]
    places = (0, 2, 3)
    n_targets = hot.sum(dim=places)
    dice = 2 * (probability * hot).sum(dim=places) / (probability.sum(dim=places) + n_targets).clamp(min=1e-6)
    occurs = (n_targets > 0).to(dice.dtype)
    return ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1)


def near_boundary(target: torch.Tensor, n_classes: int, ignore_index: int | None) -> torch.Tensor:
    """Return which pixels have another class within 2 pixels, `(B, H, W)` bool; ignored ones are no class."""
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    classes = target.float()
    highest = _window_max(classes.masked_fill(ignored, -1.0))
    lowest = -_window_max(-classes.masked_fill(ignored, float(n_classes)))
    return (highest > lowest) & ~ignored


def _window_max(values: torch.Tensor) -> torch.Tensor:
    # max_pool2d pads with -inf, so that nothing lies beyond the image's edge.
    return F.max_pool2d(values[:, None], _BOUNDARY_WINDOW, stride=1, padding=_BOUNDARY_WINDOW // 2)[:, 0]
