"""Decoded examples on disk, once for all processes: written as an artifact, read memory-mapped."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.artifacts import ArtifactCache
from nas.data.base import Dataset, Examples, Split


def load_array(path: Path) -> np.ndarray:
    """Map a `.npy` file into memory; what is written to the array stays in this process."""
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


@dataclass(frozen=True)
class ExamplesFile:
    """One split of a data set on disk.

    Attributes:
        images: `.npy`, `(n, C, H, W)` uint8.
        targets: `.npy`, `(n,)` int64 or `(n, H, W)` uint8.
    """

    images: Path
    targets: Path

    def load(self) -> Examples:
        """Return the examples, memory-mapped: pages are read when they are used."""
        return Examples(torch.from_numpy(load_array(self.images)), torch.from_numpy(load_array(self.targets)))


def cache_examples(cache: ArtifactCache, dataset: Dataset, split: Split) -> ExamplesFile:
    """Return a training or validation split as files, decoding it only if no run did before.

    Raises:
        ValueError: If `split` is the test split, which is read only where its reading is logged.
        DataError: If files of the data set are missing or broken.
    """
    if split is Split.TEST:
        raise ValueError("the test split is never cached: nothing but a retraining reads it")
    depends_on = {"data": dataset.fingerprint(), "split": split}
    paths = {part: cache.path(part, depends_on, ".npy") for part in ("images", "targets")}
    if not all(path.exists() for path in paths.values()):
        examples = dataset.load(split)
        for part, tensor in (("images", examples.images), ("targets", examples.targets)):
            cache.get(part, depends_on, ".npy", functools.partial(np.save, arr=tensor.numpy()))
    return ExamplesFile(paths["images"], paths["targets"])
