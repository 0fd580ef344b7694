"""Search spaces, one in a file, by the `kind` under which a configuration names them."""

from search_spaces.base import SearchSpace
from search_spaces.spaces.integers import Integers
from search_spaces.spaces.mobile import Mobile
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell
from search_spaces.spaces.tabular import Tabular

SEARCH_SPACES: dict[str, type[SearchSpace]] = {
    "nasbench201": NasBench201,
    "mobile": Mobile,
    "segmentation_cell": SegmentationCell,
    "integers": Integers,
    "tabular": Tabular,
}

__all__ = ["SEARCH_SPACES", "Integers", "Mobile", "NasBench201", "SegmentationCell", "Tabular"]
