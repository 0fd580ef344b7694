"""Classification data in Parquet files, as the Hugging Face hub serves image data sets."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt, Unit

from nas.data.base import Dataset, Examples, Split, decoded_in_parts
from nas.data.decoding import decode_image, is_read_anew, probe_image, to_array
from nas.data.faults import FaultList, Value, shown_path
from nas.data.files import check_class_names, check_height_width, check_in_channels, expand_root, hash_files
from nas.data.labels import infer_classes, label_indices
from nas.data.layouts import advice
from nas.data.parquet_columns import Labels, class_names_in, read_images, read_labels
from nas.data.scanning import LeftOut, require_root, split_of, visible
from nas.data.splits import SplitRule
from nas.errors import DataError, DataFault
from nas.values.bounds import bounded


class ParquetImages(Dataset):
    """Encoded images in one column, labels in another.

    The image column holds a file's bytes, or a structure with `bytes` as on the hub; labels are numbers or texts.
    Files are told by their names: `train*.parquet` or `training...`, `val...`, `valid...` or `validation...`,
    `test...`, in `root` or in `root/data`. Without a file for validation, a part of each class of the training rows
    is for it. Needs pyarrow: `pip install "pareto-nas[parquet]"`.

    Args:
        root: The folder that holds the files; `~` and `$VARIABLES` are expanded.
        image_size: Height and width, or one number for both; images are resized to it bilinearly.
        in_channels: 1 for grey, 3 for colour; images are converted.
        train_file: Name or pattern of the training files under `root`, read in the order of their names; by default
            told by their names, as all others.
        validation_file: The same for validation.
        test_file: The same for the test files; needed only when the test split is read.
        image_column: Name of the column of images.
        label_column: Name of the column of labels; `a.b` is the field b of the structure a.
        class_names: In order of their index. If not given, those in the training file's metadata; if it
            has none, the texts among the training labels in alphabetical order, or "0", "1", ... for numbers.
        label_values: The label of each class in the files, in order of `class_names`, where these are not its index
            or its name.
        validation_fraction: The share of the training rows for validation, where that has no file of its own.
        test_fraction: The share of the training rows for the test, where that has no file of its own.
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
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        image_column: str = "img",
        label_column: str = "label",
        class_names: tuple[str, ...] | None = None,
        label_values: tuple[int | str, ...] | None = None,
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0,
        seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0,
    ) -> None:
        self._root = root
        self._image_size = check_height_width(image_size)
        self._in_channels = check_in_channels(in_channels)
        given = {"train_file": train_file, "validation_file": validation_file, "test_file": test_file}
        for name, pattern in given.items():
            if pattern is not None and (not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts):
                raise ValueError(f"{name} must be a name or pattern under root, got {pattern!r}")
        self._patterns = dict(zip((Split.TRAIN, Split.VALIDATION, Split.TEST), given.values(), strict=True))
        self._image_column = image_column
        self._label_column = label_column
        self._given_class_names = None if class_names is None else check_class_names(class_names, at_most=None)
        self._label_values = None if label_values is None else tuple(label_values)
        self._check_label_values()
        self._rule = SplitRule(validation_fraction, test_fraction, seed)

    def _check_label_values(self) -> None:
        values, names = self._label_values, self._given_class_names
        if values is None:
            return
        if len(set(values)) != len(values) or len(values) < 2 or len({isinstance(value, str) for value in values}) > 1:
            raise ValueError(f"label_values must be different numbers, or different texts, got {list(values)}")
        if names is not None and len(names) != len(values):
            raise ValueError(f"label_values must be {len(names)}, one for each class, got {list(values)}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """As given, or from the training files.

        Raises:
            DataError: If they have to be read and cannot be.
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
        """Read the training and validation files and every image's header.

        Raises:
            DataError: Naming all faults that were found.
        """
        rows = self._learned_rows()
        _for_each([*rows[Split.TRAIN], *rows[Split.VALIDATION]], probe_image)

    def notes(self) -> tuple[str, ...]:
        """Tell the rule and the sizes of the splits, what was left out, and where the names of classes come from."""
        numbers = {split: len(rows) for split, rows in self._learned_rows().items()}
        files = {split: self._find_files(split) for split in Split}
        shown = {split: shown_path(_names(paths)) for split, paths in files.items() if paths}
        rule = self._rule.sentence(shown[Split.TRAIN], numbers, shown)
        folder, left_out = self._folder, LeftOut()
        read = {path for paths in files.values() for path in paths}
        for path in visible(folder, left_out):
            if path not in read and path.suffix.lower() == ".parquet":
                left_out.add("named as no split", path)
            elif path.is_file() and path not in read:
                left_out.add("of another kind", path)
        return tuple(line for line in (rule, left_out.line(), self._note_on_names()) if line)

    def _note_on_names(self) -> str | None:
        if self._given_class_names is not None or self._label_values is not None:
            return None
        if class_names_in(self._files(Split.TRAIN)[0], self._label_column) is not None:
            return None
        if self._class_names != tuple(map(str, range(len(self._class_names)))):
            return None
        return "The files do not name the classes: they are called by their numbers (data.class_names names them)."

    def load(self, split: Split) -> Examples:
        """Return the split, in the order of its rows.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """
        return self._decoded(self._rows_of(split))

    def parts(self, split: Split, n_at_a_time: int) -> tuple[int, Iterator[Examples]]:
        """Return how many examples a split has, and all of them in order; only encoded ones are in memory together."""
        rows = self._rows_of(split)
        return len(rows), decoded_in_parts(
            len(rows), n_at_a_time, lambda part: self._decoded(rows[part.start : part.stop])
        )

    def _rows_of(self, split: Split) -> list["_Row"]:
        if split is not Split.TEST:
            return self._learned_rows()[split]
        if self._find_files(split) or not self._rule.test_fraction:
            return self._read(split)
        return self._learned_rows()[split]

    def _learned_rows(self) -> Mapping[Split, list["_Row"]]:
        """Return the rows of training and validation, and those of the test that are chosen from the training files."""
        rows = self._read(Split.TRAIN)
        has_validation = bool(self._find_files(Split.VALIDATION))
        if self._rule.test_fraction and self._find_files(Split.TEST):
            where = shown_path(_names(self._find_files(Split.TEST)))
            raise DataError([DataFault(where, "is the test split: data.test_fraction must be left out")])
        chosen = self._rule.divide([row.label for row in rows], has_validation=has_validation)
        split_rows = {split: [rows[index] for index in indices] for split, indices in chosen.items()}
        if has_validation:
            split_rows[Split.VALIDATION] = self._read(Split.VALIDATION)
        if not split_rows[Split.VALIDATION]:
            where = shown_path(self._folder / _names(self._files(Split.TRAIN)))
            raise DataError([DataFault(where, "must hold 2 rows of a class or more, one of them for validation")])
        return split_rows

    def _decoded(self, rows: Sequence["_Row"]) -> Examples:
        images = _for_each(rows, lambda image: to_array(decode_image(image), self._in_channels, self._image_size))
        labels = torch.tensor([row.label for row in rows], dtype=torch.int64)
        return Examples(torch.from_numpy(np.stack(images)), labels)

    def fingerprint(self) -> str:
        """Hash the options, and the training and validation files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        columns = (self._image_column, self._label_column)
        rule = self._rule
        choice = (rule.validation_fraction, rule.seed, *([rule.test_fraction] if rule.test_fraction else []))
        values = () if self._label_values is None else (self._label_values,)
        options = repr((self._image_size, self._in_channels, columns, self._given_class_names, choice, *values))
        paths = [*self._files(Split.TRAIN), *self._find_files(Split.VALIDATION)]
        images = (image for path in paths for image in read_images(path, self._image_column))
        n_anew = sum(image is not None and is_read_anew(image, is_mask=False) for image in images)
        return hash_files(paths, self._folder, f"{options}:{n_anew} as shown" if n_anew else options)

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        if self._given_class_names is not None:
            return self._given_class_names
        if self._label_values is not None:
            return tuple(map(str, self._label_values))
        paths = self._files(Split.TRAIN)
        names = class_names_in(paths[0], self._label_column)
        if names is not None:
            if len(names) < 2:
                raise DataError([DataFault(shown_path(paths[0]), f"must hold 2 classes or more, has {len(names)}")])
            return names
        faults, labels = FaultList(), list[int | str]()
        for path in paths:
            labels += faults.attempt(functools.partial(read_labels, path, self._label_column)) or []
        faults.raise_if_any()
        where = shown_path(self._folder / _names(paths))
        if len({isinstance(label, str) for label in labels}) > 1:
            raise DataError(
                [DataFault(where, f"column {self._label_column!r} holds texts in one file, numbers in another")]
            )
        return infer_classes(labels, where)  # type: ignore[arg-type]  # of one type, as just seen

    @functools.cached_property
    def _folder(self) -> Path:
        """Where the files are: `root`, or `root/data` where that alone holds Parquet files."""
        root = expand_root(self._root)
        require_root(root)
        inner = root / "data"
        if all(self._patterns[split] is None for split in Split) and not _is_of_parquet(root) and _is_of_parquet(inner):
            return inner
        return root

    def _find_files(self, split: Split) -> list[Path]:
        pattern = self._patterns[split]
        if pattern is not None:
            return sorted(path for path in self._folder.glob(pattern) if path.is_file())
        taken = [path for other in Split if self._patterns[other] is not None for path in self._find_files(other)]
        return [
            path
            for path in visible(self._folder)
            if path.suffix.lower() == ".parquet" and split_of(path.stem) is split and path not in taken
        ]

    def _files(self, split: Split) -> list[Path]:
        files = self._find_files(split)
        if not files:
            remedy = advice(expand_root(self._root)) if split is Split.TRAIN else ""
            if split is Split.TEST:
                remedy = "add it, name it as data.test_file, or write `data: {test_fraction: 0.1}` and search anew"
            where = self._folder / (self._patterns[split] or f"{split.value}*.parquet")
            raise DataError([DataFault(shown_path(where), "no such file", remedy=remedy)])
        return files

    def _read(self, split: Split) -> list["_Row"]:
        """Return all rows of a split's files, undecoded."""
        faults, rows = FaultList(), list[_Row]()
        class_names = faults.attempt(lambda: self.class_names)
        for path in self._files(split):
            labels = class_names and faults.attempt(functools.partial(self._labels, path, class_names))
            images = faults.attempt(functools.partial(read_images, path, self._image_column))
            if labels and images is not None:
                numbered = enumerate(zip(images, labels, strict=True))
                rows += [_Row(path, number, image, label) for number, (image, label) in numbered]
        if not faults and not rows:
            faults.add(self._folder / _names(self._files(split)), "holds no rows")
        faults.raise_if_any()
        return rows

    def _labels(self, path: Path, class_names: Sequence[str]) -> list[int]:
        labels: Labels = read_labels(path, self._label_column)
        return label_indices(labels, class_names, self._label_values, shown_path(path))


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    number: int
    image: bytes | None
    label: int


def _for_each(rows: Sequence[_Row], read: Callable[[bytes], Value]) -> list[Value]:
    """Return what `read` makes of each row's image.

    Raises:
        DataError: Naming all rows whose image is missing or cannot be read.
    """
    values, faults = list[Value](), FaultList()
    for row in rows:
        if row.image is None:
            faults.add(row.path, f"row {row.number}: has no image", group="rows have no image", remedy="leave them out")
            continue
        try:
            values.append(read(row.image))
        except DataError as error:
            for fault in error.details:
                group = fault.group.replace("files", "images")
                faults.add(row.path, f"row {row.number}: {fault}", group=group, remedy=fault.remedy)
    faults.raise_if_any()
    return values


def _is_of_parquet(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == ".parquet" for path in visible(folder))


def _names(paths: Sequence[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more" if paths else ""
