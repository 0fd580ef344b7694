"""DeepLabV3 over MobileNetV3-Large."""

from typing import Annotated, NamedTuple, cast

import torch
from annotated_types import Ge, Le
from pydantic import validate_call
from torch import nn

from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import resize
from search_spaces.references.network import ReferenceNetwork


class _Block(NamedTuple):
    """One row of MobileNetV3's table 1."""

    kernel_size: int
    expanded: int
    out_channels: int
    squeezes: bool
    hard: bool
    stride: int = 1
    dilation: int = 1


_STEM_CHANNELS = 16
_BLOCKS = (
    _Block(3, 16, 16, squeezes=False, hard=False),
    _Block(3, 64, 24, squeezes=False, hard=False, stride=2),
    _Block(3, 72, 24, squeezes=False, hard=False),
    _Block(5, 72, 40, squeezes=True, hard=False, stride=2),
    _Block(5, 120, 40, squeezes=True, hard=False),
    _Block(5, 120, 40, squeezes=True, hard=False),
    _Block(3, 240, 80, squeezes=False, hard=True, stride=2),
    _Block(3, 200, 80, squeezes=False, hard=True),
    _Block(3, 184, 80, squeezes=False, hard=True),
    _Block(3, 184, 80, squeezes=False, hard=True),
    _Block(3, 480, 112, squeezes=True, hard=True),
    _Block(3, 672, 112, squeezes=True, hard=True),
    _Block(5, 672, 160, squeezes=True, hard=True, dilation=2),  # stride 2 in the table
    _Block(5, 960, 160, squeezes=True, hard=True, dilation=2),
    _Block(5, 960, 160, squeezes=True, hard=True, dilation=2),
)
_RATES = (6, 12, 18)
_CONTEXT_CHANNELS = 256


class DeepLabV3MobileNetV3(ReferenceNetwork):
    """DeepLabV3 at output stride 16 over MobileNetV3-Large: dilated last blocks, then pyramid pooling (ASPP).

    Args:
        in_channels: Of the images.
        n_classes: Channels of the logits.
        seed: Of the initial weights.
        width: Channels of the stem; all others are scaled with it.

    Source:
        Chen et al. 2017, arXiv:1706.05587; Howard et al. 2019, arXiv:1905.02244, table 1. With 21 classes it has the
        parameters of torchvision's `deeplabv3_mobilenet_v3_large` without its auxiliary head.
        Differs: `width` channels in the stem; other widths scale all channels, rounded to multiples of 8.
    """

    is_dense = True

    @validate_call
    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        seed: int = 0,
        width: Annotated[int, Ge(1), Le(4096)] = _STEM_CHANNELS,
    ) -> None:
        super().__init__()
        factor = width / _STEM_CHANNELS
        context = _scaled(_CONTEXT_CHANNELS, factor)
        with torch.random.fork_rng(devices=[]):
            channels = _scaled(_STEM_CHANNELS, factor)
            layers: list[nn.Module] = [_conv_bn(in_channels, channels, 3, stride=2), nn.Hardswish()]
            for block in _BLOCKS:
                layers.append(MobileBlock(channels, block, factor))
                channels = _scaled(block.out_channels, factor)
            layers += [_conv_bn(channels, 6 * channels, 1), nn.Hardswish()]
            self.backbone = nn.Sequential(*layers)
            self.context = PyramidPooling(6 * channels, context)
            self.classifier = nn.Sequential(_conv_bn(context, context, 3), nn.ReLU(), nn.Conv2d(context, n_classes, 1))
        initialize(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes, H, W)`."""
        return resize(self.classifier(self.context(self.backbone(x))), (x.shape[-2], x.shape[-1]))


class MobileBlock(nn.Module):
    """An inverted residual with squeeze-excite and hard activations where the table has them."""

    def __init__(self, in_channels: int, block: _Block, factor: float) -> None:
        super().__init__()
        expanded, out_channels = _scaled(block.expanded, factor), _scaled(block.out_channels, factor)
        activation = nn.Hardswish if block.hard else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers += [_conv_bn(in_channels, expanded, 1), activation()]
        layers += [
            _conv_bn(
                expanded, expanded, block.kernel_size, stride=block.stride, dilation=block.dilation, groups=expanded
            ),
            activation(),
        ]
        if block.squeezes:
            layers.append(HardSqueezeExcite(expanded))
        self.layers = nn.Sequential(*layers, _conv_bn(expanded, out_channels, 1))
        self.has_residual = block.stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, ceil(H / stride), ceil(W / stride))`."""
        y = cast(torch.Tensor, self.layers(x))
        return x + y if self.has_residual else y


class HardSqueezeExcite(nn.Module):
    """Squeeze-excite to a quarter of the channels with a piecewise linear gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _rounded(channels / 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return x * cast(torch.Tensor, self.gate(x))


class PyramidPooling(nn.Module):
    """ASPP: a 1x1 convolution, dilated 3x3 ones and the image's mean side by side, merged by a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(_conv_bn(in_channels, channels, 1), nn.ReLU()),
                *(nn.Sequential(_conv_bn(in_channels, channels, 3, dilation=rate), nn.ReLU()) for rate in _RATES),
                nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv_bn(in_channels, channels, 1), nn.ReLU()),
            ]
        )
        merged = len(self.branches) * channels
        self.merge = nn.Sequential(_conv_bn(merged, channels, 1), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C, H, W)`."""
        size = x.shape[-2], x.shape[-1]
        return cast(torch.Tensor, self.merge(torch.cat([resize(branch(x), size) for branch in self.branches], dim=1)))


def _conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _scaled(channels: int, factor: float) -> int:
    return channels if factor == 1 else _rounded(channels * factor)


def _rounded(channels: float) -> int:
    """Return the nearest multiple of 8 that is not less than 90 % of `channels`, as the MobileNets do."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
