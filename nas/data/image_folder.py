"""A user's own classification data: a folder of images for each class."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt, Unit

from nas.data.base import Examples, IndexedDataset, Split
from nas.data.decoding import decode_image, to_array
from nas.data.faults import FaultList, shown_path
from nas.data.files import check_height_width, check_in_channels, expand_root, hash_files
from nas.data.layouts import CLASS, advice
from nas.data.notes import NoteList
from nas.data.scanning import (
    SPLIT,
    LeftOut,
    check_pattern,
    find_folder,
    list_images,
    require_root,
    split_of,
    visible,
)
from nas.data.splits import SplitRule
from nas.errors import DataError, DataFault
from nas.values.bounds import bounded

_Item = tuple[Path, int]  # image, index of its class


class ImageFolder(IndexedDataset):
    """Images sorted into folders: `SPLIT/CLASS/NAME.*`, or as the pattern says, in any format that Pillow decodes.

    SPLIT is `train` or `training`, `val`, `valid` or `validation`, `test` or `testing`, in letters of any case.
    Without a folder for validation, a part of each class of `train` is for it; the test split is needed only when
    it is read. The folders in `train` name the classes, in alphabetical order; a split may lack some, but not have
    others.

    Args:
        root: The folder that holds the splits; `~` and `$VARIABLES` are expanded.
        image_size: Height and width, or one number for both; images are resized to it bilinearly.
        in_channels: 1 for grey, 3 for colour; images are converted.
        images: Where a class's folder is under `root`: ends in `{class}`; `{split}` stands for the split's name.
            Without it, all splits are chosen from one folder for each class.
        validation_fraction: The share of `train` for validation, where that has no folder of its own.
        test_fraction: The share of `train` for the test, where that has no folder of its own.
        seed: Of the choice of these shares.

    Raises:
        ValueError: If an option cannot be.
    """

    @bounded
    def __init__(
        self,
        root: Path,
        *,
        image_size: Annotated[int | tuple[int, int], Unit("pixels")],
        in_channels: Literal[1, 3] = 3,
        images: str = f"{SPLIT}/{CLASS}",
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
    ) -> None:
        self._root = root
        self._image_size = check_height_width(image_size)
        self._in_channels = check_in_channels(in_channels)
        check_pattern("images", images, ends=CLASS)
        parent, _, last = images.rpartition("/")
        if last != CLASS:
            raise ValueError(f"images must end in /{CLASS}, got {images!r}")
        self._pattern = parent or "."
        self._rule = SplitRule(validation_fraction, test_fraction, seed)

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        folder = self._require_folder(Split.TRAIN)
        names = tuple(sorted(_class_folders(folder)))
        if len(names) < 2:
            fault = f"must hold a folder for each of 2 classes or more, has {len(names)}"
            raise DataError([DataFault(shown_path(folder), fault, remedy=advice(expand_root(self._root)))])
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
        faults, notes = FaultList(), NoteList("Images")
        for split in (Split.TRAIN, Split.VALIDATION):
            for path, _ in self._scanned.items[split]:
                faults.attempt(functools.partial(decode_image, path, functools.partial(notes.add, path)))
        faults.raise_if_any()
        self._decoding_notes = notes.lines()

    _decoding_notes: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """Tell the rule and the sizes of the splits, what was left out, and what is doubtful about images."""
        scan = self._scanned
        rule = self._rule.sentence(
            self._shown(Split.TRAIN), {split: len(items) for split, items in scan.items.items()}, scan.own
        )
        return tuple(line for line in (rule, scan.left_out.line(), *self._decoding_notes) if line)

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
            if (image := faults.attempt(functools.partial(decode_image, path))) is not None:
                images[index] = to_array(image, self._in_channels, self._image_size)
        faults.raise_if_any()
        labels = torch.tensor([label for _, label in items], dtype=torch.int64)
        return Examples(torch.from_numpy(images), labels)

    def fingerprint(self) -> str:
        """Hash the options, which images are for validation, and all training and validation files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        root = expand_root(self._root)
        items = self._scanned.items
        names = [path.relative_to(root).as_posix() for path, _ in items[Split.VALIDATION]]
        options = repr((self._class_names, self._image_size, self._in_channels, names))
        learned = (*items[Split.TRAIN], *items[Split.VALIDATION])
        return hash_files([path for path, _ in learned], root, options)

    def _items_of(self, split: Split) -> list[_Item]:
        if split is not Split.TEST:
            return self._scanned.items[split]
        if self._own_folder(split) is None and self._rule.test_fraction:
            return self._scanned.items[split]
        return self._list_items(self._require_folder(split), LeftOut())

    @functools.cached_property
    def _scanned(self) -> "_Scan":
        """The images of all splits, but for a test split in a folder of its own."""
        train_folder = self._require_folder(Split.TRAIN)
        own = {split: self._own_folder(split) for split in (Split.VALIDATION, Split.TEST)}
        faults, left_out = FaultList(), LeftOut()
        train = faults.attempt(lambda: self._list_items(train_folder, left_out)) or []
        test_folder = own[Split.TEST]
        if test_folder is not None and self._rule.test_fraction:
            faults.add(test_folder, "is the test split: data.test_fraction must be left out")
        validation_folder = own[Split.VALIDATION]
        rows = self._rule.divide([label for _, label in train], has_validation=validation_folder is not None)
        items = {split: [train[row] for row in chosen] for split, chosen in rows.items()}
        if validation_folder is not None:
            items[Split.VALIDATION] = faults.attempt(lambda: self._list_items(validation_folder, left_out)) or []
        elif not items[Split.VALIDATION]:
            faults.add(train_folder, "must hold 2 images of a class or more, one of them for validation")
        self._add_empty_classes(train_folder, train, faults)
        faults.raise_if_any()
        self._add_left_out(left_out)
        shown = {split: self._shown(split) for split, folder in own.items() if folder is not None}
        return _Scan(items, left_out, shown)

    def _own_folder(self, split: Split) -> Path | None:
        return find_folder(expand_root(self._root), self._pattern, split) if SPLIT in self._pattern else None

    def _require_folder(self, split: Split) -> Path:
        root = expand_root(self._root)
        require_root(root)
        if split is Split.TEST and SPLIT not in self._pattern:
            remedy = "write `data: {test_fraction: 0.1}` and search anew"
            raise DataError([DataFault(shown_path(root), "has no test split", remedy=remedy)])
        folder = find_folder(root, self._pattern, split)
        if folder is None:
            remedy = advice(root)
            if split is Split.TEST:
                remedy = "make it, or write `data: {test_fraction: 0.1}` and search anew"
            where = root / self._pattern.replace(SPLIT, split.value)
            raise DataError([DataFault(shown_path(where), "folder is missing", remedy=remedy)])
        return folder

    def _shown(self, split: Split) -> str:
        folder, root = self._require_folder(split), expand_root(self._root)
        return shown_path(root if folder == root else f"{folder.relative_to(root).as_posix()}/")

    def _add_empty_classes(self, folder: Path, items: list[_Item], faults: FaultList) -> None:
        found = {label for _, label in items}
        for label, name in enumerate(self._class_names):
            if items and label not in found:
                faults.add(
                    folder / name,
                    "holds no images",
                    group="folders of classes hold no images",
                    remedy="add images to it, or remove the folder",
                )

    def _add_left_out(self, left_out: LeftOut) -> None:
        root = expand_root(self._root)
        if SPLIT not in self._pattern.split("/")[0]:
            return
        for path in visible(root, left_out):
            if not path.is_dir() or split_of(path.name) is None:
                left_out.add("of no split", path)

    def _list_items(self, folder: Path, left_out: LeftOut) -> list[_Item]:
        """Return a split's images, sorted by class and name.

        Raises:
            DataError: Naming every folder that is no class's, or the split's if it is empty.
        """
        faults = FaultList()
        folders = _class_folders(folder)
        for path in visible(folder, left_out):
            if not path.is_dir():
                left_out.add("beside the folders of classes", path)
        for name in sorted(folders.keys() - set(self._class_names)):
            faults.add(
                folders[name],
                f"is no class: {Split.TRAIN}/{shown_path(name)} is missing",
                group="folders are no class of the training split",
                remedy="call it as its class in the training split is called, or take it out",
            )
        items = [
            (path, label)
            for label, name in enumerate(self._class_names)
            if name in folders
            for path in list_images(folders[name], left_out)
        ]
        if not items:
            is_train = folder == self._own_folder(Split.TRAIN)
            remedy = advice(expand_root(self._root)) if is_train else "add images to it, or remove the folder"
            faults.add(folder, "holds no images in folders of classes", remedy=remedy)
        faults.raise_if_any()
        return items


@dataclass(frozen=True)
class _Scan:
    """What was found in the folders.

    Attributes:
        items: By split; the test's where it is chosen from the training images.
        left_out: What is not read.
        own: Where the splits are that have folders of their own.
    """

    items: Mapping[Split, list[_Item]]
    left_out: LeftOut
    own: Mapping[Split, str]


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the visible folders in `folder` by name."""
    return {path.name: path for path in visible(folder) if path.is_dir()}
