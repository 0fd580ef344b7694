"""From pixels to what networks are given."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from nas.torch_tools import constant

_N_AT_A_TIME = 256  # images in memory


@dataclass(frozen=True)
class Normalization:
    """Maps uint8 pixels to what networks are trained on: (pixel / 255 - mean) / std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_values(cls, mean: Iterable[float], std: Iterable[float]) -> "Normalization":
        """Return the normalisation of these values, such as a run stores."""
        return cls(tuple(mean), tuple(std))

    @classmethod
    def of(cls, images: torch.Tensor) -> "Normalization":
        """Return the statistics of `images`, `(n, C, H, W)` uint8; a constant channel gets a std of 1."""
        return cls.of_parts(torch.split(images, _N_AT_A_TIME))

    @classmethod
    def of_parts(cls, parts: Iterable[torch.Tensor]) -> "Normalization":
        """Return the statistics of images that come in parts, exactly those of all together."""
        totals = sum(_counts(part) for part in parts)
        assert isinstance(totals, torch.Tensor)  # noqa: S101 - no split is empty
        mean, std = [], []
        for counts in totals.double():
            pixels = float(counts.sum())
            values = torch.arange(256, dtype=torch.float64) / 255
            m = float((counts * values).sum() / pixels)
            variance = float((counts * (values - m) ** 2).sum() / pixels)
            mean.append(m)
            std.append(variance**0.5 or 1.0)
        return cls(tuple(mean), tuple(std))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return `images`, `(B, C, H, W)` uint8, normalised to float32, channels last, on the same device.

        Both CPUs and GPUs run convolutions faster on channels that come last.
        """
        mean, std = (
            constant(values, images.device, torch.float32).view(1, -1, 1, 1) for values in (self.mean, self.std)
        )
        return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _counts(images: torch.Tensor) -> torch.Tensor:
    """Return how often each value is in each channel, `(C, 256)` int64."""
    channels = (images[:, channel].flatten() for channel in range(images.shape[1]))
    return torch.stack([torch.bincount(values, minlength=256) for values in channels])
