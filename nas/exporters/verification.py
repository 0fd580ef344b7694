"""Whether an exported network computes what torch does; a file that does not is not kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from nas.errors import ExportError
from nas.exporters.product import Product, Run

TOLERANCE = 1e-4
"""Of logits, relative to `max(1, largest absolute logit)`."""
LEAST_AGREEMENT = 0.9999
"""The share of images or pixels whose class must be torch's."""


@dataclass(frozen=True)
class Comparison:
    """What was compared, and how well it agreed.

    Attributes:
        images: Which.
        batch_size: Of each call.
        image_size: Height and width in pixels.
        max_difference: Of logits, relative to `max(1, largest absolute logit)`.
        agreement: The share of images, or pixels, of the same class.
    """

    images: str
    batch_size: int
    image_size: tuple[int, int]
    max_difference: float
    agreement: float

    def __str__(self) -> str:
        height, width = self.image_size
        return (
            f"{self.images} of {height} x {width}, {self.batch_size} at a time: largest difference "
            f"{self.max_difference:.1e}, same class {self.agreement:.2%}"
        )


def compare(
    product: Product, run: Run, *, sizes: Sequence[tuple[int, int]] = (), is_exact: bool = True
) -> tuple[Comparison, ...]:
    """Compare a network in some runtime with torch, one image at a time and all at once.

    Args:
        product: The network.
        run: The exported one.
        sizes: Heights and widths to compare at beside the network's own.
        is_exact: Whether it must agree; quantised networks are only told of.

    Raises:
        ExportError: If it does not agree.
    """
    images, what = product.images()
    compared = []
    for size in (product.signature.image_size, *sizes):
        of_size = _resized(images, size)
        expected = product.run(of_size)
        for batch_size in (1, len(images)):
            found = np.concatenate([run(part) for part in np.split(of_size, len(images) // batch_size)])
            compared.append(_comparison(expected, found, what, batch_size, size))
    if is_exact:
        _check(compared)
    return tuple(compared)


def _check(compared: Sequence[Comparison]) -> None:
    for one in compared:
        if not (one.max_difference <= TOLERANCE and one.agreement >= LEAST_AGREEMENT):
            raise ExportError(
                f"the exported network does not compute what torch does: {one}; at most {TOLERANCE:g} and at least "
                f"{LEAST_AGREEMENT:.2%} are allowed"
            )


def _comparison(
    expected: np.ndarray, found: np.ndarray, what: str, batch_size: int, size: tuple[int, int]
) -> Comparison:
    if found.shape != expected.shape:
        raise ExportError(f"the exported network returns shape {found.shape} where torch returns {expected.shape}")
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max()) / scale
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return Comparison(what, batch_size, size, difference, agreement)


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if images.shape[-2:] == size:
        return images
    resized = functional.interpolate(torch.from_numpy(images), size, mode="bilinear", antialias=True)
    return resized.numpy()
