"""Faces drawn from random numbers: the data set that needs no download."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le, Unit

from nas.data.base import Examples, IndexedDataset, Split
from nas.data.face_drawing import CLASS_NAMES, draw_face
from nas.values.bounds import bounded

_SPLIT_IDS = {Split.TRAIN: 0, Split.VALIDATION: 1, Split.TEST: 2}
_N_FINGERPRINTED = 4


class SyntheticFaces(IndexedDataset):
    """Colour images of one face each, with the class of each pixel.

    Pose, colours, light, noise and blur vary; fringes, glasses, hands and other things hide parts. Left and
    right are the image's: `left_eye` is the eye on the viewer's left. The two eyes look alike, as do the two
    brows, so only their place in the face tells them apart; whoever mirrors an image has to swap these
    classes. What hides a face is background, and so are clothes; neck, ears, nose and beard are skin;
    a fringe is hair. Some background ellipses have the colours of skin and hair.

    An example depends on `seed`, `image_size`, its split and its index only, not on how many are drawn.

    Args:
        image_size: Height and width in pixels; at least 32.
        n_train: Number of training examples.
        n_validation: Number of validation examples.
        n_test: Number of test examples.
        seed: Of all random numbers.

    Raises:
        ValueError: If an option cannot be.
    """

    @bounded
    def __init__(
        self,
        image_size: Annotated[int, Ge(32), Le(2**14), Unit("pixels")] = 64,
        n_train: Annotated[int, Ge(1), Le(10**7)] = 1024,
        n_validation: Annotated[int, Ge(1), Le(10**7)] = 256,
        n_test: Annotated[int, Ge(1), Le(10**7)] = 512,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
    ) -> None:
        self._size = image_size
        self._seed = seed
        self._n = {Split.TRAIN: n_train, Split.VALIDATION: n_validation, Split.TEST: n_test}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Background first."""
        return CLASS_NAMES

    @property
    def in_channels(self) -> int:
        """3."""
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self._size, self._size)

    @property
    def is_dense(self) -> bool:
        """True: segmentation."""
        return True

    def check(self) -> None:
        """Do nothing: there are no files."""

    def n_examples(self, split: Split) -> int:
        """Return the number that was asked for."""
        return self._n[split]

    def read(self, split: Split, rows: Sequence[int]) -> Examples:
        """Draw examples."""
        return Examples(*_drawn(self._size, self._seed, _SPLIT_IDS[split], rows))

    def load(self, split: Split) -> Examples:
        """Return the split; drawn once in a process, then copied."""
        images, masks = _draw(self._size, self._seed, _SPLIT_IDS[split], self._n[split])
        return Examples(images.clone(), masks.clone())

    def fingerprint(self) -> str:
        """Hash the options that matter and the first examples, so that a change of the drawing shows."""
        n_train, n_validation = self._n[Split.TRAIN], self._n[Split.VALIDATION]
        digest = hashlib.sha256(f"{self._size}:{self._seed}:{n_train}:{n_validation}".encode())
        for index in range(min(n_train, _N_FINGERPRINTED)):
            for array in _draw_example(self._size, self._seed, _SPLIT_IDS[Split.TRAIN], index):
                digest.update(array.tobytes())
        return digest.hexdigest()


def _draw_example(size: int, seed: int, split_id: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    return draw_face(size, np.random.default_rng(np.random.SeedSequence([seed, split_id, index])))


@functools.lru_cache(maxsize=4)
def _draw(size: int, seed: int, split_id: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `(n, 3, size, size)` images and `(n, size, size)` masks, both uint8."""
    return _drawn(size, seed, split_id, range(n))


def _drawn(size: int, seed: int, split_id: int, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.empty((len(rows), 3, size, size), dtype=np.uint8)
    masks = np.empty((len(rows), size, size), dtype=np.uint8)
    for index, row in enumerate(rows):
        images[index], masks[index] = _draw_example(size, seed, split_id, row)
    return torch.from_numpy(images), torch.from_numpy(masks)
