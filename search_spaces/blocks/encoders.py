"""Encoders: an image to features at strides 4, 8, 16 and 32."""

from typing import cast

import torch
from torch import nn

ENCODER_STRIDES = (4, 8, 16, 32)


def encoder_channels(width: int) -> tuple[int, ...]:
    """Return the channels at strides 4, 8, 16 and 32: 1, 1.5, 2.5 and 5 times `width`."""
    return (width, width * 3 // 2, width * 5 // 2, width * 5)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 expansion, depthwise 3x3, linear 1x1 projection, and a residual if it fits.

    Source:
        Sandler et al. 2018, arXiv:1801.04381.
        Differs: ReLU in place of ReLU6, whose ceiling serves low-precision arithmetic.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, ceil(H / stride), ceil(W / stride))`."""
        y = cast(torch.Tensor, self.layers(x))
        return x + y if self.has_residual else y


class MobileEncoder(nn.Module):
    """A small MobileNetV2 of up to four stages.

    Args:
        in_channels: Of an image.
        width: Channels at stride 4.
        n_stages: How many are built; weights of the first ones do not depend on it.

    Attributes:
        channels: Of the features, those of stages that are not built too.
    """

    def __init__(self, in_channels: int, width: int, n_stages: int = len(ENCODER_STRIDES)) -> None:
        super().__init__()
        self.channels = encoder_channels(width)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        # The first block works at stride 2, where an expansion costs most.
        self.stages = nn.ModuleList(
            [
                _stage(width, self.channels[0], n_blocks=2, first_expansion=2),
                _stage(self.channels[0], self.channels[1], n_blocks=2),
                _stage(self.channels[1], self.channels[2], n_blocks=2),
                _stage(self.channels[2], self.channels[3], n_blocks=3),
            ][:n_stages]
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of `(B, in_channels, H, W)`: `(B, channels[i], ceil(H / 4), ...)` and so on."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _stage(in_channels: int, out_channels: int, *, n_blocks: int, first_expansion: int = 4) -> nn.Sequential:
    first = InvertedResidual(in_channels, out_channels, stride=2, expansion=first_expansion)
    others = (InvertedResidual(out_channels, out_channels, stride=1, expansion=4) for _ in range(n_blocks - 1))
    return nn.Sequential(first, *others)
