"""Checks, before anything is trained, that batch normalisation never sees a single value."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.errors import InputError


def check_batches_of_one(networks: Iterable[tuple[str, nn.Module]], image_shape: Sequence[int]) -> None:
    """Check that no batch normalisation is trained on a single value: one image, of which it sees one pixel.

    Args:
        networks: Those that are trained on batches of one image, each with the section that says so.
        image_shape: `(C, H, W)`.

    Raises:
        InputError: If one is.
    """
    for key, network in networks:
        if _fewest_values(network, image_shape) < 2:
            size = " x ".join(map(str, image_shape[1:]))
            raise InputError(
                f"{key}.batch_size must be at least 2 for images of {size}, got 1: a {type(network).__name__} would "
                "normalise features of 1 x 1 by a single value"
            )


@torch.inference_mode()
def _fewest_values(network: nn.Module, image_shape: Sequence[int]) -> int:
    """Return how many values of a channel the batch normalisation that sees fewest sees of one image."""
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    network.eval()(torch.zeros(1, *image_shape))
    return min(seen, default=2)
