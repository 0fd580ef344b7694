"""The operations that cells choose from. Each keeps the number of channels and the resolution.

Convolutions are ReLU-Conv-BN, the order of NASNet, DARTS and NAS-Bench-201: a sum of their outputs is
then not rectified before the next operation sees it.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


class ReluConvBn(nn.Sequential):
    """ReLU, convolution, batch normalisation; the resolution is divided by `stride`, rounding up."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class SeparableConv(nn.Sequential):
    """ReLU, depthwise convolution at a dilation rate, pointwise convolution, batch normalisation."""

    def __init__(self, channels: int, kernel_size: int, *, dilation: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                channels,
                channels,
                kernel_size,
                padding=dilation * (kernel_size // 2),
                dilation=dilation,
                groups=channels,
                bias=False,
            ),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate between 0 and 1 that is computed from the means of all channels.

    Source:
        Hu et al. 2018, arXiv:1709.01507, with a reduction of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return x * cast(torch.Tensor, self.gate(x))


class GlobalAveragePool(nn.Sequential):
    """The mean of each channel and a 1x1 convolution: `(B, C, H, W)` to `(B, C, 1, 1)`.

    The only operation that gives up the resolution; who uses it resizes. It has no batch normalisation:
    one value for each channel and image is too few for it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))


class LearnedUpsampling(nn.ConvTranspose2d):
    """Doubles the resolution by a 4x4 transposed convolution that starts as bilinear interpolation of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start as interpolation (but for the outermost pixels, which see zeros outside)."""
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.weight.zero_()
        self.weight.diagonal().copy_(torch.outer(taps, taps)[..., None])
        assert self.bias is not None  # noqa: S101 - built with one
        self.bias.zero_()


def _relu_conv_bn(channels: int, *, kernel_size: int) -> nn.Module:
    return ReluConvBn(channels, channels, kernel_size)


def _identity(channels: int) -> nn.Module:
    return nn.Identity()


def _average_pool(channels: int) -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


# Name to a factory that takes the number of channels. "none" is no operation: nothing is built for it.
OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "skip_connect": _identity,
    "nor_conv_1x1": partial(_relu_conv_bn, kernel_size=1),
    "nor_conv_3x3": partial(_relu_conv_bn, kernel_size=3),
    "avg_pool_3x3": _average_pool,
    "skip": _identity,
    "conv_1x1": partial(_relu_conv_bn, kernel_size=1),
    "conv_3x3": partial(_relu_conv_bn, kernel_size=3),
    "separable_3x3": partial(SeparableConv, kernel_size=3),
    "separable_5x5": partial(SeparableConv, kernel_size=5),
    "dilated_3": partial(SeparableConv, kernel_size=3, dilation=3),
    "dilated_6": partial(SeparableConv, kernel_size=3, dilation=6),
    "dilated_12": partial(SeparableConv, kernel_size=3, dilation=12),
    "squeeze_excite": SqueezeExcite,
    "global_average_pool": GlobalAveragePool,
}


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return `x`, `(B, C, H, W)`, interpolated bilinearly to `size`, height and width, where it differs."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
