"""An encoder of MobileNetV2 blocks under a decoder of searched cells, for dense prediction."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Len, MultipleOf
from pydantic.dataclasses import dataclass
from torch import nn

from search_spaces.base import OPTIONS, PretrainableSpace, StagedNetwork
from search_spaces.blocks.cells import Cell, FusionDecoder, Term
from search_spaces.blocks.encoders import ENCODER_STRIDES, MobileEncoder, encoder_channels
from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import LearnedUpsampling, resize
from search_spaces.drawing.cell_drawing import CellGraph, draw_cells
from search_spaces.genotype import Gene, GeneKind, Genotype

SEGMENTATION_OPERATIONS = (
    "none",
    "skip",
    "conv_1x1",
    "conv_3x3",
    "separable_3x3",
    "separable_5x5",
    "dilated_3",
    "dilated_6",
    "dilated_12",
    "squeeze_excite",
    "global_average_pool",
)
SEGMENTATION_HEADS = ("bilinear", "learned")
_NONE = Term(operation=0, source=0)
_SKIP = SEGMENTATION_OPERATIONS.index("skip")
_N_ENCODER_OUTPUTS = len(ENCODER_STRIDES)


_Width = Annotated[int, Gt(0), Le(4096), MultipleOf(8)]


@dataclass(frozen=True, config=OPTIONS)
class SegmentationCell(PretrainableSpace):
    """Decoder cells over an encoder's features.

    A cell has branches; a branch adds two terms; a term is an operation on an encoder output or an earlier
    cell. Branches are concatenated and merged by a 1x1 convolution. The last cell feeds the head.
    Nothing is built for what cannot reach the output: terms of `none`, terms that read a cell of nothing
    but such terms, cells that nobody reads, and stages of the encoder behind the last that is read. The
    defaults give 1.3e32 genotypes.

    Attributes:
        n_cells: Cells of the decoder.
        n_branches: Branches of each cell.
        decoder_widths: What the decoder's width may be, in increasing order.
        encoder_width: Channels of the encoder at stride 4; 16 makes it about 0.18 M parameters. A list, in increasing
            order, makes it a gene: there is then no encoder that all networks share.

    Source:
        Nekrasov et al. 2019, arXiv:1810.10804 (cells over pairs of encoder outputs), and Zoph et al. 2018,
        arXiv:1707.07012 (branches of two operations, concatenated).
    """

    name: ClassVar[str] = "segmentation_cell"
    n_cells: Annotated[int, Ge(1), Le(100)] = 3
    n_branches: Annotated[int, Ge(1), Le(100)] = 3
    decoder_widths: Annotated[tuple[_Width, ...], Len(1)] = (16, 24, 32, 48)
    encoder_width: _Width | Annotated[tuple[_Width, ...], Len(2)] = 16

    def __post_init__(self) -> None:
        if isinstance(self.encoder_width, tuple):
            _check_widths("encoder_width", self.encoder_width)
        _check_widths("decoder_widths", self.decoder_widths)

    @property
    def shares_encoder(self) -> bool:
        """Whether the encoder's width is fixed."""
        return not isinstance(self.encoder_width, tuple)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """For each cell and branch two pairs of source and operation; `encoder_width`, `decoder_width`, `head`."""
        widths = self.encoder_width if isinstance(self.encoder_width, tuple) else ()
        return (
            *itertools.chain.from_iterable(map(self._cell_genes, range(self.n_cells))),
            *([Gene("encoder_width", tuple(map(str, widths)), GeneKind.ORDINAL)] if widths else []),
            Gene("decoder_width", tuple(map(str, self.decoder_widths)), GeneKind.ORDINAL),
            Gene("head", SEGMENTATION_HEADS, GeneKind.CATEGORICAL),
        )

    def canonical(self, genotype: Genotype) -> Genotype:
        """Return the genotype with dead genes at 0, and live terms, branches and cells in one order.

        Dead cells come first; live ones follow, each after what it reads and otherwise the smaller first.
        """
        cells = self.live_cells(genotype)
        n_dead = self.n_cells - len(cells)
        rows = [self._row(()) for _ in range(n_dead)]
        rows += map(self._row, _smallest_order(cells, first=_N_ENCODER_OUTPUTS + n_dead))
        flat = [value for row in rows for term in row for value in (term.source, term.operation)]
        return Genotype(self.name, (*flat, *genotype.genes[len(flat) :]))

    def describe(self, genotype: Genotype) -> str:
        """Return the live cells, e.g. `c2 = conv_3x3(s4) + skip(s16) | skip(c0); width 24; bilinear head`."""
        cells = [f"{_source_name(source)} = {_cell_text(cell)}" for source, cell in self.live_cells(genotype).items()]
        widths = [f"width {self._width(genotype)}"]
        if not self.shares_encoder:
            widths.insert(0, f"encoder width {self._encoder_width(genotype)}")
        return "; ".join([*(cells or ["no cells"]), *widths, f"{SEGMENTATION_HEADS[genotype.genes[-1]]} head"])

    def draw(self, genotype: Genotype) -> str:
        """Return an SVG of the encoder's levels and the live cells, with branches and operations."""
        cells = self.live_cells(genotype)
        channels = encoder_channels(self._encoder_width(genotype))[: _n_stages(cells)]
        graph = CellGraph(
            levels={source: (_source_name(source), n) for source, n in enumerate(channels)},
            cells=cells,
            names={source: _source_name(source) for source in range(_N_ENCODER_OUTPUTS + self.n_cells)},
            operation_names=SEGMENTATION_OPERATIONS,
            width=self._width(genotype),
            head=SEGMENTATION_HEADS[genotype.genes[-1]],
        )
        return draw_cells(graph, f"{self.name}: {len(cells)} of {self.n_cells} cells, decoder width {graph.width}")

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the segmentation network; images of any size, best of multiples of 32."""
        cells = self.live_cells(genotype)  # first, since it checks the genotype
        return self._network(
            cells,
            self._encoder_width(genotype),
            self._width(genotype),
            SEGMENTATION_HEADS[genotype.genes[-1]],
            in_channels=in_channels,
            n_classes=n_classes,
            seed=seed,
        )

    def build_for_pretraining(self, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the whole encoder under the lightest decoder that reads all of it: a sum of its features.

        Its `encoder` is the part that the networks of `build` have too, up to its last stages.

        Raises:
            ValueError: If the encoder's width is a gene.
        """
        if isinstance(self.encoder_width, tuple):
            raise ValueError(f"encoder_width must be one number for pretraining, got {self.encoder_width}")
        branch = tuple(Term(_SKIP, source) for source in range(_N_ENCODER_OUTPUTS))
        cells = {_N_ENCODER_OUTPUTS: (branch,)}
        return self._network(
            cells,
            self.encoder_width,
            self.decoder_widths[-1],
            "bilinear",
            in_channels=in_channels,
            n_classes=n_classes,
            seed=seed,
        )

    def _network(
        self,
        cells: Mapping[int, Cell],
        encoder_width: int,
        width: int,
        head: str,
        *,
        in_channels: int,
        n_classes: int,
        seed: int,
    ) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            encoder = MobileEncoder(in_channels, encoder_width, _n_stages(cells))
            decoder = FusionDecoder(cells, SEGMENTATION_OPERATIONS, encoder.channels, width)
            network = SegmentationNetwork(encoder, decoder, width=width, head=head, n_classes=n_classes)
        initialize(network, seed)
        return network

    def live_cells(self, genotype: Genotype) -> dict[int, Cell]:
        """Return what reaches the output: by source number, in order, cells of live branches of live terms.

        Raises:
            GenotypeError: If `genotype` is not one of this space.
        """
        self.validate(genotype)
        fed: dict[int, Cell] = {}
        for source, branches in enumerate(self._parse(genotype), start=_N_ENCODER_OUTPUTS):
            live = (tuple(term for term in branch if _is_fed(term, fed)) for branch in branches)
            if cell := tuple(branch for branch in live if branch):
                fed[source] = cell
        used = {_N_ENCODER_OUTPUTS + self.n_cells - 1}
        for source in sorted(fed, reverse=True):
            if source in used:
                used |= {term.source for branch in fed[source] for term in branch}
        return {source: cell for source, cell in fed.items() if source in used}

    def _cell_genes(self, cell: int) -> Iterator[Gene]:
        sources = tuple(_source_name(source) for source in range(_N_ENCODER_OUTPUTS + cell))
        for branch, side in itertools.product(range(self.n_branches), "ab"):
            name = f"cell_{cell}_branch_{branch}{side}"
            yield Gene(f"{name}_source", sources, GeneKind.CATEGORICAL)
            yield Gene(f"{name}_operation", SEGMENTATION_OPERATIONS, GeneKind.CATEGORICAL)

    def _parse(self, genotype: Genotype) -> Iterator[Cell]:
        values = iter(genotype.genes)
        for _ in range(self.n_cells):
            yield tuple(
                tuple(Term(source=next(values), operation=next(values)) for _ in range(2))
                for _ in range(self.n_branches)
            )

    def _row(self, cell: Cell) -> Iterator[Term]:
        """Yield a cell's terms in order, filled up with none, which sorts first."""
        missing = self.n_branches - len(cell)
        yield from itertools.chain.from_iterable([(_NONE, _NONE)] * missing)
        for branch in cell:
            yield from (_NONE,) * (2 - len(branch))
            yield from branch

    def _encoder_width(self, genotype: Genotype) -> int:
        if isinstance(self.encoder_width, tuple):
            return self.encoder_width[genotype.genes[-3]]
        return self.encoder_width

    def _width(self, genotype: Genotype) -> int:
        return self.decoder_widths[genotype.genes[-2]]


class SegmentationNetwork(StagedNetwork):
    """`head(decoder(encoder(x)))`, at the size of the input.

    Args:
        encoder: Maps images to up to four features; `channels` tells theirs.
        decoder: Maps the features to one at stride 4.
        width: Channels of that.
        head: A name in `HEADS`.
        n_classes: Channels of the logits.

    Attributes:
        head: Maps what the decoder gives to logits at stride 1.
    """

    def __init__(
        self, encoder: MobileEncoder, decoder: FusionDecoder, *, width: int, head: str, n_classes: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = HEADS[head](width, n_classes)
        self._width = width
        self._n_classes = n_classes

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features of `(B, in_channels, H, W)` at strides 4, 8, 16, 32, as many as the decoder reads."""
        return tuple(self.encoder(images))

    def decode(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Return the logits, `(B, n_classes, *size)`."""
        return resize(self.head(self.decoder(features)), size)  # sizes that are no multiple of 4

    def decode_with_auxiliary(
        self, features: Sequence[torch.Tensor], size: tuple[int, int], heads: nn.Module
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits, and for each cell but the last what its head says, from the first cell on."""
        assert isinstance(heads, nn.ModuleList)  # noqa: S101 - stated in the contract
        *earlier, last = self.decoder.all_cells(features)
        said = tuple(resize(head(cell), size) for head, cell in zip(heads, earlier, strict=True))
        return resize(self.head(last), size), said

    def new_auxiliary_heads(self, seed: int) -> nn.ModuleList:
        """Return a classifier for each cell but the last: ReLU and a 1x1 convolution.

        Source:
            Nekrasov et al. 2019, arXiv:1810.10804, section 3.2: auxiliary cells over the decoder's inner cells.
            Differs: a classifier alone, without the cell's operations before it.
        """
        n_heads = max(len(self.decoder.cells) - 1, 0)
        with torch.random.fork_rng(devices=[]):
            heads = nn.ModuleList(
                nn.Sequential(nn.ReLU(), nn.Conv2d(self._width, self._n_classes, 1)) for _ in range(n_heads)
            )
        initialize(heads, seed)
        return heads


class BilinearHead(nn.Sequential):
    """Classifies at stride 4 and interpolates the logits."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(width, n_classes, 1),
            nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False),
        )


class LearnedHead(nn.Sequential):
    """Classifies at stride 4 and upsamples the logits by transposed convolutions, which start as interpolation.

    Source:
        Long et al. 2015, arXiv:1411.4038: deconvolutions that start as bilinear interpolation and are learned.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(width, n_classes, 1), LearnedUpsampling(n_classes), LearnedUpsampling(n_classes)
        )


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"bilinear": BilinearHead, "learned": LearnedHead}


def _check_widths(option: str, widths: tuple[int, ...]) -> None:
    if any(a >= b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"{option} must be in increasing order, got {widths}")


def _n_stages(cells: Mapping[int, Cell]) -> int:
    """Return how many stages of the encoder are built: up to the last that is read, and the first at least."""
    sources = {term.source for cell in cells.values() for term in _terms(cell)}
    return 1 + max((source for source in sources if source < _N_ENCODER_OUTPUTS), default=0)


def _is_fed(term: Term, cells: Mapping[int, Cell]) -> bool:
    return term.operation != _NONE.operation and (term.source < _N_ENCODER_OUTPUTS or term.source in cells)


def _smallest_order(cells: Mapping[int, Cell], first: int) -> tuple[Cell, ...]:
    """Return `cells`, renumbered from `first` in their smallest order, with terms and branches sorted.

    Places one cell after the other, each time the smallest of those that read only what is placed. Equal
    ones are tried each: which of them comes first shows only in who reads them.
    """
    # Of each tie: the cells placed so far, and the new number of everything that can be read.
    ties: list[tuple[tuple[Cell, ...], dict[int, int]]] = [((), {i: i for i in range(_N_ENCODER_OUTPUTS)})]
    for position in range(first, first + len(cells)):
        ready = [
            (_renumbered(cell, numbers), source, placed, numbers)
            for placed, numbers in ties
            for source, cell in cells.items()
            if source not in numbers and all(term.source in numbers for term in _terms(cell))
        ]
        smallest = min(cell for cell, *_ in ready)
        ties = [
            ((*placed, cell), {**numbers, source: position})
            for cell, source, placed, numbers in ready
            if cell == smallest
        ]
    return ties[0][0]


def _renumbered(cell: Cell, numbers: Mapping[int, int]) -> Cell:
    return tuple(sorted(tuple(sorted(Term(t.operation, numbers[t.source]) for t in branch)) for branch in cell))


def _terms(cell: Cell) -> Iterator[Term]:
    return itertools.chain.from_iterable(cell)


def _source_name(source: int) -> str:
    if source < _N_ENCODER_OUTPUTS:
        return f"s{ENCODER_STRIDES[source]}"
    return f"c{source - _N_ENCODER_OUTPUTS}"


def _cell_text(cell: Cell) -> str:
    return " | ".join(
        " + ".join(f"{SEGMENTATION_OPERATIONS[t.operation]}({_source_name(t.source)})" for t in branch)
        for branch in cell
    )
