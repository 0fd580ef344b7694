"""Looks at a folder or file of data, and tells how a configuration names it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.base import Split
from nas.data.decoding import colour_codes, decode_colours, decode_mask, size_and_channels
from nas.data.faults import FaultList, shown_list, shown_path
from nas.data.layouts import CLASS, NAME, Layout, find_layout
from nas.data.masks import Colour
from nas.data.pairs import Pair, PairPatterns
from nas.data.parquet_columns import class_names_in, columns_of, n_rows_of, read_images, read_labels
from nas.data.scanning import SPLIT, LeftOut, find_folder, folders_in, list_images, split_of, visible
from nas.errors import DataError, DataFault

_NAMES_FILES = ("classes.txt", "class_names.txt", "labels.txt", "codes.txt", "names.txt")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "y")
_IMAGE_COLUMNS = ("img", "image", "images", "picture", "photo", "bytes")
_MAX_CLASSES = 64
_N_SIZES = 100  # images whose size is looked at
_N_MANY = 1000
_N_FOR_TEST = 10  # images from which on some are set aside for the test
_IGNORED = 255


@dataclass(frozen=True)
class Inspection:
    """How a configuration names the data that was looked at.

    Attributes:
        kind: In `DATASETS`.
        options: Of the kind, in the order in which they are written; `image_size` is not among them.
        n_train: Images to train on and to validate by, where they are not apart.
        size: Height and width of a middling image.
        class_names: As they are called now.
        remarks: What the user should look at, by option.
    """

    kind: str
    options: dict[str, Any]
    n_train: int
    size: tuple[int, int]
    class_names: tuple[str, ...]
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Whether it is of segmentation."""
        return self.kind == "image_mask_folder"


def inspect(path: Path) -> Inspection:
    """Return how a configuration names the data at `path`, a folder or a Parquet file.

    Raises:
        DataError: If it is laid out like nothing that is known, or its masks or labels name no classes.
    """
    if not path.exists():
        raise DataError([DataFault(shown_path(path), "no such folder or file")])
    layout = find_layout(path.resolve())
    if layout is None:
        fault = "holds no images with masks, no folders of classes and no Parquet files that can be told by their names"
        raise DataError([DataFault(shown_path(path), fault, remedy="docs/own_data.md draws the layouts that are read")])
    look = {"image_mask_folder": _look_at_masks, "image_folder": _look_at_classes, "parquet": _look_at_parquet}
    return look[layout.kind](layout)


def _look_at_masks(layout: Layout) -> Inspection:
    root = layout.root
    default = {"images": f"{SPLIT}/images", "masks": f"{SPLIT}/masks/{NAME}"}
    given = default | dict(layout.options)
    patterns = PairPatterns(given["images"], given["masks"])
    faults = FaultList()
    train = patterns.pairs(root, Split.TRAIN, faults, LeftOut())
    learned = list(train)
    if Split.VALIDATION in layout.splits:
        learned += patterns.pairs(root, Split.VALIDATION, faults, LeftOut())
    faults.raise_if_any()
    options: dict[str, Any] = {"root": str(root), **layout.options}
    remarks: dict[str, str] = {}
    classes = _classes_of_masks(root, learned, remarks)
    options |= classes | _shares(layout, len(train))
    size, _ = _sizes([pair.image for pair in train])
    return Inspection(layout.kind, options, len(train), size, tuple(classes["class_names"]), remarks)


def _classes_of_masks(root: Path, pairs: Sequence[Pair], remarks: dict[str, str]) -> dict[str, Any]:
    """Return the options that name the classes that masks show."""
    faults, values, colours, is_coloured = FaultList(), set[int](), set[int](), False
    for pair in pairs:
        try:
            values.update(np.unique(decode_mask(pair.mask)).tolist())
        except DataError:
            pixels = faults.attempt(lambda mask=pair.mask: decode_colours(mask))  # type: ignore[misc]
            if pixels is not None:
                is_coloured = True
                colours.update(np.unique(colour_codes(pixels)).tolist())
    faults.raise_if_any()
    if is_coloured:  # grey ones among them are colours as well
        colours |= {value << 16 | value << 8 | value for value in values}
    found = len(colours) if is_coloured else len(values)
    if not 2 <= found <= _MAX_CLASSES:
        what = f"{found} {'colours' if is_coloured else 'values'} in all"
        reason = "smoothed or compressed ones hold many" if found > 2 else "there is nothing to tell apart"
        raise DataError(
            [DataFault(shown_path(root), f"its masks hold {what}, must hold 2 to {_MAX_CLASSES}: {reason}")]
        )
    if is_coloured:
        return _coloured(root, sorted(colours), remarks)
    return _valued(root, sorted(values), remarks)


def _coloured(root: Path, codes: Sequence[int], remarks: dict[str, str]) -> dict[str, Any]:
    named: list[Colour] = [(code >> 16, code >> 8 & 255, code & 255) for code in codes]
    remarks["mask_colors"] = "the colours that the masks show; one that is no class goes to ignore_color: [R, G, B]"
    return {"class_names": _names(root, len(named), codes, remarks), "mask_colors": [list(colour) for colour in named]}


def _valued(root: Path, values: Sequence[int], remarks: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if len(values) > 2 and _IGNORED in values:
        options["ignore_index"] = _IGNORED
        remarks["ignore_index"] = (
            "taken for pixels of no class, as is the custom; if it is one, name it among the classes"
        )
        values = [value for value in values if value != _IGNORED]
    elif values[-1] == len(values) - 1:
        remarks["class_names"] = (
            f"if one means 'unlabelled', take its name out and write ignore_index, e.g. {values[-1]}"
        )
    if values[-1] != len(values) - 1:
        options["mask_values"] = list(values)
        remarks["mask_values"] = "the value of each class in the masks"
    names = _names(root, len(values), values, remarks)
    return {"class_names": names, **options}


def _names(root: Path, n: int, values: Sequence[int], remarks: dict[str, str]) -> list[str]:
    """Return names of classes: those in a list beside the data, if there is one of as many lines."""
    for path in visible(root):
        if path.name.lower() in _NAMES_FILES and path.is_file() and path.stat().st_size < 1 << 16:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if len(names) == n == len(set(names)):
                remarks["class_names"] = f"from {path.name}"
                return names
    hint = remarks.get("class_names")
    remarks["class_names"] = "give them their names" + (f"; {hint}" if hint else "")
    if n == 2 and values[0] == 0:
        return ["background", "foreground"]
    return [f"class_{index}" for index in range(n)]


def _look_at_classes(layout: Layout) -> Inspection:
    root = layout.root
    pattern = layout.options.get("images", f"{SPLIT}/{CLASS}").rpartition("/")[0] or "."
    folder = find_folder(root, pattern, Split.TRAIN)
    if folder is None:
        where = shown_path(root / pattern.replace(SPLIT, Split.TRAIN.value))
        raise DataError([DataFault(where, "folder is missing")])
    folders = [path for path in folders_in(folder) if pattern != "." or split_of(path.name) is None]
    images = [image for path in folders for image in list_images(path)]
    size, channels = _sizes(images)
    names = tuple(path.name for path in folders)
    options: dict[str, Any] = {"root": str(root), **layout.options, **({"in_channels": 1} if channels == 1 else {})}
    options |= _shares(layout, len(images))
    return Inspection(layout.kind, options, len(images), size, names)


def _look_at_parquet(layout: Layout) -> Inspection:
    root, pattern = layout.root, layout.options.get("train_file")
    of_train = [
        path for path in visible(root) if path.suffix.lower() == ".parquet" and split_of(path.stem) is Split.TRAIN
    ]
    files = of_train if pattern is None else sorted(root.glob(pattern))
    images, labels = columns_of(files[0])
    image = _chosen(images, _IMAGE_COLUMNS)
    label = _chosen([name for name in labels if name != image], _LABEL_COLUMNS)
    if image is None or label is None:
        missing = "encoded images" if image is None else "labels"
        fault = f"has no column that may hold {missing}: there are {shown_list(dict.fromkeys([*images, *labels]))}"
        raise DataError([DataFault(shown_path(files[0]), fault)])
    given = {"image_column": image} if image != "img" else {}
    given |= {"label_column": label} if label != "label" else {}
    remarks = {"image_column": f"of {shown_list(images)}"} if len(images) > 1 and given.get("image_column") else {}
    if len(labels) > 1:
        remarks["label_column"] = f"of {shown_list(labels)}"
    n = sum(n_rows_of(path) for path in files)
    names = class_names_in(files[0], label)
    found = names or tuple(sorted({str(value) for path in files for value in read_labels(path, label)}))
    encoded = [content for content in read_images(files[0], image)[:_N_SIZES] if content]
    size, channels = _sizes(encoded)
    options: dict[str, Any] = {"root": str(root), **layout.options, **given}
    options |= {"in_channels": 1} if channels == 1 else {}
    options |= _shares(layout, n)
    return Inspection(layout.kind, options, n, size, found, remarks)


def _chosen(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    by_name = {column.casefold(): column for column in columns}
    return next((by_name[name] for name in usual if name in by_name), columns[0] if columns else None)


def _shares(layout: Layout, n_train: int) -> dict[str, Any]:
    """Return the options by which splits are set aside that the data has not: more of few images than of many."""
    validation = {} if Split.VALIDATION in layout.splits or n_train >= _N_MANY else {"validation_fraction": 0.2}
    test = {} if Split.TEST in layout.splits or n_train < _N_FOR_TEST else {"test_fraction": 0.1}
    return validation | test


def _sizes(sources: Sequence[Path | bytes]) -> tuple[tuple[int, int], int]:
    """Return height and width of a middling image, and 1 if all that were looked at are grey, else 3."""
    if not sources:
        return (64, 64), 3
    step = math.ceil(len(sources) / _N_SIZES)
    faults, seen = FaultList(), []
    for source in sources[::step]:
        found = faults.attempt(lambda source=source: size_and_channels(source))  # type: ignore[misc]
        if found is not None:
            seen.append(found)
    if not seen:
        faults.raise_if_any()
    height = int(statistics.median(size[0] for size, _ in seen))
    width = int(statistics.median(size[1] for size, _ in seen))
    return (height, width), max(channels for _, channels in seen)
