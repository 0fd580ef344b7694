"""Fixed networks to compare with and to learn from."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Le
from pydantic import validate_call
from torch import nn

from search_spaces.base import ModelSpace
from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import resize
from search_spaces.genotype import Gene, Genotype
from search_spaces.references.deeplab import DeepLabV3MobileNetV3
from search_spaces.references.enet import ENet
from search_spaces.references.network import ReferenceNetwork


class UNet(ReferenceNetwork):
    """U-Net with batch normalisation: four halvings, skip connections, transposed convolutions.

    Args:
        in_channels: Of the images.
        n_classes: Channels of the logits.
        seed: Of the initial weights.
        width: Channels at full resolution.

    Source:
        Ronneberger et al. 2015, arXiv:1505.04597.
        Differs: padded convolutions, so that logits have the input's size; batch normalisation; `width`
        channels at full resolution, not 64. 3x3 transposed convolutions, not 2x2. The default has
        2.16 M parameters.
    """

    is_dense = True

    @validate_call
    def __init__(
        self, in_channels: int, n_classes: int, *, seed: int = 0, width: Annotated[int, Ge(1), Le(4096)] = 16
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        with torch.random.fork_rng(devices=[]):
            self.down = nn.ModuleList(_double_conv(a, b) for a, b in pairwise([in_channels, *widths]))
            self.pool = nn.MaxPool2d(2, ceil_mode=True)
            self.up = nn.ModuleList(_doubling(2 * w, w) for w in reversed(widths[:-1]))
            self.fuse = nn.ModuleList(_double_conv(2 * w, w) for w in reversed(widths[:-1]))
            self.classifier = nn.Conv2d(width, n_classes, 1)
        initialize(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes, H, W)`."""
        skips: list[torch.Tensor] = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for up, fuse in zip(self.up, self.fuse, strict=True):
            skip = skips.pop()
            # Halving rounds odd sizes up; the way back then overshoots by a pixel.
            x = resize(up(x), (skip.shape[-2], skip.shape[-1]))
            x = fuse(torch.cat([skip, x], dim=1))
        return cast(torch.Tensor, self.classifier(x))


class ResNet(ReferenceNetwork):
    """ResNet for small images: a 3x3 stem and three stages of basic blocks, of which two halve.

    Args:
        in_channels: Of the images.
        n_classes: Channels of the logits.
        seed: Of the initial weights.
        depth: Layers with weights: 6 n + 2 for n blocks in each stage.
        width: Channels of the first stage; each further one has twice as many.

    Source:
        He et al. 2016, arXiv:1512.03385, section 4.2.
        Differs: shortcuts that change the shape are 1x1 convolutions (their option B).
    """

    is_dense = False

    @validate_call
    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        seed: int = 0,
        depth: int = 20,
        width: Annotated[int, Ge(1), Le(4096)] = 16,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2 with n of at least 1, got {depth}")
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            layers: list[nn.Module] = [_conv_bn(in_channels, width, 3), nn.ReLU()]
            for stage in range(3):
                channels = width * 2**stage
                for block in range((depth - 2) // 6):
                    halves = stage > 0 and block == 0
                    layers.append(BasicBlock(channels // 2 if halves else channels, channels, 1 + halves))
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_classes))
        initialize(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes)`."""
        return cast(torch.Tensor, self.classifier(self.features(x)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, rectified after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv_bn(in_channels, out_channels, 3, stride), nn.ReLU(), _conv_bn(out_channels, out_channels, 3)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, ceil(H / stride), ceil(W / stride))`."""
        return torch.relu(self.shortcut(x) + self.layers(x))


def _conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _doubling(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        _conv_bn(in_channels, out_channels, 3), nn.ReLU(), _conv_bn(out_channels, out_channels, 3), nn.ReLU()
    )


REFERENCE_MODELS: dict[str, type[ReferenceNetwork]] = {
    "unet": UNet,
    "deeplabv3_mobilenetv3": DeepLabV3MobileNetV3,
    "enet": ENet,
    "resnet": ResNet,
}


@dataclass(frozen=True)
class ReferenceModel(ModelSpace):
    """A reference model as a space of one genotype, so that it is evaluated as every candidate is.

    Attributes:
        kind: A name in `REFERENCE_MODELS`.
    """

    prefix: ClassVar[str] = "reference:"
    kind: str

    @property
    def name(self) -> str:  # type: ignore[override]  # one name for each model, not for the class
        """`reference:KIND`."""
        return f"{self.prefix}{self.kind}"

    @property
    def genes(self) -> tuple[Gene, ...]:
        """None: there is nothing to choose."""
        return ()

    def describe(self, genotype: Genotype) -> str:
        """Return the model's name."""
        self.validate(genotype)
        return self.kind

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the model with its default options."""
        self.validate(genotype)
        model_class: Any = REFERENCE_MODELS[self.kind]
        return cast(nn.Module, model_class(in_channels, n_classes, seed=seed))
