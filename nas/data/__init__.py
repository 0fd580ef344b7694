"""Data sets: where images and targets come from, in three splits."""

from nas.data.base import Dataset, Examples, Split
from nas.data.fashion_mnist import FashionMnist
from nas.data.image_folder import ImageFolder
from nas.data.image_mask_folder import ImageMaskFolder
from nas.data.parquet import ParquetImages
from nas.data.synthetic_faces import SyntheticFaces

DATASETS: dict[str, type[Dataset]] = {
    "synthetic_faces": SyntheticFaces,
    "fashion_mnist": FashionMnist,
    "image_mask_folder": ImageMaskFolder,
    "image_folder": ImageFolder,
    "parquet": ParquetImages,
}

__all__ = [
    "DATASETS",
    "Dataset",
    "Examples",
    "FashionMnist",
    "ImageFolder",
    "ImageMaskFolder",
    "ParquetImages",
    "Split",
    "SyntheticFaces",
]
