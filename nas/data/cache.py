"""Decoded examples on disk, once for all processes: written as an artifact, read memory-mapped."""

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.data.base import Dataset, Examples, Split
from nas.errors import InputError
from nas.store.artifacts import ArtifactCache

_N_AT_A_TIME = 256  # decoded images in memory
_LARGE_BYTES = 10**9  # from here on it is said before it is written
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


def load_array(path: Path) -> np.ndarray:
    """Map a `.npy` file into memory; what is written to the array stays in this process."""
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def new_array(path: Path, dtype: Any, shape: Sequence[int]) -> np.memmap[Any, Any]:
    """Return a new `.npy` file, to be written to part by part; its place on the disk is taken at once.

    Raises:
        InputError: If the disk has no place for it.
    """
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise _no_place(path, n_bytes, free)
    if n_bytes >= _LARGE_BYTES:
        _log.warning("%s: writing %s, of %s that are free", path.parent, _gigabytes(n_bytes), _gigabytes(free))
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
    if hasattr(os, "posix_fallocate"):  # a full disk would otherwise end the process at some later write
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise _no_place(path, n_bytes, free) from error
    return array


def _no_place(path: Path, n_bytes: int, free: int) -> InputError:
    sizes = f"{_gigabytes(n_bytes)}, the disk has {_gigabytes(free)} free"
    return InputError(
        f"{path.parent}: {path.stem.lstrip('.')} takes {sizes}; free some, or name a --run-dir on another disk"
    )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


@dataclass(frozen=True)
class ExamplesFile:
    """One split of a data set on disk.

    Attributes:
        images: `.npy`, `(n, C, H, W)` uint8.
        targets: `.npy`, `(n,)` int64 or `(n, H, W)` uint8.
    """

    images: Path
    targets: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Both."""
        return (self.images, self.targets)

    def __len__(self) -> int:
        return len(load_array(self.targets))

    def first(self, n: int) -> Examples:
        """Return the first `n` examples, all if there are fewer."""
        examples = self.load()
        return Examples(examples.images[:n], examples.targets[:n])

    def load(self) -> Examples:
        """Return the examples, memory-mapped: pages are read when they are used."""
        return Examples(torch.from_numpy(load_array(self.images)), torch.from_numpy(load_array(self.targets)))


def write_examples(images: Path, targets: Path, n: int, parts: Iterable[Examples]) -> None:
    """Write `n` examples, given in parts one of which is in memory at a time, to two `.npy` files.

    Raises:
        InputError: If the disk has no place for them.
    """
    arrays: list[np.memmap[Any, Any]] = []
    start = 0
    for part in parts:
        values = (part.images.numpy(), part.targets.numpy())
        if not arrays:
            arrays = [
                new_array(path, v.dtype, (n, *v.shape[1:])) for path, v in zip((images, targets), values, strict=True)
            ]
        for array, value in zip(arrays, values, strict=True):
            array[start : start + len(value)] = value
        start += len(part)
    for array in arrays:
        array.flush()


def cache_examples(cache: ArtifactCache, dataset: Dataset, split: Split) -> ExamplesFile:
    """Return a training or validation split as files, decoding it only if no run did before.

    Raises:
        ValueError: If `split` is the test split, which is read only where its reading is logged.
        DataError: If files of the data set are missing or broken.
        InputError: If the disk has no place for it.
    """
    if split is Split.TEST:
        raise ValueError("the test split is never cached: nothing but a retraining reads it")

    def write(images: Path, targets: Path) -> None:
        write_examples(images, targets, *dataset.parts(split, _N_AT_A_TIME))

    depends_on = {"data": dataset.fingerprint(), "split": split}
    paths, _ = cache.get_together(("images", "targets"), depends_on, ".npy", write)
    return ExamplesFile(*paths)
