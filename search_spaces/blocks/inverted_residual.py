"""The block of mobile networks: expand, convolve each channel, weigh channels, project, add."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "swish": nn.SiLU,
}
SqueezeFrom = Literal["input", "expanded"]
_REDUCTION = 4
_DIVISOR = 8


def divisible(width: float) -> int:
    """Return `width` rounded to a multiple of 8, never below 90 % of it.

    Source:
        Howard et al. 2017, arXiv:1704.04861, in their published code.
    """
    rounded = max(_DIVISOR, int(width + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * width else rounded


class ConvBnActivation(nn.Sequential):
    """Convolution without bias, batch normalisation, activation; the resolution is divided by `stride`, rounding up."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        activation: str | None,
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        padding = (kernel_size - 1) // 2
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        super().__init__(*layers, *([] if activation is None else [ACTIVATIONS[activation]()]))


class ChannelGate(nn.Module):
    """Scales each channel by a gate computed from the means of all channels.

    Args:
        channels: Of the images.
        hidden: Between the two layers of the gate.
        is_hard: Whether the gate is a hard sigmoid, as in MobileNetV3, or a sigmoid.

    Source:
        Hu et al. 2018, arXiv:1709.01507.
    """

    def __init__(self, channels: int, hidden: int, *, is_hard: bool) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid() if is_hard else nn.Sigmoid(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)` scaled."""
        gate: torch.Tensor = self.gate(images)
        return images * gate


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, a gate by choice, a 1x1 one to `out_channels`.

    With an expansion of 1 the first convolution is left out. The input is added where the shapes agree.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Of the depthwise convolution, odd.
        stride: Of the depthwise convolution.
        expansion: The channels between are this many times the input's, rounded to a multiple of 8.
        squeeze: From what the gate's hidden width is a quarter: the channels between, rounded to a multiple of 8, with
            a hard sigmoid (MobileNetV3), or the block's input, with a sigmoid (MnasNet); `None` for no gate.
        adds_input: Whether the input is added where it can be.
        activation: One of `ACTIVATIONS`.

    Source:
        Sandler et al. 2018, arXiv:1801.04381; with a gate Tan et al. 2019, arXiv:1807.11626, and Howard et al. 2019,
        arXiv:1905.02244.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        expansion: float,
        squeeze: SqueezeFrom | None,
        adds_input: bool,
        activation: str,
    ) -> None:
        super().__init__()
        hidden = in_channels if expansion == 1 else divisible(in_channels * expansion)
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(ConvBnActivation(in_channels, hidden, 1, activation))
        layers.append(ConvBnActivation(hidden, hidden, kernel_size, activation, stride=stride, groups=hidden))
        if squeeze == "expanded":
            layers.append(ChannelGate(hidden, divisible(hidden / _REDUCTION), is_hard=True))
        elif squeeze == "input":
            layers.append(ChannelGate(hidden, max(1, round(in_channels / _REDUCTION)), is_hard=False))
        layers.append(ConvBnActivation(hidden, out_channels, 1, None))
        self.layers = nn.Sequential(*layers)
        self._adds_input = adds_input and stride == 1 and in_channels == out_channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, ceil(H / stride), ceil(W / stride))`."""
        output: torch.Tensor = self.layers(images)
        return images + output if self._adds_input else output
