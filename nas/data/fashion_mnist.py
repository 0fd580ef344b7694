"""Fashion-MNIST, or any other data in its four files: grey images of 28 x 28 in ten classes."""

import functools
import gzip
import io
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le

from nas.data.base import Dataset, Examples, Split
from nas.data.faults import FaultList
from nas.data.files import hash_files, root_or_default
from nas.errors import DataError, InputError
from nas.files import read_foreign
from nas.values.bounds import bounded

_CLASS_NAMES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
_SIDE = 28
_DEFAULT_FOLDER = "fashion_mnist"
_FILES = {
    Split.TRAIN: ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    Split.TEST: ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_MAX_BYTES = 256 << 20  # unpacked; 60,000 images are 45 MiB
_ADVICE = "get the file from https://github.com/zalandoresearch/fashion-mnist and put it there"


class FashionMnist(Dataset):
    """Articles of clothing: 60,000 training images, of which some are for validation, 10,000 for the test.

    Args:
        root: Folder with the four `.gz` files; `$NAS_DATA_ROOT/fashion_mnist` if not given.
        n_validation: How many of the training images are for validation.
        n_train: How many of the others to train on; all if not given. The validation images stay the same.
        seed: Of the choice of images.

    Raises:
        ValueError: If an option cannot be.

    Source:
        Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; the files' format: http://yann.lecun.com/exdb/mnist.
        Differs: it has no validation split; here it is drawn from the training images.
    """

    @bounded
    def __init__(
        self,
        root: Path | None = None,
        n_validation: Annotated[int, Ge(1), Le(60_000)] = 10_000,
        n_train: Annotated[int, Ge(1), Le(60_000)] | None = None,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
    ) -> None:
        self._root = root
        self._n_validation = n_validation
        self._n_train = n_train
        self._seed = seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ten kinds of clothing."""
        return _CLASS_NAMES

    @property
    def in_channels(self) -> int:
        """1: grey."""
        return 1

    @property
    def image_size(self) -> tuple[int, int]:
        """28 x 28."""
        return (_SIDE, _SIDE)

    @property
    def is_dense(self) -> bool:
        """False: classification."""
        return False

    def check(self) -> None:
        """Read the training files whole.

        Raises:
            DataError: Naming all faults that were found.
        """
        _, labels = self._read(Split.TRAIN)
        self._choose(len(labels))

    def load(self, split: Split) -> Examples:
        """Return the split; training and validation in the order of the file.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """
        images, labels = self._read(Split.TEST if split is Split.TEST else Split.TRAIN)
        if split is not Split.TEST:
            chosen = self._choose(len(labels))[split]
            images, labels = images[chosen], labels[chosen]
        return Examples(torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64)))

    def fingerprint(self) -> str:
        """Hash the choice and the training files.

        Raises:
            DataError: If a file cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        root = root_or_default(self._root, _DEFAULT_FOLDER)
        options = f"{self._n_validation}:{self._n_train}:{self._seed}"
        return hash_files([root / name for name in _FILES[Split.TRAIN]], root, options)

    def _choose(self, n: int) -> dict[Split, np.ndarray]:
        """Return the indices of the training and the validation images."""
        wanted = self._n_validation + (self._n_train or 1)
        if wanted > n:
            raise DataError([f"{wanted} training and validation images are asked for, the files hold {n}"])
        order = np.random.default_rng(self._seed).permutation(n)
        validation, rest = order[: self._n_validation], order[self._n_validation :]
        return {Split.TRAIN: np.sort(rest[: self._n_train]), Split.VALIDATION: np.sort(validation)}

    def _read(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Return all images `(n, 28, 28)` and labels `(n,)` of a pair of files, both uint8."""
        root = root_or_default(self._root, _DEFAULT_FOLDER)
        image_path, label_path = (root / name for name in _FILES[split])
        faults = FaultList()
        images = faults.attempt(lambda: read_idx(image_path, (_SIDE, _SIDE)))
        labels = faults.attempt(lambda: read_idx(label_path, ()))
        if labels is not None and len(labels) and labels.max() >= len(_CLASS_NAMES):
            faults.add(label_path, f"holds the label {labels.max()}, must be 0 .. {len(_CLASS_NAMES) - 1}")
        if images is not None and labels is not None and len(images) != len(labels):
            faults.add(label_path, f"holds {len(labels)} labels for {len(images)} images")
        if faults or images is None or labels is None:
            raise faults.error()
        return images, labels


def read_idx(path: Path, item_shape: tuple[int, ...]) -> np.ndarray:
    """Return the content of a gzipped IDX file of unsigned bytes, `(n, *item_shape)` uint8.

    Raises:
        DataError: If the file is missing, damaged, or of another type or shape.
    """
    content = _unpacked(path)
    n_dimensions = 1 + len(item_shape)
    header = np.frombuffer(content[: 4 + 4 * n_dimensions], dtype=">u1")
    magic = bytes([0, 0, 8, n_dimensions])  # two zeros, 8 for unsigned bytes, the number of dimensions
    if len(header) < 4 + 4 * n_dimensions or bytes(header[:4]) != magic:
        raise DataError([f"{path}: must start with {magic.hex()} (IDX), got {bytes(header[:4]).hex()}"])
    n, *sides = header[4:].view(">u4").tolist()
    if tuple(sides) != item_shape:
        raise DataError([f"{path}: must hold items of shape {item_shape}, got {tuple(sides)}"])
    values = np.frombuffer(content, dtype=np.uint8, offset=len(header))
    if len(values) != n * math.prod(item_shape):
        raise DataError([f"{path}: says {n} items of {math.prod(item_shape)} bytes, holds {len(values)} bytes"])
    return values.reshape(n, *item_shape)


def _unpacked(path: Path) -> bytes:
    """Return what a gzipped file holds: the boundary where foreign bytes become ours or a `DataError`."""
    try:
        packed = read_foreign(path, _MAX_BYTES)
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise DataError([f"{path}: file is missing; {_ADVICE}"]) from error
    except InputError as error:
        raise DataError([f"{error}; {_ADVICE}"]) from error
    except Exception as error:
        raise DataError([f"{path}: cannot be unpacked ({error}); {_ADVICE} again"]) from error
    if len(content) > _MAX_BYTES:
        raise DataError([f"{path}: must hold at most {_MAX_BYTES >> 20} MiB unpacked, it holds more; {_ADVICE} again"])
    return content
