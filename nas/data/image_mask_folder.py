"""A user's own segmentation data: folders of images and masks of the same names."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from PIL import Image

from nas.data.base import Examples, IndexedDataset, Split
from nas.data.files import (
    FaultList,
    check_class_names,
    check_height_width,
    choose_validation,
    expand_root,
    find_folder,
    hash_files,
    list_images,
    open_image,
    open_mask,
    require_folder,
    to_array,
)
from nas.values.bounds import bounded

_Pair = tuple[Path, Path]  # image, mask


class ImageMaskFolder(IndexedDataset):
    """Colour images with a mask each: `SPLIT/images/NAME.(jpg|png)` and `SPLIT/masks/NAME.png`.

    SPLIT is `train`, `test` (needed only when it is read), and `val` or `validation`; without the
    latter, a part of `train` is for validation. A mask's pixel is the index of its class.

    Args:
        root: The folder that holds the splits; `~` and `$VARIABLES` are expanded.
        class_names: In order of their index.
        image_size: Height and width, or one number for both. Images are resized to it bilinearly, masks by
            the nearest pixel.
        ignore_index: The mask's value for "no class", if there is one; no class's index.
        validation_fraction: The share of `train` for validation, where that has no folder of its own.
        seed: Of the choice of that share.

    Raises:
        ValueError: If an option cannot be.
    """

    @bounded
    def __init__(
        self,
        root: Path,
        *,
        class_names: tuple[str, ...],
        image_size: int | tuple[int, int],
        ignore_index: int | None = None,
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self._root = root
        self._class_names = check_class_names(class_names)
        self._image_size = check_height_width(image_size)
        n_classes = len(self._class_names)
        if ignore_index is not None and not n_classes <= ignore_index <= 255:
            raise ValueError(
                f"ignore_index must be {n_classes} .. 255, since 0 .. {n_classes - 1} are classes, got {ignore_index}"
            )
        self._ignore_index = ignore_index
        self._validation_fraction = validation_fraction
        self._seed = seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """As given."""
        return self._class_names

    @property
    def in_channels(self) -> int:
        """3: colour."""
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._image_size

    @property
    def ignore_index(self) -> int | None:
        """As given."""
        return self._ignore_index

    @property
    def is_dense(self) -> bool:
        """True: segmentation."""
        return True

    def check(self) -> None:
        """Decode every training and validation pair.

        Raises:
            DataError: Naming all faults that were found: partners that are missing, and pairs that are broken.
        """
        faults = FaultList()
        for pairs in self._find_pairs(faults).values():
            for pair in pairs:
                self._decode(pair, faults)
        faults.raise_if_any()

    def n_examples(self, split: Split) -> int:
        """Count the pairs of the split; reading it names what has no partner."""
        return len(self._pairs_of(split, FaultList()))

    def read(self, split: Split, rows: Sequence[int]) -> Examples:
        """Decode pairs; a split is sorted by name.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """
        faults = FaultList()
        of_split = self._pairs_of(split, faults)
        pairs = [of_split[row] for row in rows]
        height, width = self._image_size
        images = np.empty((len(pairs), 3, height, width), dtype=np.uint8)
        masks = np.empty((len(pairs), height, width), dtype=np.uint8)
        for index, pair in enumerate(pairs):
            if (decoded := self._decode(pair, faults)) is not None:
                images[index], masks[index] = decoded
        faults.raise_if_any()
        return Examples(torch.from_numpy(images), torch.from_numpy(masks))

    def _pairs_of(self, split: Split, faults: FaultList) -> list[_Pair]:
        if split is Split.TEST:
            return _list_pairs(require_folder(expand_root(self._root), split), faults)
        return self._pairs[split]

    def fingerprint(self) -> str:
        """Hash the options, which pairs are for validation, and all training and validation files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        names = {split.value: [image.name for image, _ in pairs] for split, pairs in self._pairs.items()}
        options = repr((self._class_names, self._image_size, self._ignore_index, names))
        files = [path for pairs in self._pairs.values() for pair in pairs for path in pair]
        return hash_files(files, expand_root(self._root), options)

    @functools.cached_property
    def _pairs(self) -> dict[Split, list[_Pair]]:
        """The training and the validation pairs."""
        faults = FaultList()
        pairs = self._find_pairs(faults)
        faults.raise_if_any()
        return pairs

    def _find_pairs(self, faults: FaultList) -> dict[Split, list[_Pair]]:
        """Return the training and the validation pairs, without those that `faults` were added for."""
        root = expand_root(self._root)
        train_folder = require_folder(root, Split.TRAIN)
        validation_folder = find_folder(root, Split.VALIDATION)
        train = _list_pairs(train_folder, faults)
        validation: list[_Pair] = []
        if validation_folder is not None:
            validation = _list_pairs(validation_folder, faults)
        elif len(train) == 1 and not faults:
            faults.add(train_folder, "must hold 2 images or more, one of them for validation")
        else:
            chosen = choose_validation([0] * len(train), self._validation_fraction, self._seed)
            validation = [pair for pair, is_chosen in zip(train, chosen, strict=True) if is_chosen]
            train = [pair for pair, is_chosen in zip(train, chosen, strict=True) if not is_chosen]
        return {Split.TRAIN: train, Split.VALIDATION: validation}

    def _decode(self, pair: _Pair, faults: FaultList) -> tuple[np.ndarray, np.ndarray] | None:
        """Return an image `(3, H, W)` and its mask `(H, W)`, both uint8; `None` if faults were added."""
        image_path, mask_path = pair
        image = faults.attempt(lambda: open_image(image_path))
        mask = faults.attempt(lambda: open_mask(mask_path))
        if mask is not None:
            self._check_labels(mask_path, mask, faults)
        if image is None or mask is None:
            return None
        if image.size != mask.size:
            faults.add(mask_path, f"is {_size(mask)}, its image is {_size(image)}")
            return None
        height, width = self._image_size
        resized = mask.resize((width, height), Image.Resampling.NEAREST)
        return to_array(image, 3, self._image_size), np.asarray(resized, dtype=np.uint8)

    def _check_labels(self, path: Path, mask: Image.Image, faults: FaultList) -> None:
        is_known = np.zeros(256, dtype=bool)
        is_known[: len(self._class_names)] = True
        if self._ignore_index is not None:
            is_known[self._ignore_index] = True
        values = np.flatnonzero(np.bincount(np.asarray(mask, dtype=np.uint8).ravel(), minlength=256))
        unknown = values[~is_known[values]].tolist()
        if unknown:
            known = f"0 .. {len(self._class_names) - 1}"
            if self._ignore_index is not None:
                known += f" or {self._ignore_index}"
            faults.add(path, f"holds the values {unknown}, must be {known}")


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height} pixels"


def _list_pairs(folder: Path, faults: FaultList) -> list[_Pair]:
    """Return the pairs of a split, sorted by name.

    Added to `faults`: every image without a mask, mask without an image, and name that is there twice.
    """
    missing = [folder / name for name in ("images", "masks") if not (folder / name).is_dir()]
    for path in missing:
        faults.add(path, "folder is missing")
    if missing:
        return []
    images: dict[str, Path] = {}
    for path in list_images(folder / "images"):
        if path.stem in images:
            faults.add(path, f"has the same name as {images[path.stem].name}")
        images[path.stem] = path
    masks = {path.stem: path for path in list_images(folder / "masks") if path.suffix.lower() == ".png"}
    for name in sorted(images.keys() - masks.keys()):
        faults.add(images[name], f"has no mask {folder / 'masks' / name}.png")
    for name in sorted(masks.keys() - images.keys()):
        faults.add(masks[name], "has no image")
    if not images and not masks:
        faults.add(folder / "images", "holds no .jpg or .png images")
    return [(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())]
