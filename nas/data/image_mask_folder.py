"""A user's own segmentation data: folders of images and masks whose names go together."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt, Unit
from PIL import Image

from nas.data.base import Examples, IndexedDataset, Split
from nas.data.decoding import decode_image, to_array
from nas.data.faults import FaultList
from nas.data.files import check_class_names, check_height_width, expand_root, hash_files
from nas.data.layouts import advice
from nas.data.masks import Colour, MaskReader
from nas.data.notes import NoteList
from nas.data.pairs import Pair, PairPatterns
from nas.data.scanning import LeftOut, require_root
from nas.data.splits import SplitRule
from nas.errors import DataError, DataFault
from nas.values.bounds import bounded


class ImageMaskFolder(IndexedDataset):
    """Colour images with a mask each: `SPLIT/images/NAME.*` and `SPLIT/masks/NAME.*`, or as the patterns say.

    SPLIT is `train` or `training`, `val`, `valid` or `validation`, `test` or `testing`, in letters of any case.
    Without a folder for validation, a part of `train` is for it; the test split is needed only when it is read.
    Images are of any format that Pillow decodes; masks of those that keep values, PNG say. A mask's pixel is the
    index of its class, unless `mask_values` or `mask_colors` say otherwise.

    Args:
        root: The folder that holds the splits; `~` and `$VARIABLES` are expanded.
        class_names: In order of their index.
        image_size: Height and width, or one number for both. Images are resized to it bilinearly, masks by
            the nearest pixel.
        images: The folder of a split's images under `root`; `{split}` stands for the split's name. Without it, all
            splits are chosen from one folder.
        masks: Where the mask of the image NAME is, without suffix; `{name}` stands for NAME.
        ignore_index: The mask's value for "no class", if there is one; no class's index.
        mask_values: The value of each class in the masks, in order of `class_names`; `[0, 255]`, say.
        mask_colors: The colour `[R, G, B]` of each class in the masks, in order of `class_names`.
        ignore_color: The colour for "no class", if there is one.
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
        class_names: tuple[str, ...],
        image_size: Annotated[int | tuple[int, int], Unit("pixels")],
        images: str = "{split}/images",
        masks: str = "{split}/masks/{name}",
        ignore_index: int | None = None,
        mask_values: tuple[int, ...] | None = None,
        mask_colors: tuple[tuple[int, int, int], ...] | None = None,
        ignore_color: tuple[int, int, int] | None = None,
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
    ) -> None:
        self._root = root
        self._class_names = check_class_names(class_names)
        self._image_size = check_height_width(image_size)
        self._patterns = PairPatterns(images, masks)
        colours = None if mask_colors is None else tuple(_colour(colour) for colour in mask_colors)
        self._masks = MaskReader(
            len(self._class_names),
            ignore_index,
            None if mask_values is None else tuple(mask_values),
            colours,
            None if ignore_color is None else _colour(ignore_color),
        )
        self._rule = SplitRule(validation_fraction, test_fraction, seed)

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
        """As given; 255 where values or colours are mapped to classes."""
        return self._masks.ignored_target

    @property
    def is_dense(self) -> bool:
        """True: segmentation."""
        return True

    def check(self) -> None:
        """Decode every training and validation pair.

        Raises:
            DataError: Naming all faults that were found: partners that are missing, and pairs that are broken.
        """
        faults, notes = FaultList(), NoteList("Images")
        scan = self._scan(faults)
        for split in (Split.TRAIN, Split.VALIDATION):
            for pair in scan.pairs[split]:
                self._decode(pair, faults, notes)
        faults.raise_if_any()
        self._decoding_notes = notes.lines()

    _decoding_notes: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """Tell the rule and the sizes of the splits, what was left out, and what is doubtful about images."""
        scan = self._scanned
        numbers = {split: len(pairs) for split, pairs in scan.pairs.items()}
        rule = self._rule.sentence(scan.source, numbers, scan.own)
        return tuple(line for line in (rule, scan.left_out.line(), *self._decoding_notes) if line)

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

    def _pairs_of(self, split: Split, faults: FaultList) -> list[Pair]:
        if split is not Split.TEST:
            return self._scanned.pairs[split]
        root = expand_root(self._root)
        if self._patterns.has_splits and self._patterns.find(root, split) is not None:
            return self._patterns.pairs(root, split, faults, LeftOut())
        pairs = self._scanned.pairs[split] if self._rule.test_fraction else []
        if not pairs:
            raise DataError([self._patterns.missing(root, split)])
        return pairs

    def fingerprint(self) -> str:
        """Hash the options, which pairs are for validation, and all training and validation files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        learned = {split: self._scanned.pairs[split] for split in (Split.TRAIN, Split.VALIDATION)}
        names = {split.value: [pair.image.name for pair in pairs] for split, pairs in learned.items()}
        own = self._masks.options
        options = repr((self._class_names, self._image_size, self._masks.ignore_index, names, *own))
        everything = [pair for pairs in learned.values() for pair in pairs]
        files = [path for pair in everything for path in (pair.image, pair.mask)]
        return hash_files(files, expand_root(self._root), options, masks={pair.mask for pair in everything})

    @functools.cached_property
    def _scanned(self) -> "_Scan":
        """The pairs of all splits, but for a test split in a folder of its own."""
        faults = FaultList()
        scan = self._scan(faults)
        faults.raise_if_any()
        return scan

    def _scan(self, faults: FaultList) -> "_Scan":
        """Return the pairs without those that `faults` were added for."""
        root = expand_root(self._root)
        require_root(root)
        left_out = LeftOut()
        own = {split: self._patterns.find(root, split) for split in (Split.VALIDATION, Split.TEST)}
        own_places = {split: found for split, found in own.items() if found is not None and self._patterns.has_splits}
        if self._patterns.find(root, Split.TRAIN) is None:
            fault = self._patterns.missing(root, Split.TRAIN)
            raise DataError([DataFault(fault.where, fault.text, remedy=advice(root))])
        if Split.TEST in own_places and self._rule.test_fraction:
            faults.add(own_places[Split.TEST], "is the test split: data.test_fraction must be left out")
        train = self._patterns.pairs(root, Split.TRAIN, faults, left_out)
        has_validation = Split.VALIDATION in own_places
        validation = self._patterns.pairs(root, Split.VALIDATION, faults, left_out) if has_validation else []
        rows = self._rule.divide([0] * len(train), has_validation=has_validation)
        pairs = {split: [train[row] for row in chosen] for split, chosen in rows.items()}
        if has_validation:
            pairs[Split.VALIDATION] = validation
        elif train and not pairs[Split.VALIDATION] and not faults:
            n_needed = 3 if self._rule.test_fraction else 2
            faults.add(
                self._patterns.find(root, Split.TRAIN) or root,
                f"must hold {n_needed} images or more, one of them for validation",
            )
        self._patterns.add_left_out(root, left_out)
        places = {split: self._patterns.shown(root, split) for split in own_places}
        return _Scan(pairs, left_out, places, self._patterns.shown(root, Split.TRAIN))

    def _decode(
        self, pair: Pair, faults: FaultList, notes: NoteList | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return an image `(3, H, W)` and its mask `(H, W)`, both uint8; `None` if faults were added."""
        on_note = None if notes is None else functools.partial(notes.add, pair.image)
        image = faults.attempt(lambda: decode_image(pair.image, on_note))
        mask = faults.attempt(lambda: self._masks.read(pair.mask))
        if image is None or mask is None:
            return None
        if image.size != mask.shape[::-1]:
            sizes = f"is {_size(mask.shape[::-1])}, its image is {_size(image.size)}"
            turned = image.size == mask.shape
            faults.add(
                pair.mask,
                sizes,
                group="masks are of another size than their images" + (", turned by 90 degrees" if turned else ""),
                remedy="the image is turned by its EXIF orientation, or the mask is: save both upright, without one"
                if turned
                else "save each mask in its image's size, or see whether it is this image's",
            )
            return None
        height, width = self._image_size
        resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return to_array(image, 3, self._image_size), np.asarray(resized, dtype=np.uint8)


@dataclass(frozen=True)
class _Scan:
    """What was found in the folders.

    Attributes:
        pairs: By split; the test's where it is chosen from the training pairs.
        left_out: What is not read.
        own: Where the splits are that have folders of their own.
        source: Where the training pairs are.
    """

    pairs: Mapping[Split, list[Pair]]
    left_out: LeftOut
    own: Mapping[Split, str]
    source: str


def _colour(values: Sequence[int]) -> Colour:
    red, green, blue = values
    return (red, green, blue)


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]} pixels"
