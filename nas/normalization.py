"""From pixels to what networks are given."""

from dataclasses import dataclass

import torch

from nas.constants import constant


@dataclass(frozen=True)
class Normalization:
    """Maps uint8 pixels to what networks are trained on: (pixel / 255 - mean) / std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: torch.Tensor) -> "Normalization":
        """Return the statistics of `images`, `(n, C, H, W)` uint8; a constant channel gets a std of 1."""
        n_channels = images.shape[1]
        pixels = images.numel() // n_channels
        mean, std = [], []
        for channel in range(n_channels):
            counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
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
