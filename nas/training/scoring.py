"""Runs a trained network over images: its logits, and the scores of a task."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.errors import EvaluationError
from nas.tasks.base import Task
from nas.training.layout import lay_out

_N_SCORED_AT_A_TIME = 64  # images, at least


_GPU_PIXELS_AT_A_TIME = 2**22  # of a scored batch's images: 1,024 of 64 x 64; small batches leave a GPU waiting


def scoring_batch_size(device: torch.device | str, n_pixels: int) -> int:
    """Return how many images of `n_pixels` each to run through a network at once, when nothing is learned."""
    fitting = _GPU_PIXELS_AT_A_TIME // n_pixels if torch.device(device).type == "cuda" else 0
    return max(_N_SCORED_AT_A_TIME, fitting)


@torch.inference_mode()
def predict(
    model: nn.Module,
    images: torch.Tensor,
    normalization: Normalization,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> Iterator[torch.Tensor]:
    """Yield the logits of `images`, `(n, C, H, W)` uint8, in order, batch by batch, on `device`.

    Batches are of `scoring_batch_size` where it is not given.

    Raises:
        ValueError: If `model` is in train mode.
    """
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval()")
    lay_out(model, device)
    batch_size = batch_size or scoring_batch_size(device, images.shape[-2] * images.shape[-1])
    for start in range(0, len(images), batch_size):
        yield model(normalization(images[start : start + batch_size].to(device)))


def score(
    model: nn.Module,
    task: Task,
    examples: Examples | Iterable[Examples],
    normalization: Normalization,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> dict[str, float]:
    """Return every metric of `task` over all `examples`, which may come in parts.

    Raises:
        EvaluationError: If an output is not finite.
        ValueError: If `model` is in train mode.
    """
    scorer = task.new_scorer()
    finite = torch.ones((), dtype=torch.bool, device=device)
    for part in [examples] if isinstance(examples, Examples) else examples:
        start = 0
        for output in predict(model, part.images, normalization, device=device, batch_size=batch_size):
            finite &= output.isfinite().all()
            scorer.update(output, part.targets[start : start + len(output)].to(device))
            start += len(output)
    if not finite:
        raise EvaluationError("the trained network gives outputs that are NaN or infinite")
    return scorer.compute()
