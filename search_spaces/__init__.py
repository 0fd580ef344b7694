"""What can be built: genotypes, search spaces and the networks that they describe.

Names are imported when they are first used: a genotype can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace, StagedNetwork
    from search_spaces.cell_graph import CellGraph
    from search_spaces.errors import GenotypeError, SearchSpaceError
    from search_spaces.genotype import Gene, GeneKind, Genotype
    from search_spaces.references.reference_models import REFERENCE_MODELS, ReferenceModel, ResNet, UNet
    from search_spaces.spaces import SEARCH_SPACES, Integers, Mobile, NasBench201, SegmentationCell, Tabular

_MODULES = {
    "base": ("ModelSpace", "PretrainableSpace", "SearchSpace", "StagedNetwork"),
    "cell_graph": ("CellGraph",),
    "errors": ("GenotypeError", "SearchSpaceError"),
    "genotype": ("Gene", "GeneKind", "Genotype"),
    "references.reference_models": ("REFERENCE_MODELS", "ReferenceModel", "ResNet", "UNet"),
    "spaces": ("SEARCH_SPACES", "Integers", "Mobile", "NasBench201", "SegmentationCell", "Tabular"),
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
    "Mobile",
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


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
