"""NAS-Bench-201: the published cell space, its strings, its equivalences and its network."""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass
from torch import nn

from search_spaces.base import OPTIONS, ModelSpace
from search_spaces.blocks.cells import DagCell
from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import ReluConvBn
from search_spaces.cell_graph import CellGraph
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Gene, GeneKind, Genotype

NASBENCH201_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NASBENCH201_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_OUTPUT = 3
_GENES = tuple(
    Gene(f"edge_{source}_{target}", NASBENCH201_OPERATIONS, GeneKind.CATEGORICAL)
    for source, target in NASBENCH201_EDGES
)


@dataclass(frozen=True, config=OPTIONS)
class NasBench201(ModelSpace):
    """Cells of 4 nodes; each of the 6 edges holds one of 5 operations; 15,625 genotypes.

    `canonical` merges them into the 6,466 classes that the literature counts, so that results compare with
    published ones. The published rule compares strings and is not exactly "builds the same network": it
    keeps apart cells that differ by terms of zero (5,425 different networks are built in all), and it
    merges an operation read twice with two equal operations (in 430 classes parameters differ).

    Attributes:
        width: Channels of the first stage; the second has twice, the third four times as many.
        cells_per_stage: Cells in each of the three stages.

    Source:
        Dong & Yang 2020, arXiv:2001.00326; the defaults are the paper's CIFAR-10 network.
        Differs: edges without influence on the cell's output are not built, and an edge that reads
        nothing but zeros counts as one, though the published network leaves a convolution there whose
        normalisation adds a constant.
    """

    name: ClassVar[str] = "nasbench201"
    width: Annotated[int, Ge(1), Le(4096)] = 16
    cells_per_stage: Annotated[int, Ge(1), Le(1000)] = 5

    @property
    def genes(self) -> tuple[Gene, ...]:
        """One operation for each edge, in the order of `NASBENCH201_EDGES`."""
        return _GENES

    @property
    def cell_graph(self) -> CellGraph:
        """The published cell."""
        return CellGraph(NASBENCH201_EDGES, NASBENCH201_OPERATIONS)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Return the lexicographically smallest genotype of the published class of `genotype`."""
        self.validate(genotype)
        return Genotype(self.name, _representatives()[_class_string(genotype.genes)])

    def describe(self, genotype: Genotype) -> str:
        """Return the published architecture string."""
        return self.to_string(genotype)

    def to_string(self, genotype: Genotype) -> str:
        """Return the architecture string, e.g. `|none~0|+|none~0|none~1|+|none~0|none~1|none~2|`."""
        self.validate(genotype)
        operations = _operations(genotype.genes)
        nodes = (
            "|".join(f"{operations[source, target]}~{source}" for source in range(target))
            for target in range(1, _OUTPUT + 1)
        )
        return "+".join(f"|{node}|" for node in nodes)

    def from_string(self, text: str) -> Genotype:
        """Return the genotype of an architecture string.

        Raises:
            GenotypeError: If `text` is not one, saying where.
        """
        nodes = text.strip().split("+")
        if len(nodes) != _OUTPUT:
            raise GenotypeError(f"an architecture string has {_OUTPUT} nodes joined by '+', got {len(nodes)}")
        return self.genotype(
            [value for target, node in enumerate(nodes, start=1) for value in _parse_node(target, node)]
        )

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the classification network; images of any size from 4x4 on."""
        self.validate(genotype)
        edges = live_edges(genotype)
        with torch.random.fork_rng(devices=[]):
            network = NasBench201Network(edges, in_channels, n_classes, self.width, self.cells_per_stage)
        initialize(network, seed)
        return network


def live_edges(genotype: Genotype) -> dict[tuple[int, int], str]:
    """Return the operations of the edges that carry something of a cell's input to its output."""
    operations = _operations(genotype.genes)
    fed = {0}
    for source, target in NASBENCH201_EDGES:
        if source in fed and operations[source, target] != "none":
            fed.add(target)
    live: dict[tuple[int, int], str] = {}
    used = {_OUTPUT}
    for source, target in reversed(NASBENCH201_EDGES):
        if target in used and source in fed and operations[source, target] != "none":
            used.add(source)
            live[source, target] = operations[source, target]
    return live


class NasBench201Network(nn.Module):
    """The published skeleton: a stem, three stages of cells joined by residual blocks, a classifier.

    Source:
        Dong & Yang 2020, arXiv:2001.00326, figure 1.
        Differs: the pooled shortcut rounds odd sizes up, as the convolution beside it does (28x28 images).
    """

    def __init__(
        self,
        edges: Mapping[tuple[int, int], str],
        in_channels: int,
        n_classes: int,
        width: int,
        cells_per_stage: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        ]
        for stage in range(3):
            channels = width * 2**stage
            if stage > 0:
                layers.append(ReductionBlock(channels // 2, channels))
            layers.extend(DagCell(channels, edges) for _ in range(cells_per_stage))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, n_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes)`."""
        return cast(torch.Tensor, self.classifier(self.features(x)))


class ReductionBlock(nn.Module):
    """A residual block of stride 2 whose shortcut pools and projects."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReluConvBn(in_channels, out_channels, 3, stride=2), ReluConvBn(out_channels, out_channels, 3)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, ceil(H / 2), ceil(W / 2))`."""
        return cast(torch.Tensor, self.shortcut(x) + self.layers(x))


def _operations(genes: Sequence[int]) -> dict[tuple[int, int], str]:
    return {edge: NASBENCH201_OPERATIONS[value] for edge, value in zip(NASBENCH201_EDGES, genes, strict=True)}


def _parse_node(target: int, text: str) -> list[int]:
    parts = text.strip().strip("|").split("|")
    if len(parts) != target:
        raise GenotypeError(f"node {target} has {target} edges between '|', got {len(parts)} in {text!r}")
    values = []
    for source, part in enumerate(parts):
        operation, _, index = part.partition("~")
        if operation not in NASBENCH201_OPERATIONS:
            raise GenotypeError(
                f"node {target}: unknown operation {operation!r}; known: {', '.join(NASBENCH201_OPERATIONS)}"
            )
        if index != str(source):
            raise GenotypeError(f"node {target}: edge {source} must end in '~{source}', got {part!r}")
        values.append(NASBENCH201_OPERATIONS.index(operation))
    return values


def _class_string(genes: Sequence[int]) -> str:
    """Return the published string that is equal for genotypes of one class.

    Source:
        `Structure.to_unique_str(consider_zero=True)` of D-X-Y/AutoDL-Projects (MIT). "#" is zero; a sum
        of zeros is "#+#", which is not recognised as zero again: hence 6,466 and not fewer.
    """
    operations = _operations(genes)
    nodes = ["0"]
    for target in range(1, _OUTPUT + 1):
        terms = (_term_string(operations[source, target], nodes[source]) for source in range(target))
        nodes.append("+".join(sorted(terms)))
    return nodes[_OUTPUT]


def _term_string(operation: str, source: str) -> str:
    if operation == "none" or source == "#":
        return "#"
    return source if operation == "skip_connect" else f"({source})@{operation}"


@cache
def _representatives() -> dict[str, tuple[int, ...]]:
    """Return the first genotype of each class, in lexicographic order, by the class's string."""
    representatives: dict[str, tuple[int, ...]] = {}
    for genes in itertools.product(range(len(NASBENCH201_OPERATIONS)), repeat=len(NASBENCH201_EDGES)):
        representatives.setdefault(_class_string(genes), genes)
    return representatives
