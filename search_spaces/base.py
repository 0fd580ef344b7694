"""What every search space offers, and what its author has to write.

A search space is a frozen dataclass: its fields are its options. Its author writes `genes`; where some
genotypes build the same network also `canonical`; for networks `build`.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict
from torch import nn

from search_spaces.cell_graph import CellGraph
from search_spaces.drawing.svg import draw_lines
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Gene, Genotype

OPTIONS = ConfigDict(extra="forbid", allow_inf_nan=False)
"""How pydantic reads the fields of a space: its options, with bounds in their types."""


class SearchSpace(ABC):
    """A finite set of genotypes. Subclasses are frozen dataclasses.

    Attributes:
        name: The `kind` under which a configuration names the space.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The decisions, in the order of a genotype's values."""

    def canonical(self, genotype: Genotype) -> Genotype:
        """Return the representative of all genotypes that build the same network as `genotype`.

        Idempotent. The default merges nothing.
        """
        return genotype

    def describe(self, genotype: Genotype) -> str:
        """Return one line of text that tells a person what `genotype` is."""
        self.validate(genotype)
        return " ".join(
            f"{gene.name}={gene.choices[value]}" for gene, value in zip(self.genes, genotype.genes, strict=True)
        )

    def draw(self, genotype: Genotype) -> str:
        """Return an SVG document that shows a person what `genotype` is.

        The default writes out the genes.
        """
        self.validate(genotype)
        lines = [f"{gene.name}: {gene.choices[value]}" for gene, value in zip(self.genes, genotype.genes, strict=True)]
        return draw_lines(self.name, lines or [self.describe(genotype)])

    @property
    def cell_graph(self) -> CellGraph | None:
        """The graph whose edges the genes fill, for predictors that read it; `None` where genes mean something else."""
        return None

    @property
    def options(self) -> dict[str, Any]:
        """The space's options by name, as plain values."""
        assert dataclasses.is_dataclass(self)  # noqa: S101 - stated in the class's contract
        return dataclasses.asdict(self)

    def check(self) -> None:  # noqa: B027 - most spaces rest on nothing outside
        """Check what the space reads from outside, files say; a run calls it once at its start.

        Raises:
            SearchSpaceError: If something is missing or broken.
        """

    @property
    def n_genotypes(self) -> int:
        """The number of genotypes, those that build the same network counted each."""
        return math.prod(gene.n_values for gene in self.genes)

    def genotype(self, values: Sequence[int]) -> Genotype:
        """Return the genotype with these gene values.

        Raises:
            GenotypeError: If a value is missing or out of its gene's range.
        """
        genotype = Genotype(self.name, tuple(int(value) for value in values))
        self.validate(genotype)
        return genotype

    def nearest(self, values: Sequence[int]) -> Genotype:
        """Return the genotype with these gene values or, where that combination is not of the space, one close by.

        Controllers that make genotypes out of others' genes call this.

        Raises:
            GenotypeError: If a value is missing or out of its gene's range.
        """
        return self.genotype(values)

    def validate(self, genotype: Genotype) -> None:
        """Check that `genotype` is one of this space.

        Raises:
            GenotypeError: If it names another space, or a gene is missing or out of range.
        """
        if genotype.space != self.name:
            raise GenotypeError(f"genotype of space {genotype.space!r} given to space {self.name!r}")
        if len(genotype.genes) != len(self.genes):
            raise GenotypeError(f"a genotype of {self.name!r} has {len(self.genes)} genes, got {len(genotype.genes)}")
        for gene, value in zip(self.genes, genotype.genes, strict=True):
            if not 0 <= value < gene.n_values:
                raise GenotypeError(f"gene {gene.name!r} takes 0 .. {gene.n_values - 1}, got {value}")

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Return a genotype drawn uniformly over gene values, not made canonical."""
        return Genotype(self.name, tuple(int(rng.integers(gene.n_values)) for gene in self.genes))

    def enumerate(self) -> Iterator[Genotype]:
        """Yield every genotype in lexicographic order of its values."""
        for values in itertools.product(*(range(gene.n_values) for gene in self.genes)):
            yield Genotype(self.name, values)

    def fingerprint(self, genotype: Genotype) -> str:
        """Return 64 hex digits that identify this space, its options and the genes of `genotype`.

        `genotype` is taken as it is: make it canonical first where equal networks must agree.
        """
        content = json.dumps([self.name, self.options, list(genotype.genes)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class ModelSpace(SearchSpace):
    """A search space whose genotypes build networks."""

    @abstractmethod
    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the untrained network that `genotype` describes, in train mode, on the CPU.

        Equal arguments give equal weights, whatever the state of torch's global generator, which is
        left as it was. The network maps `(B, in_channels, H, W)` to logits: `(B, n_classes)` for
        classification, `(B, n_classes, H, W)` for segmentation.

        Raises:
            GenotypeError: If `genotype` is not one of this space.
        """


class StagedNetwork(nn.Module, ABC):
    """A network for dense prediction whose decoder can be trained on stored features of its encoder.

    `forward(images)` is `decode(encode(images), size of the images)`. Auxiliary heads serve the training alone and
    are no part of the network: they are in no `state_dict`, count or export of it. Who trains makes them, optimises
    their parameters with the network's, adds the loss of what they say, and drops them.

        heads = network.new_auxiliary_heads(seed)
        logits, auxiliary = network.decode_with_auxiliary(network.encode(images), size, heads)

    Attributes:
        encoder: All that `encode` uses; no other method uses it.
    """

    encoder: nn.Module

    @abstractmethod
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the features of `(B, in_channels, H, W)`: `(B, C_i, H_i, W_i)`, from fine to coarse."""

    @abstractmethod
    def decode_with_auxiliary(
        self, features: Sequence[torch.Tensor], size: tuple[int, int], heads: nn.Module
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits, and what `heads` say on the way to them; all `(B, n_classes, *size)`.

        Args:
            features: As of `encode`; further ones behind them are not read, so that networks which use fewer stages
                of one encoder take the same stored features.
            size: Height and width of the images.
            heads: Of this network's `new_auxiliary_heads`. Those of a network with one cell say nothing.
        """

    @abstractmethod
    def decode(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Return the logits, `(B, n_classes, *size)`; arguments as for `decode_with_auxiliary`."""

    @abstractmethod
    def new_auxiliary_heads(self, seed: int) -> nn.Module:
        """Return untrained auxiliary heads, on the CPU. Equal seeds give equal weights."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits `(B, n_classes, H, W)`."""
        return self.decode(self.encode(images), (images.shape[-2], images.shape[-1]))


class PretrainableSpace(ModelSpace):
    """A space whose networks share a part, their `encoder`, which can be trained once for all of them.

    Its networks, those of `build_for_pretraining` too, are `StagedNetwork`s where their features can be stored.
    """

    @property
    def shares_encoder(self) -> bool:
        """Whether all networks have the same encoder up to its last stages: one pretrained, one set of features.

        Where it is false, neither pretraining nor stored features are to be had.
        """
        return True

    @abstractmethod
    def build_for_pretraining(self, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return a network whose module `encoder` has all the weights that any candidate's `encoder` has.

        Names and shapes of these weights agree; a candidate's encoder may have fewer. Arguments as for
        `build`.

        Raises:
            ValueError: If not `shares_encoder`.
        """
