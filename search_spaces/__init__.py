"""What can be built: genotypes, search spaces and the networks that they describe."""

from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace, StagedNetwork
from search_spaces.cell_graph import CellGraph
from search_spaces.errors import GenotypeError, SearchSpaceError
from search_spaces.genotype import Gene, GeneKind, Genotype
from search_spaces.references.reference_models import REFERENCE_MODELS, ReferenceModel, ResNet, UNet
from search_spaces.spaces.integers import Integers
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell
from search_spaces.spaces.tabular import Tabular

SEARCH_SPACES: dict[str, type[SearchSpace]] = {
    "nasbench201": NasBench201,
    "segmentation_cell": SegmentationCell,
    "integers": Integers,
    "tabular": Tabular,
}

__all__ = [
    "REFERENCE_MODELS",
    "SEARCH_SPACES",
    "CellGraph",
    "Gene",
    "GeneKind",
    "Genotype",
    "GenotypeError",
    "Integers",
    "ModelSpace",
    "NasBench201",
    "PretrainableSpace",
    "ReferenceModel",
    "ResNet",
    "SearchSpace",
    "SearchSpaceError",
    "SegmentationCell",
    "StagedNetwork",
    "Tabular",
    "UNet",
]
