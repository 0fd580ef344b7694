"""Published mobile networks, stage by stage, and the choices of the spaces around them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PresetStage:
    """A stage of a published network.

    Attributes:
        kernel: Of the depthwise convolution.
        expansion: Of the channels.
        width: Output channels.
        depth: Blocks.
        stride: Of the first one.
        squeeze: Whether its blocks have gates.
        activation: Of its blocks.
        skip: Whether blocks add their input where they can.
    """

    kernel: int
    expansion: float
    width: int
    depth: int = 1
    stride: int = 1
    squeeze: bool = False
    activation: str = "relu6"
    skip: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The stage of the space around it: other kernels, the usual expansions, fewer blocks, gates or none."""
        expansions = sorted({self.expansion, *((3.0, 4.0, 6.0) if self.expansion > 1 else ())})
        return {
            "widths": (self.width,),
            "stride": self.stride,
            "depths": tuple(range(1, self.depth + 1)),
            "kernels": (3, 5, 7),
            "expansions": tuple(expansions),
            "squeezes": (False, True),
            "skips": (True,),
            "activations": (self.activation,),
        }


@dataclass(frozen=True)
class Preset:
    """A published network: its stages, and options of the space for stem and head."""

    stages: tuple[PresetStage, ...]
    options: Mapping[str, Any]


def _stages(rows: str, **common: Any) -> tuple[PresetStage, ...]:
    """Return stages of rows `kernel expansion width depth stride [se] [hs]`."""
    found = []
    for row in rows.strip().splitlines():
        kernel, expansion, width, depth, stride, *flags = row.split()
        activation = {"activation": "hard_swish"} if "hs" in flags else {}
        found.append(
            PresetStage(
                int(kernel), float(expansion), int(width), int(depth), int(stride), "se" in flags, **common | activation
            )
        )
    return tuple(found)


# Sandler et al. 2018, arXiv:1801.04381, table 2.
_MOBILENET_V2 = """
3 1 16 1 1
3 6 24 2 2
3 6 32 3 2
3 6 64 4 2
3 6 96 3 1
3 6 160 3 2
3 6 320 1 1
"""

# Tan et al. 2019, arXiv:1807.11626, figure 7.
_MNASNET_A1 = """
3 1 16 1 1
3 6 24 2 2
5 3 40 3 2 se
3 6 80 4 2
3 6 112 2 1 se
5 6 160 3 2 se
3 6 320 1 1
"""

# Howard et al. 2019, arXiv:1905.02244, table 1; the expanded widths there as ratios.
_MOBILENET_V3_LARGE = """
3 1 16 1 1
3 4 24 1 2
3 3 24 1 1
5 3 40 1 2 se
5 3 40 2 1 se
3 6 80 1 2 hs
3 2.5 80 1 1 hs
3 2.3 80 2 1 hs
3 6 112 2 1 se hs
5 6 160 1 2 se hs
5 6 160 2 1 se hs
"""

# Cai et al. 2019, arXiv:1812.00332, figure 4 (mobile).
_PROXYLESS_MOBILE = """
3 1 16 1 1
5 3 32 1 2
3 3 32 1 1
7 3 40 1 2
3 3 40 1 1
5 3 40 2 1
7 6 80 1 2
5 3 80 3 1
5 6 96 1 1
5 3 96 3 1
7 6 192 1 2
7 6 192 1 1
7 3 192 2 1
7 6 320 1 1
"""

_USUAL = {"stem_width": 32, "stem_stride": 2, "head_width": 1280}

PRESETS: dict[str, Preset] = {
    "mobilenet_v2": Preset(_stages(_MOBILENET_V2), _USUAL),
    "mnasnet_a1": Preset(
        _stages(_MNASNET_A1, activation="relu"),
        {**_USUAL, "stem_activation": "relu", "head_activation": "relu", "squeeze_from": "input"},
    ),
    "mobilenet_v3_large": Preset(
        _stages(_MOBILENET_V3_LARGE, activation="relu"),
        {
            "stem_width": 16,
            "stem_stride": 2,
            "stem_activation": "hard_swish",
            "head_width": 960,
            "head_hidden": 1280,
            "head_activation": "hard_swish",
        },
    ),
    "proxyless_mobile": Preset(_stages(_PROXYLESS_MOBILE), _USUAL),
}
