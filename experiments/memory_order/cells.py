"""The published cells, run as their authors' networks run them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

Pair = tuple[tuple[str, int], tuple[str, int]]  # the two operations of a node, each with its source


@dataclass(frozen=True)
class CellGenotype:
    """A cell of two inputs (sources 0 and 1) and nodes (from 2 on) that add the results of two operations each.

    Attributes:
        nodes: In order.
        outputs: The nodes whose results are concatenated.
        is_reduction: Whether operations on the cell's inputs halve the resolution.
    """

    nodes: tuple[Pair, ...]
    outputs: tuple[int, ...]
    is_reduction: bool


def _parse(nodes: str, outputs: str, *, is_reduction: bool = False) -> CellGenotype:
    """Read `"sep3 0 + sep3 1, ..."`: each node's two operations and their sources."""
    pairs = []
    for node in nodes.split(","):
        (first, a), (second, b) = (side.split() for side in node.split("+"))
        pairs.append(((first, int(a)), (second, int(b))))
    return CellGenotype(tuple(pairs), tuple(map(int, outputs.split())), is_reduction)


# As published.
GENOTYPES: Mapping[str, CellGenotype] = {
    # Liu et al. 2019, arXiv:1806.09055: first and second order.
    "darts_v1_normal": _parse("sep3 1 + sep3 0, skip 0 + sep3 1, skip 0 + sep3 1, sep3 0 + skip 2", "2 3 4 5"),
    "darts_v2_normal": _parse("sep3 0 + sep3 1, sep3 0 + sep3 1, sep3 1 + skip 0, skip 0 + dil3 2", "2 3 4 5"),
    "darts_v1_reduction": _parse(
        "max3 0 + max3 1, skip 2 + max3 0, max3 0 + skip 2, skip 2 + avg3 0", "2 3 4 5", is_reduction=True
    ),
    "darts_v2_reduction": _parse(
        "max3 0 + max3 1, skip 2 + max3 1, max3 0 + skip 2, skip 2 + max3 1", "2 3 4 5", is_reduction=True
    ),
    # Zoph et al. 2018, arXiv:1707.07012: NASNet-A.
    "nasnet_a_normal": _parse(
        "sep5 1 + sep3 0, sep5 0 + sep3 0, avg3 1 + skip 0, avg3 0 + avg3 0, sep3 1 + skip 1", "2 3 4 5 6"
    ),
    "nasnet_a_reduction": _parse(
        "sep5 1 + sep7 0, max3 1 + sep7 0, avg3 1 + sep5 0, skip 3 + avg3 2, sep3 2 + max3 1",
        "4 5 6",
        is_reduction=True,
    ),
    # Real et al. 2019, arXiv:1802.01548: AmoebaNet-A.
    "amoebanet_a_normal": _parse(
        "avg3 0 + max3 1, sep3 0 + sep5 2, sep3 0 + avg3 3, sep3 1 + skip 1, skip 0 + avg3 1", "4 5 6"
    ),
    "amoebanet_a_reduction": _parse(
        "avg3 0 + sep3 1, max3 0 + sep7 2, sep7 0 + avg3 1, max3 0 + max3 1, conv71 0 + sep3 5",
        "3 4 6",
        is_reduction=True,
    ),
}


def _relu_conv_bn(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels))


class FactorizedReduce(nn.Module):
    """Halves the resolution by two 1x1 convolutions that read shifted images."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.first = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(channels_in, channels - channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map `(B, channels_in, H, W)` to `(B, channels, H / 2, W / 2)`."""
        image = self.relu(image)
        out = torch.cat([self.first(image), self.second(image[:, :, 1:, 1:])], dim=1)
        return cast(torch.Tensor, self.norm(out))


def _separable(channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding=padding, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    kind, kernel = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz") or 0)
    if kind == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if kind in {"avg", "max"}:
        return (nn.AvgPool2d if kind == "avg" else nn.MaxPool2d)(kernel, stride, kernel // 2)
    if kind == "sep":
        return nn.Sequential(*_separable(channels, kernel, stride=stride), *_separable(channels, kernel))
    if kind == "dil":
        return nn.Sequential(*_separable(channels, kernel, stride=stride, dilation=2))
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), stride=(1, stride), padding=(0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), stride=(stride, 1), padding=(3, 0), bias=False),
        nn.BatchNorm2d(channels),
    )


class PublishedCell(nn.Module):
    """A cell of two inputs, in the order of the DARTS authors' code: all nodes are kept in a list.

    The first input has twice the second's resolution where the cell before was a reduction cell.
    """

    def __init__(
        self, genotype: CellGenotype, channels_in: tuple[int, int], channels: int, *, after_reduction: bool
    ) -> None:
        super().__init__()
        self._genotype = genotype
        before = FactorizedReduce if after_reduction else _relu_conv_bn
        self.inputs = nn.ModuleList([before(channels_in[0], channels), _relu_conv_bn(channels_in[1], channels)])
        self.operations = nn.ModuleList(
            _operation(name, channels, stride=2 if genotype.is_reduction and source < 2 else 1)
            for pair in genotype.nodes
            for name, source in pair
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Map two images to `(B, channels * n_outputs, H, W)`; H and W are half of theirs in a reduction cell."""
        first = self.inputs[0](first)
        second = self.inputs[1](second)
        states = [first, second]
        for index, ((_, a), (_, b)) in enumerate(self._genotype.nodes):
            left = self.operations[2 * index](states[a])
            right = self.operations[2 * index + 1](states[b])
            state = left + right
            states.append(state)
        return torch.cat([states[index] for index in self._genotype.outputs], dim=1)


class CellNetwork(nn.Module):
    """A stem and two cells, as a network begins: the second cell reads the stem too. Reductions double the channels."""

    def __init__(self, genotype: CellGenotype, channels: int = 16) -> None:
        super().__init__()
        width = channels * len(genotype.outputs)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        first, second = (2 * channels, 4 * channels) if genotype.is_reduction else (channels, channels)
        middle = first * len(genotype.outputs)
        self.cells = nn.ModuleList(
            [
                PublishedCell(genotype, (width, width), first, after_reduction=False),
                PublishedCell(genotype, (width, middle), second, after_reduction=genotype.is_reduction),
            ]
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map `(B, 3, H, W)` to the second cell's output."""
        before = now = self.stem(image)
        for cell in self.cells:
            before, now = now, cell(before, now)
        return cast(torch.Tensor, now)


def watts_strogatz(n_nodes: int, n_neighbours: int, rewiring: float, seed: int) -> tuple[tuple[int, int], ...]:
    """Return the edges, each from the lower to the higher node, of a random small-world graph.

    Source:
        Watts & Strogatz 1998, doi:10.1038/30918; directed as in Xie et al. 2019, arXiv:1904.01569.
    """
    generator = random.Random(seed)
    edges = {frozenset((n, (n + k) % n_nodes)) for k in range(1, n_neighbours // 2 + 1) for n in range(n_nodes)}
    for step in range(1, n_neighbours // 2 + 1):
        for node in range(n_nodes):
            edge = frozenset((node, (node + step) % n_nodes))
            free = [other for other in range(n_nodes) if other != node and frozenset((node, other)) not in edges]
            if generator.random() < rewiring and edge in edges and free:
                edges = (edges - {edge}) | {frozenset((node, generator.choice(free)))}
    return tuple(sorted((min(edge), max(edge)) for edge in edges))


class RandomlyWired(nn.Module):
    """One stage of a randomly wired network: nodes of ReLU, separable convolution and batch normalisation.

    Inputs of a node are added with weights that are trained; nodes without inputs read the stem, and the mean of the
    nodes without readers is the output.

    Source:
        Xie et al. 2019, arXiv:1904.01569: WS(4, 0.75); 16 nodes in the first random stage, 32 in the later ones.
    """

    def __init__(self, edges: Sequence[tuple[int, int]], n_nodes: int, channels: int = 16) -> None:
        super().__init__()
        self._sources = [[source for source, target in edges if target == node] for node in range(n_nodes)]
        self._last = [node for node in range(n_nodes) if all(source != node for source, _ in edges)]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.nodes = nn.ModuleList(nn.Sequential(*_separable(channels, 3)) for _ in range(n_nodes))
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(len(sources))) for sources in self._sources)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map `(B, 3, H, W)` to `(B, channels, H, W)`."""
        stem = self.stem(image)
        results: list[torch.Tensor] = []
        for sources, weight, node in zip(self._sources, self.weights, self.nodes, strict=True):
            if sources:
                scale = torch.sigmoid(weight)
                total = results[sources[0]] * scale[0]
                for index, source in enumerate(sources[1:], start=1):
                    total = total + results[source] * scale[index]
            else:
                total = stem
            results.append(node(total))
        mean = results[self._last[0]]
        for node_index in self._last[1:]:
            mean = mean + results[node_index]
        return mean / len(self._last)
