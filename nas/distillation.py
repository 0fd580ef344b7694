"""Knowledge distillation: the student also learns from what the teacher says of each image or pixel."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F


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
    if weights is None:
        return divergence.mean() * temperature**2
    total = weights.sum()
    return (divergence * weights).sum() / torch.where(total > 0, total, 1.0) * temperature**2


DISTILLATION_LOSSES = {"kl": kl_divergence}


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher: loss = task loss + weight x distillation loss.

    Attributes:
        loss: A name in `DISTILLATION_LOSSES`.
        weight: Factor of the distillation term.
        temperature: Softens the teacher's outputs; 1 leaves them as they are.
    """

    loss: Literal["kl"] = "kl"
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight must be at least 0, got {self.weight}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def term(self, student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Return the weighted distillation term of a batch; arguments as for `kl_divergence`."""
        return self.weight * DISTILLATION_LOSSES[self.loss](student, teacher, self.temperature, weights)
