"""Knowledge distillation: the student also learns from what the teacher says of each image or pixel."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch.nn import functional as F

from nas.values.bounds import check_bounds

_NOWHERE = -1e6  # a logit whose share is 0 beside any other, while a channel of nothing else stays finite


def kl_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return KL(teacher || student) of softened outputs, times the temperature squared.

    Args:
        student: Logits, `(B, K)` or `(B, K, H, W)`.
        teacher: Logits of the same shape; any floating type.
        temperature: Divides both logits before the softmax.
        weights: `(B,)` or `(B, H, W)`: how much each image or pixel counts in the mean; `None` for equally.

    Returns:
        A scalar: the sum over classes, averaged over images, or over pixels for segmentation, so that the
        term stays comparable with a cross-entropy whatever the image size; 0 if nothing counts.

    Source:
        Hinton, Vinyals, Dean 2015, arXiv:1503.02531: soft targets scaled by the temperature squared.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.to(student.dtype) / temperature, dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    return _weighted_mean(divergence, weights) * temperature**2


def squared_error(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean squared difference of logits; arguments as for `kl_divergence`.

    The temperature has no part in it.

    Source:
        Ba, Caruana 2014, arXiv:1312.6184, equation 1.
        Differs: a mean over classes, not a half of their sum.
    """
    return _weighted_mean((student - teacher.to(student.dtype)).square().mean(dim=1), weights)


def channel_wise_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return KL(teacher || student) of where each class is, times the temperature squared.

    Each channel of the logits becomes a distribution over the image's pixels: small classes count as much as
    large ones. The mean is over images and classes.

    Args:
        student: Logits, `(B, K, H, W)`.
        teacher: Logits of the same shape; any floating type.
        temperature: Divides both logits before the softmax.
        weights: `(B, H, W)`: pixels of weight 0 are left out; how large others are has no part in it. `None` for
            all pixels.

    Raises:
        ValueError: If the logits are not of pixels.

    Source:
        Shu et al. 2021, arXiv:2011.13256, equations 4 and 5.
    """
    if student.ndim != 4:
        raise ValueError(f"channel_wise needs logits of pixels, (B, K, H, W), got {tuple(student.shape)}")
    if weights is not None:
        left_out = (weights == 0)[:, None]
        student, teacher = (logits.float().masked_fill(left_out, _NOWHERE) for logits in (student, teacher))
    log_student = F.log_softmax(student.flatten(2) / temperature, dim=2)
    log_teacher = F.log_softmax(teacher.to(student.dtype).flatten(2) / temperature, dim=2)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=2)
    return divergence.mean() * temperature**2


def _weighted_mean(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    if weights is None:
        return values.mean()
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1.0)


DISTILLATION_LOSSES = {"kl": kl_divergence, "mse": squared_error, "channel_wise": channel_wise_divergence}


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher: loss = task loss + weight x distillation loss.

    Attributes:
        loss: A name in `DISTILLATION_LOSSES`; `channel_wise` is for segmentation alone.
        weight: Factor of the distillation term.
        temperature: Softens the teacher's outputs; 1 leaves them as they are, and `mse` always does.
        teacher: `cached`: its outputs for the training images are stored once and follow an augmentation as well as
            outputs can: not its colours, and an image that is scaled or moved is resampled, not asked about again.
            `live`: it runs on every batch as augmented. On stored features the cached outputs are those of the very
            views, and are taken always.
    """

    loss: Literal["kl", "mse", "channel_wise"] = "kl"
    weight: Annotated[float, Ge(0), Le(1e6)] = 0.5
    temperature: Annotated[float, Gt(0), Le(1000)] = 2.0
    teacher: Literal["cached", "live"] = "cached"

    def __post_init__(self) -> None:
        check_bounds(self)

    def term(self, student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return the weighted distillation term of a batch; arguments as for `kl_divergence`."""
        return self.weight * DISTILLATION_LOSSES[self.loss](student, teacher, self.temperature, weights)
