"""A user's own classification data: a folder of images for each class."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from nas.data.base import Examples, IndexedDataset, Split
from nas.data.files import (
    FaultList,
    check_height_width,
    check_in_channels,
    choose_validation,
    expand_root,
    find_folder,
    hash_files,
    list_images,
    open_image,
    require_folder,
    to_array,
)
from nas.errors import DataError
from nas.values.bounds import bounded

_Item = tuple[Path, int]  # image, index of its class


class ImageFolder(IndexedDataset):
    """Images sorted into folders: `SPLIT/CLASS/NAME.(jpg|png)`.

    SPLIT is `train`, `test` (needed only when it is read), and `val` or `validation`; without the
    latter, a part of each class of `train` is for validation. The folders in `train` name the classes, in
    alphabetical order; a split may lack some, but not have others.

    Args:
        root: The folder that holds the splits; `~` and `$VARIABLES` are expanded.
        image_size: Height and width, or one number for both; images are resized to it bilinearly.
        in_channels: 1 for grey, 3 for colour; images are converted.
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
        image_size: int | tuple[int, int],
        in_channels: Literal[1, 3] = 3,
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self._root = root
        self._image_size = check_height_width(image_size)
        self._in_channels = check_in_channels(in_channels)
        self._validation_fraction = validation_fraction
        self._seed = seed

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        folder = require_folder(expand_root(self._root), Split.TRAIN)
        names = tuple(sorted(_class_folders(folder)))
        if len(names) < 2:
            raise DataError([f"{folder}: must hold a folder for each of 2 classes or more, has {len(names)}"])
        return names

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the folders in `train`.

        Raises:
            DataError: If there are fewer than two.
        """
        return self._class_names

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self._in_channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._image_size

    @property
    def is_dense(self) -> bool:
        """False: classification."""
        return False

    def check(self) -> None:
        """Decode every training and validation image.

        Raises:
            DataError: Naming all faults that were found.
        """
        faults = FaultList()
        for items in self._items.values():
            for path, _ in items:
                faults.attempt(functools.partial(open_image, path))
        faults.raise_if_any()

    def n_examples(self, split: Split) -> int:
        """Count the files of the split."""
        return len(self._items_of(split))

    def read(self, split: Split, rows: Sequence[int]) -> Examples:
        """Decode images; a split is sorted by class and name.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """
        of_split = self._items_of(split)
        items = [of_split[row] for row in rows]
        images = np.empty((len(items), self._in_channels, *self._image_size), dtype=np.uint8)
        faults = FaultList()
        for index, (path, _) in enumerate(items):
            if (image := faults.attempt(functools.partial(open_image, path))) is not None:
                images[index] = to_array(image, self._in_channels, self._image_size)
        faults.raise_if_any()
        labels = torch.tensor([label for _, label in items], dtype=torch.int64)
        return Examples(torch.from_numpy(images), labels)

    def _items_of(self, split: Split) -> list[_Item]:
        if split is Split.TEST:
            return self._list_items(require_folder(expand_root(self._root), split))
        return self._items[split]

    def fingerprint(self) -> str:
        """Hash the options, which images are for validation, and all training and validation files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        root = expand_root(self._root)
        names = [path.relative_to(root).as_posix() for path, _ in self._items[Split.VALIDATION]]
        options = repr((self._class_names, self._image_size, self._in_channels, names))
        return hash_files([path for items in self._items.values() for path, _ in items], root, options)

    @functools.cached_property
    def _items(self) -> dict[Split, list[_Item]]:
        """The training and the validation images."""
        root = expand_root(self._root)
        train_folder = require_folder(root, Split.TRAIN)
        validation_folder = find_folder(root, Split.VALIDATION)
        faults = FaultList()
        train = faults.attempt(lambda: self._list_items(train_folder)) or []
        if validation_folder is not None:
            validation = faults.attempt(lambda: self._list_items(validation_folder)) or []
        else:
            chosen = choose_validation([label for _, label in train], self._validation_fraction, self._seed)
            validation = [item for item, is_chosen in zip(train, chosen, strict=True) if is_chosen]
            train = [item for item, is_chosen in zip(train, chosen, strict=True) if not is_chosen]
            if not validation:
                faults.add(train_folder, "must hold 2 images of a class or more, one of them for validation")
        self._add_empty_classes(train_folder, train, faults)
        faults.raise_if_any()
        return {Split.TRAIN: train, Split.VALIDATION: validation}

    def _add_empty_classes(self, folder: Path, items: list[_Item], faults: FaultList) -> None:
        found = {label for _, label in items}
        for label, name in enumerate(self._class_names):
            if items and label not in found:
                faults.add(folder / name, "holds no .jpg or .png images")

    def _list_items(self, folder: Path) -> list[_Item]:
        """Return a split's images, sorted by class and name.

        Raises:
            DataError: Naming every folder that is no class's, or the split's if it is empty.
        """
        faults = FaultList()
        folders = _class_folders(folder)
        for name in sorted(folders.keys() - set(self._class_names)):
            faults.add(folders[name], f"is no class: {Split.TRAIN}/{name} is missing")
        items = [
            (path, label)
            for label, name in enumerate(self._class_names)
            if name in folders
            for path in list_images(folders[name])
        ]
        if not items:
            faults.add(folder, "holds no .jpg or .png images in folders of classes")
        faults.raise_if_any()
        return items


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the visible folders in `folder` by name."""
    return {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
