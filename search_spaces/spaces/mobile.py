"""Mobile networks for classification: stages of inverted residual blocks, as in MnasNet and ProxylessNAS."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, MinLen
from pydantic.dataclasses import dataclass
from torch import nn

from search_spaces.base import OPTIONS, ModelSpace
from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.inverted_residual import ACTIVATIONS, ConvBnActivation, InvertedResidual, SqueezeFrom
from search_spaces.drawing.svg import draw_lines
from search_spaces.genotype import Gene, GeneKind, Genotype
from search_spaces.spaces.mobile_presets import PRESETS

_Width = Annotated[int, Ge(1), Le(8192)]
_Activation = Literal["relu", "relu6", "hard_swish", "swish"]
_KINDS = {
    "depth": GeneKind.ORDINAL,
    "kernel": GeneKind.ORDINAL,
    "expansion": GeneKind.ORDINAL,
    "width": GeneKind.ORDINAL,
    "squeeze": GeneKind.CATEGORICAL,
    "skip": GeneKind.CATEGORICAL,
    "activation": GeneKind.CATEGORICAL,
}
_FIELDS = {
    "depth": "depths",
    "kernel": "kernels",
    "expansion": "expansions",
    "width": "widths",
    "squeeze": "squeezes",
    "skip": "skips",
    "activation": "activations",
}


@dataclass(frozen=True, config=OPTIONS)
class MobileStage:
    """What the blocks of one stage may be. All its blocks are alike; the first one has the stride.

    Attributes:
        widths: Output channels.
        stride: Of the first block.
        depths: Numbers of blocks.
        kernels: Sizes of the depthwise convolution, odd.
        expansions: The channels between are so many times the input's.
        squeezes: Whether channels are weighed by a gate.
        skips: Whether the input is added where shapes agree.
        activations: Of all but the last convolution of a block.
    """

    widths: Annotated[tuple[_Width, ...], MinLen(1)]
    stride: Annotated[int, Ge(1), Le(4)] = 1
    depths: Annotated[tuple[Annotated[int, Ge(1), Le(16)], ...], MinLen(1)] = (1, 2, 3)
    kernels: Annotated[tuple[Annotated[int, Ge(1), Le(15)], ...], MinLen(1)] = (3, 5, 7)
    expansions: Annotated[tuple[Annotated[float, Ge(1), Le(16)], ...], MinLen(1)] = (3.0, 4.0, 6.0)
    squeezes: Annotated[tuple[bool, ...], MinLen(1)] = (False, True)
    skips: Annotated[tuple[bool, ...], MinLen(1)] = (True, False)
    activations: Annotated[tuple[_Activation, ...], MinLen(1)] = ("relu6", "hard_swish")

    def __post_init__(self) -> None:
        if even := [kernel for kernel in self.kernels if kernel % 2 == 0]:
            raise ValueError(f"kernels must be odd, got {even[0]}")
        for field in _FIELDS.values():
            choices = getattr(self, field)
            if len(set(choices)) < len(choices):
                raise ValueError(f"{field} must name each choice once, got {list(choices)}")

    def choices(self, gene: str) -> tuple[Any, ...]:
        """Return the choices of a gene such as `"depth"`."""
        found: tuple[Any, ...] = getattr(self, _FIELDS[gene])
        return found


_SMALL = (  # for images of 28 to 64 pixels: the resolution is divided by 8 in all
    MobileStage(widths=(12, 16, 24), stride=1, depths=(1, 2)),
    MobileStage(widths=(16, 24, 32), stride=2),
    MobileStage(widths=(32, 40, 56), stride=2),
    MobileStage(widths=(56, 80, 112), stride=2),
)


@dataclass(frozen=True, config=OPTIONS)
class Mobile(ModelSpace):
    """Networks of a stem, stages of inverted residual blocks, and a head, for classification.

    Each stage has genes for depth, kernel, expansion, width, gate (`squeeze`), skip and activation, those with more
    than one choice; with several `resolutions` there is one for the size to which a batch is resized within the
    network.

    The default is for images of 28 to 64 pixels. `Mobile.preset` gives spaces around published networks for 224
    pixels.

    Attributes:
        stages: From fine to coarse.
        resolutions: Sides of the square to which images are resized; none to take them as they come.
        stem_width: Channels of the first convolution, 3x3.
        stem_stride: Its stride.
        stem_activation: Of the first convolution.
        head_width: Channels of the last convolution, 1x1; 0 for none.
        head_hidden: Width of a hidden layer behind the pooling, as MobileNetV3 has it; 0 for none.
        head_activation: Of both.
        squeeze_from: From what the hidden width of a gate is a quarter: the block's channels between, with a hard
            sigmoid, or its input, with a sigmoid.

    Source:
        Tan et al. 2019 (MnasNet), arXiv:1807.11626; Cai et al. 2019 (ProxylessNAS), arXiv:1812.00332.
    """

    name: ClassVar[str] = "mobile"
    stages: Annotated[tuple[MobileStage, ...], MinLen(1)] = _SMALL
    resolutions: tuple[Annotated[int, Ge(8), Le(2048)], ...] = ()
    stem_width: _Width = 16
    stem_stride: Annotated[int, Ge(1), Le(4)] = 1
    stem_activation: _Activation = "relu6"
    head_width: Annotated[int, Ge(0), Le(8192)] = 256
    head_hidden: Annotated[int, Ge(0), Le(8192)] = 0
    head_activation: _Activation = "relu6"
    squeeze_from: SqueezeFrom = "expanded"

    def __post_init__(self) -> None:
        reduction = self.stem_stride
        for stage in self.stages:
            reduction *= stage.stride
        if self.resolutions and min(self.resolutions) < reduction:
            raise ValueError(
                f"resolutions must be at least {reduction}, by which stem and stages divide them, "
                f"got {min(self.resolutions)}"
            )
        if len(set(self.resolutions)) < len(self.resolutions):
            raise ValueError(f"resolutions must name each choice once, got {list(self.resolutions)}")

    @classmethod
    def preset(cls, name: str) -> tuple[Self, Genotype]:
        """Return a space around a published network for images of 224 pixels, and the genotype that builds it.

        Parameters and multiply-adds of the network are those of the reference implementation.

        Args:
            name: `mobilenet_v2`, `mnasnet_a1`, `mobilenet_v3_large` or `proxyless_mobile`.

        Raises:
            ValueError: If there is no such network.
        """
        if name not in PRESETS:
            raise ValueError(f"name must be one of {', '.join(PRESETS)}, got {name!r}")
        preset = PRESETS[name]
        space = cls(stages=tuple(MobileStage(**published.options) for published in preset.stages), **preset.options)
        values = [
            stage.choices(gene).index(getattr(published, gene))
            for stage, published in zip(space.stages, preset.stages, strict=True)
            for gene in _FIELDS
            if len(stage.choices(gene)) > 1
        ]
        return space, space.canonical(space.genotype(values))

    @property
    def options(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """`stage0_depth`, `stage0_kernel`, ...; last `resolution`. Decisions with one choice are no genes."""
        found = [
            Gene(f"stage{number}_{gene}", tuple(_text(choice) for choice in stage.choices(gene)), _KINDS[gene])
            for number, stage in enumerate(self.stages)
            for gene in _FIELDS
            if len(stage.choices(gene)) > 1
        ]
        if len(self.resolutions) > 1:
            found.append(Gene("resolution", tuple(map(str, self.resolutions)), GeneKind.ORDINAL))
        return tuple(found)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Return the genotype whose skips are the first choice in stages where no block could add its input."""
        self.validate(genotype)
        values = list(genotype.genes)
        index = {gene.name: place for place, gene in enumerate(self.genes)}
        width = self.stem_width
        for number, chosen in enumerate(self._chosen(genotype)):
            place = index.get(f"stage{number}_skip")
            could_add = chosen["depth"] > 1 or (self.stages[number].stride == 1 and chosen["width"] == width)
            if place is not None and not could_add:
                values[place] = 0
            width = chosen["width"]
        return Genotype(self.name, tuple(values))

    def describe(self, genotype: Genotype) -> str:
        """Return a line with a word for each stage, such as `2x(k5 e3 w24 se)`."""
        self.validate(genotype)
        words = [self._words(chosen) for chosen in self._chosen(genotype)]
        resolution = self._resolution(genotype)
        return " | ".join(([f"{resolution} px"] if resolution else []) + words)

    def draw(self, genotype: Genotype) -> str:
        """Return an SVG document with a line for each stage."""
        self.validate(genotype)
        resolution = self._resolution(genotype)
        lines = [f"stem: 3x3 convolution, {self.stem_width} channels, stride {self.stem_stride}"]
        for number, (stage, chosen) in enumerate(zip(self.stages, self._chosen(genotype), strict=True)):
            lines.append(f"stage {number}: {self._words(chosen)}, stride {stage.stride}")
        head = [f"{self.head_width} channels"] if self.head_width else []
        lines.append("head: " + ", ".join([*head, "pooling", *([str(self.head_hidden)] if self.head_hidden else [])]))
        return draw_lines(f"{self.name} at {resolution} px" if resolution else self.name, lines)

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """See `ModelSpace.build`."""
        self.validate(genotype)
        with torch.random.fork_rng(devices=[]):
            layers, head = list(self._layers(genotype, in_channels)), self._head(genotype, n_classes)
            model = _MobileNetwork(layers, head, self._resolution(genotype))
        initialize(model, seed)
        return model

    def _layers(self, genotype: Genotype, in_channels: int) -> Iterator[nn.Module]:
        """Yield stem, blocks and the last convolution."""
        yield ConvBnActivation(in_channels, self.stem_width, 3, self.stem_activation, stride=self.stem_stride)
        width = self.stem_width
        for stage, chosen in zip(self.stages, self._chosen(genotype), strict=True):
            for number in range(chosen["depth"]):
                yield InvertedResidual(
                    width,
                    chosen["width"],
                    kernel_size=chosen["kernel"],
                    stride=stage.stride if number == 0 else 1,
                    expansion=chosen["expansion"],
                    squeeze=self.squeeze_from if chosen["squeeze"] else None,
                    adds_input=chosen["skip"],
                    activation=chosen["activation"],
                )
                width = chosen["width"]
        if self.head_width:
            yield ConvBnActivation(width, self.head_width, 1, self.head_activation)

    def _head(self, genotype: Genotype, n_classes: int) -> nn.Module:
        width = self.head_width or self._chosen(genotype)[-1]["width"]
        if not self.head_hidden:
            return nn.Linear(width, n_classes)
        activation = ACTIVATIONS[self.head_activation]()
        return nn.Sequential(nn.Linear(width, self.head_hidden), activation, nn.Linear(self.head_hidden, n_classes))

    def _chosen(self, genotype: Genotype) -> list[Mapping[str, Any]]:
        """Return what is chosen in each stage, by gene."""
        values = {gene.name: value for gene, value in zip(self.genes, genotype.genes, strict=True)}
        return [
            {gene: stage.choices(gene)[values.get(f"stage{number}_{gene}", 0)] for gene in _FIELDS}
            for number, stage in enumerate(self.stages)
        ]

    def _resolution(self, genotype: Genotype) -> int | None:
        """Return the side to which images are resized; `None` for as they come."""
        if len(self.resolutions) > 1:
            return self.resolutions[genotype.genes[-1]]
        return self.resolutions[0] if self.resolutions else None

    @staticmethod
    def _words(chosen: Mapping[str, Any]) -> str:
        words = [f"k{chosen['kernel']}", f"e{_text(chosen['expansion'])}", f"w{chosen['width']}"]
        words += ["se"] if chosen["squeeze"] else []
        words += [] if chosen["skip"] else ["no skip"]
        return f"{chosen['depth']}x({' '.join(words)} {chosen['activation']})"


class _MobileNetwork(nn.Module):
    """Maps `(B, C, H, W)` to `(B, n_classes)`."""

    def __init__(self, layers: Sequence[nn.Module], head: nn.Module, resolution: int | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = head
        self._resolution = resolution

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        side = self._resolution
        if side is not None and tuple(images.shape[-2:]) != (side, side):
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        pooled = torch.flatten(self.pool(self.layers(images)), 1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def _text(choice: Any) -> str:
    """Return a choice as a gene names it: 3 for 3.0, yes and no."""
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return f"{choice:g}" if isinstance(choice, float) else str(choice)
