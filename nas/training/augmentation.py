"""Varies the images of a batch on its device; masks and teacher outputs follow, classes of left and right swap."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch.nn import functional as F

from nas.tasks.base import Task
from nas.torch_tools import constant
from nas.values.bounds import check_bounds

_N_LEVELS = 256  # of a uint8 target


@dataclass(frozen=True)
class AugmentationDraw:
    """The random numbers of one batch, on the CPU.

    Attributes:
        is_flipped: `(n,)` bool: which images are mirrored.
        scale: `(n,)` float32: how much larger each is drawn.
        centre: `(n, 2)` float32, x and y: what comes to lie in the middle, where the image reaches from -1 to 1.
        colour: `(n, 3)` float32: the factors of brightness, contrast and saturation.
    """

    is_flipped: torch.Tensor
    scale: torch.Tensor
    centre: torch.Tensor
    colour: torch.Tensor


@dataclass(frozen=True)
class Augmentation:
    """How each batch of a training is varied.

    What comes from outside an image repeats its edge; in masks it is ignored, where the data has a value for
    that. Colours change in images only: a teacher's cached outputs are those of the true colours, and where an image is
    resampled by `scale` they are too. A live teacher (`distillation.teacher`) sees what the student sees.

    Attributes:
        flip: Whether half of the images, at random, are mirrored left to right. Classes that swap by it are the
            task's `flip_pairs`.
        scale: The least and the greatest factor by which an image is drawn larger (or smaller, below 1); a window
            of its old size is cut from it at random.
        shift: How far, at most, an image is moved to each side, as a share of that side; in whole pixels.
        brightness: Pixels are multiplied by 1 - brightness .. 1 + brightness.
        contrast: Likewise their distance to the image's mean.
        saturation: Likewise their distance to their own grey; grey images stay.
    """

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    shift: Annotated[float, Ge(0), Lt(1)] = 0.0
    brightness: Annotated[float, Ge(0), Lt(1)] = 0.0
    contrast: Annotated[float, Ge(0), Lt(1)] = 0.0
    saturation: Annotated[float, Ge(0), Lt(1)] = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two positive factors, the smaller first, got {list(self.scale)}")
        check_bounds(self)

    def check(self, task: Task) -> None:
        """Check that mirrored images get mirrored classes.

        Raises:
            ValueError: If images are mirrored while the names of two classes say left and right, and the task does
                not say that they swap; with what to write.
        """
        if self.flip and (pairs := task.missing_flip_pairs):
            text = ", ".join(f"[{left}, {right}]" for left, right in (*task.flip_pairs, *pairs))
            raise ValueError(
                f"flip would teach that {pairs[0][0]} is {pairs[0][1]}: "
                f"write task: {{kind: {task.kind}, flip_pairs: [{text}]}}, or leave flip out"
            )

    def draw(self, n: int, generator: torch.Generator) -> AugmentationDraw:
        """Return the random numbers for `n` images; as many are taken from `generator` whatever the options."""
        uniform = torch.rand(n, 9, generator=generator)
        low, high = self.scale
        scale = low + (high - low) * uniform[:, 1]
        freedom = (1 - 1 / scale).abs()[:, None]
        centre = freedom * _both_ways(uniform[:, 2:4]) + 2 * self.shift * _both_ways(uniform[:, 4:6])
        strength = torch.tensor([self.brightness, self.contrast, self.saturation])
        is_flipped = (uniform[:, 0] < 0.5) & self.flip
        return AugmentationDraw(is_flipped, scale, centre, 1 + strength * _both_ways(uniform[:, 6:9]))

    def apply(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        teacher_logits: torch.Tensor | None,
        draw: AugmentationDraw,
        task: Task,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return a batch, varied; types, shapes and device stay, the arguments are not modified.

        Args:
            images: `(B, C, H, W)` uint8.
            targets: `(B,)` or `(B, H, W)`, uint8 or int64.
            teacher_logits: `(B, K)` or `(B, K, h, w)`, floating; `None` for no teacher.
            draw: Of this many images.
            task: Says which classes swap, and which target is ignored.
        """
        if self.flip:
            images, targets, teacher_logits = _mirrored(images, targets, teacher_logits, draw.is_flipped, task)
        if self.scale != (1.0, 1.0) or self.shift:
            images, targets, teacher_logits = _moved(images, targets, teacher_logits, draw, task.ignore_index)
        if self.brightness or self.contrast or self.saturation:
            images = _coloured(images, draw.colour.to(images.device, non_blocking=True))
        return images, targets, teacher_logits


def _both_ways(uniform: torch.Tensor) -> torch.Tensor:
    """Return numbers in 0 .. 1 as numbers in -1 .. 1."""
    return 2 * uniform - 1


def _mirrored(
    images: torch.Tensor,
    targets: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    is_flipped: torch.Tensor,
    task: Task,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    is_flipped = is_flipped.to(images.device, non_blocking=True)
    # A permutation of all values that a target may have, so that an ignored one stays without a look at it.
    others = range(len(task.flip_order), _N_LEVELS)
    swapped = constant((*task.flip_order, *others), images.device, torch.int64)

    def choose(flipped: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return torch.where(is_flipped.view(-1, *[1] * (kept.ndim - 1)), flipped, kept)

    images = choose(images.flip(-1), images)
    mask = targets.flip(-1) if targets.ndim > 1 else targets
    targets = choose(swapped.to(targets.dtype)[mask.long()], targets)
    if teacher_logits is not None:
        logits = teacher_logits.flip(-1) if teacher_logits.ndim > 2 else teacher_logits
        teacher_logits = choose(logits[:, swapped[: logits.shape[1]]], teacher_logits)
    return images, targets, teacher_logits


def _moved(
    images: torch.Tensor,
    targets: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    draw: AugmentationDraw,
    ignore_index: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    height, width = images.shape[-2:]
    # Whole pixels, so that an image that is only moved is not blurred.
    half = torch.tensor([width / 2, height / 2])
    centre = (draw.centre * half).round() / half
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / draw.scale
    theta[:, :, 2] = centre
    theta = theta.to(images.device, non_blocking=True)

    grid = _grid(theta, images)
    images = _sampled(images, grid, "bilinear").round().to(torch.uint8)
    if targets.ndim > 1:
        moved = _sampled(targets[:, None], grid, "nearest")[:, 0].to(targets.dtype)
        if ignore_index is not None:
            moved = moved.masked_fill((grid.abs() > 1).any(dim=-1), ignore_index)
        targets = moved
    if teacher_logits is not None and teacher_logits.ndim > 2:
        logits = _sampled(teacher_logits, _grid(theta, teacher_logits), "bilinear")
        teacher_logits = logits.to(teacher_logits.dtype)
    return images, targets, teacher_logits


def _grid(theta: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.affine_grid(theta, list(like.shape), align_corners=False)


def _sampled(values: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return F.grid_sample(values.float(), grid, mode=mode, padding_mode="border", align_corners=False)


def _coloured(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(dim=1)
    pixels = images.float() * brightness
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = mean + contrast * (pixels - mean)
    grey = pixels.mean(dim=1, keepdim=True)
    return (grey + saturation * (pixels - grey)).clamp(0, 255).round().to(torch.uint8)
