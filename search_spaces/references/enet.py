"""ENet, a network for real-time segmentation with well under half a million parameters."""

from typing import Annotated, cast

import torch
from annotated_types import Ge, Le
from torch import nn
from torch.nn import functional as F

from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import resize
from search_spaces.references.network import ReferenceNetwork

_MIDDLE = (
    *(("regular", 1), ("dilated", 2), ("asymmetric", 5), ("dilated", 4)),
    *(("regular", 1), ("dilated", 8), ("asymmetric", 5), ("dilated", 16)),
)
"""The bottlenecks of stage 2 after its first, and of the whole of stage 3: kind, and dilation or kernel size."""


class ENet(ReferenceNetwork):
    """ENet: an early halving to stride 8, bottlenecks with dilated and asymmetric convolutions, a small decoder.

    Args:
        in_channels: Of the images.
        n_classes: Channels of the logits.
        seed: Of the initial weights.
        width: Channels after the first halving; a multiple of 4, more than the images have.

    Source:
        Paszke et al. 2016, arXiv:1606.02147, table 1; 0.37 M parameters.
        Differs: pooled positions are found again by comparing with their maximum, so that equal maxima of a
        window all count: unlike stored indices, that runs in every runtime. Convolutions that halve round odd sizes up.
    """

    is_dense = True

    def __init__(
        self, in_channels: int, n_classes: int, *, seed: int = 0, width: Annotated[int, Ge(1), Le(4096)] = 16
    ) -> None:
        if width <= in_channels or width % 4:
            raise ValueError(f"width must be a multiple of 4 above the {in_channels} channels of images, got {width}")
        super().__init__()
        narrow, middle, wide = width, 4 * width, 8 * width
        with torch.random.fork_rng(devices=[]):
            self.start = nn.Conv2d(in_channels, narrow - in_channels, 3, 2, 1, bias=False)
            self.start_norm = _norm_prelu(narrow)
            self.down_1 = DownBottleneck(narrow, middle, dropout=0.01)
            self.stage_1 = nn.Sequential(*(Bottleneck(middle, dropout=0.01) for _ in range(4)))
            self.down_2 = DownBottleneck(middle, wide, dropout=0.1)
            self.stage_2_and_3 = nn.Sequential(*(Bottleneck(wide, kind, size) for kind, size in _MIDDLE * 2))
            self.up_4 = UpBottleneck(wide, middle)
            self.stage_4 = nn.Sequential(Bottleneck(middle), Bottleneck(middle))
            self.up_5 = UpBottleneck(middle, narrow)
            self.stage_5 = Bottleneck(narrow)
            self.classifier = nn.ConvTranspose2d(narrow, n_classes, 2, stride=2)
        initialize(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes, H, W)`."""
        size = x.shape[-2], x.shape[-1]
        x = self.start_norm(torch.cat([self.start(x), F.max_pool2d(x, 2, ceil_mode=True)], dim=1))
        at_2 = x
        x = self.stage_1(self.down_1(x))
        at_4 = x
        x = self.stage_2_and_3(self.down_2(x))
        x = self.stage_4(self.up_4(x, at_4))
        x = self.stage_5(self.up_5(x, at_2))
        return cast(torch.Tensor, self.classifier(x)[:, :, : size[0], : size[1]])


class Bottleneck(nn.Module):
    """1x1 to a quarter of the channels, a convolution, 1x1 back, and the input added."""

    def __init__(self, channels: int, kind: str = "regular", size: int = 1, *, dropout: float = 0.1) -> None:
        super().__init__()
        inner = channels // 4
        if kind == "asymmetric":
            middle: nn.Module = nn.Sequential(
                nn.Conv2d(inner, inner, (size, 1), padding=(size // 2, 0), bias=False),
                nn.Conv2d(inner, inner, (1, size), padding=(0, size // 2), bias=False),
            )
        else:
            middle = nn.Conv2d(inner, inner, 3, padding=size, dilation=size, bias=False)
        self.layers = _extension(nn.Conv2d(channels, inner, 1, bias=False), middle, channels, dropout)
        self.activation = nn.PReLU(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return cast(torch.Tensor, self.activation(x + self.layers(x)))


class DownBottleneck(nn.Module):
    """Halves the resolution, rounding up; beside it the input is pooled and filled up with channels of zeros."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float) -> None:
        super().__init__()
        inner = in_channels // 4
        first = nn.Conv2d(in_channels, inner, 2, stride=2, bias=False)
        middle = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.layers = _extension(first, middle, out_channels, dropout)
        self.activation = nn.PReLU(out_channels)
        self._n_added = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, ceil(H / 2), ceil(W / 2))`."""
        pooled = F.max_pool2d(x, 2, ceil_mode=True)
        even = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
        beside = torch.cat([pooled, pooled.new_zeros(1).expand(len(x), self._n_added, *pooled.shape[-2:])], dim=1)
        return cast(torch.Tensor, self.activation(beside + self.layers(even)))


class UpBottleneck(nn.Module):
    """Doubles the resolution; beside it the input goes back to where the maxima of the way down were."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = in_channels // 4
        middle = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.layers = _extension(nn.Conv2d(in_channels, inner, 1, bias=False), middle, out_channels, dropout=0.1)
        self.beside = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, h, w)` to the shape of `before`, `(B, C_out, H, W)`: what was pooled on the way down."""
        size = before.shape[-2], before.shape[-1]
        is_maximum = before == _doubled(F.max_pool2d(before, 2, ceil_mode=True), size)
        beside = _doubled(self.beside(x), size) * is_maximum.to(x.dtype)
        return cast(torch.Tensor, self.activation(beside + resize(self.layers(x), size)))


def _doubled(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")[:, :, : size[0], : size[1]]


def _extension(first: nn.Conv2d, middle: nn.Module, out_channels: int, dropout: float) -> nn.Sequential:
    inner = first.out_channels
    return nn.Sequential(
        first,
        *_norm_prelu(inner),
        middle,
        *_norm_prelu(inner),
        nn.Conv2d(inner, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.Dropout2d(dropout),
    )


def _norm_prelu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))
