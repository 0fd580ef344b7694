"""Modules that wire operations as a genotype says. They are told live edges only."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from search_spaces.blocks.operations import OPERATIONS, resize


class DagCell(nn.Module):
    """A directed acyclic graph whose nodes sum what their incoming edges compute.

    Node 0 is the input and the highest node of `edges` the output; without edges the output is zero.
    """

    def __init__(self, channels: int, edges: Mapping[tuple[int, int], str]) -> None:
        """Build the operations.

        Args:
            channels: Of the input and of every node.
            edges: From (source, target) to the name of an operation. Every node that is a source must be
                0 or a target of another edge.
        """
        super().__init__()
        self._edges = tuple(sorted(edges, key=lambda edge: (edge[1], edge[0])))
        self.operations = nn.ModuleDict({_edge_name(edge): OPERATIONS[edges[edge]](channels) for edge in self._edges})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        if not self._edges:
            return torch.zeros_like(x)
        nodes = {0: x}
        for source, target in self._edges:
            y = self.operations[_edge_name((source, target))](nodes[source])
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[self._edges[-1][1]]


def _edge_name(edge: tuple[int, int]) -> str:
    return f"edge_{edge[0]}_{edge[1]}"


class Term(NamedTuple):
    """One side of a branch: an operation on a feature.

    Attributes:
        operation: Its index in the space's operations.
        source: 0 .. 3 for the encoder's outputs, 4 for the first cell, and so on.
    """

    operation: int
    source: int


Branch = tuple[Term, ...]  # the sum of its terms
Cell = tuple[Branch, ...]  # the concatenation of its branches, merged by a 1x1 convolution


class FusionCell(nn.Module):
    """Fuses features of several resolutions into one of the finest resolution among them.

    Each operation runs at its feature's own resolution; its result is resized and added to its branch.
    """

    def __init__(self, cell: Cell, operation_names: tuple[str, ...], width: int) -> None:
        """Build the operations.

        Args:
            cell: At least one branch, each of at least one term.
            operation_names: What the terms' indices mean; keys of `OPERATIONS`.
            width: Channels of all features, of the cell's output too.
        """
        super().__init__()
        self._cell = cell
        self.branches = nn.ModuleList(
            nn.ModuleList(OPERATIONS[operation_names[term.operation]](width) for term in branch) for branch in cell
        )
        self.merge = nn.Sequential(nn.ReLU(), nn.Conv2d(width * len(cell), width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Map features, `(B, width, H_i, W_i)` by source, to `(B, width, max H_i, max W_i)`."""
        shapes = [features[term.source].shape for branch in self._cell for term in branch]
        size = max(shape[-2] for shape in shapes), max(shape[-1] for shape in shapes)
        sums = []
        for branch, operations in zip(self._cell, self.branches, strict=True):
            assert isinstance(operations, nn.ModuleList)  # noqa: S101 - ModuleList forgets the type
            terms = [
                resize(operation(features[term.source]), size)
                for term, operation in zip(branch, operations, strict=True)
            ]
            sums.append(sum(terms[1:], start=terms[0]))
        return self.merge(torch.cat(sums, dim=1))  # type: ignore[no-any-return]


class FusionDecoder(nn.Module):
    """Cells over an encoder's features; the last cell gives the output, at the first feature's resolution.

    Features are first projected to the decoder's width; those that no cell reads are not.
    """

    def __init__(
        self,
        cells: Mapping[int, Cell],
        operation_names: tuple[str, ...],
        encoder_channels: tuple[int, ...],
        width: int,
    ) -> None:
        """Build the cells.

        Args:
            cells: By source number; a cell may read those before it. Without cells the output is zero.
            operation_names: What the terms' indices mean; keys of `OPERATIONS`.
            encoder_channels: Of the encoder's outputs, in order.
            width: Channels of all features within, and of the output.
        """
        super().__init__()
        self._width = width
        sources = {term.source for cell in cells.values() for branch in cell for term in branch}
        self.projections = nn.ModuleDict(
            {
                str(source): nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
                for source, channels in enumerate(encoder_channels)
                if source in sources
            }
        )
        self.cells = nn.ModuleDict(
            {str(source): FusionCell(cells[source], operation_names, width) for source in sorted(cells)}
        )

    def forward(self, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the encoder's outputs, `(B, C_i, H_i, W_i)`, to `(B, width, H_0, W_0)`."""
        return self.all_cells(encoded)[-1]

    def all_cells(self, encoded: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return what each cell computes: all but the last at resolutions of their own."""
        finest = encoded[0]
        size = (finest.shape[-2], finest.shape[-1])
        if not self.cells:
            return (finest.new_zeros((finest.shape[0], self._width, *size)),)
        features = {int(source): project(encoded[int(source)]) for source, project in self.projections.items()}
        for source, cell in self.cells.items():
            features[int(source)] = cell(features)
        *earlier, last = (features[int(source)] for source in self.cells)
        return (*earlier, resize(last, size))
