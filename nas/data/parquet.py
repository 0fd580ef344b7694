"""Classification data in Parquet files, as the Hugging Face hub serves image data sets."""

import functools
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from nas.data.base import Dataset, Examples, Split, decoded_in_parts
from nas.data.files import (
    FaultList,
    Value,
    check_class_names,
    check_height_width,
    check_in_channels,
    choose_validation,
    expand_root,
    hash_files,
    open_image,
    probe_image,
    to_array,
)
from nas.errors import DataError
from nas.values.bounds import bounded


class ParquetImages(Dataset):
    """Encoded images in one column, class indices in another; a part of each class is for validation.

    The image column holds a file's bytes, or a structure with `bytes` as on the hub. Needs pyarrow:
    `pip install "pareto-nas[parquet]"`.

    Args:
        root: The folder that holds the files; `~` and `$VARIABLES` are expanded.
        image_size: Height and width, or one number for both; images are resized to it bilinearly.
        in_channels: 1 for grey, 3 for colour; images are converted.
        train_file: Name or pattern of the training files under `root`, read in the order of their names.
        test_file: The same for the test files; needed only when the test split is read.
        image_column: Name of the column of images.
        label_column: Name of the column of class indices.
        class_names: In order of their index. If not given, those in the training file's metadata; if it
            has none, "0", "1", ... up to the largest training label.
        validation_fraction: The share of the training rows for validation.
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
        train_file: str = "train-*.parquet",
        test_file: str = "test-*.parquet",
        image_column: str = "img",
        label_column: str = "label",
        class_names: tuple[str, ...] | None = None,
        validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self._root = root
        self._image_size = check_height_width(image_size)
        self._in_channels = check_in_channels(in_channels)
        for name, pattern in (("train_file", train_file), ("test_file", test_file)):
            if not pattern or Path(pattern).is_absolute():
                raise ValueError(f"{name} must be a name or pattern under root, got {pattern!r}")
        self._patterns = {Split.TRAIN: train_file, Split.TEST: test_file}
        self._image_column = image_column
        self._label_column = label_column
        self._given_class_names = None if class_names is None else check_class_names(class_names)
        self._validation_fraction = validation_fraction
        self._seed = seed

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
        """Read the training files and every image's header.

        Raises:
            DataError: Naming all faults that were found.
        """
        rows = self._read(Split.TRAIN)
        self._choose(rows)
        _for_each(rows, probe_image)

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
        rows = self._read(Split.TEST if split is Split.TEST else Split.TRAIN)
        if split is Split.TEST:
            return rows
        chosen = self._choose(rows)
        return [row for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen == (split is Split.VALIDATION)]

    def _decoded(self, rows: Sequence["_Row"]) -> Examples:
        images = _for_each(rows, lambda image: to_array(open_image(image), self._in_channels, self._image_size))
        labels = torch.tensor([row.label for row in rows], dtype=torch.int64)
        return Examples(torch.from_numpy(np.stack(images)), labels)

    def fingerprint(self) -> str:
        """Hash the options and the training files.

        Raises:
            DataError: If a file is missing or cannot be read.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        columns = (self._image_column, self._label_column)
        choice = (self._validation_fraction, self._seed)
        options = repr((self._image_size, self._in_channels, columns, self._given_class_names, choice))
        return hash_files(self._files(Split.TRAIN), expand_root(self._root), options)

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        if self._given_class_names is not None:
            return self._given_class_names
        paths = self._files(Split.TRAIN)
        names = _names_in_metadata(paths[0], self._label_column)
        if names is None:
            labels = np.concatenate([self._labels(path) for path in paths])
            names = tuple(str(label) for label in range(max(labels, default=-1) + 1))
        if len(names) < 2:
            raise DataError([f"{paths[0]}: must hold 2 classes or more, has {len(names)}"])
        return names

    def _files(self, split: Split) -> list[Path]:
        root = expand_root(self._root)
        files = sorted(root.glob(self._patterns[split]))
        if not files:
            raise DataError([f"{root / self._patterns[split]}: no such file"])
        return files

    def _choose(self, rows: list["_Row"]) -> np.ndarray:
        """Return which training rows are for validation, `(n,)` bool."""
        chosen = choose_validation([row.label for row in rows], self._validation_fraction, self._seed)
        if not chosen.any():
            where = expand_root(self._root) / self._patterns[Split.TRAIN]
            raise DataError([f"{where}: must hold 2 rows of a class or more, one of them for validation"])
        return chosen

    def _read(self, split: Split) -> list["_Row"]:
        """Return all rows of a split's files, undecoded."""
        n_classes = len(self.class_names)
        faults, rows = FaultList(), list[_Row]()
        for path in self._files(split):
            labels = faults.attempt(functools.partial(self._labels, path))
            images = faults.attempt(functools.partial(self._images, path))
            if labels is None or images is None:
                continue
            outside = np.unique(labels[(labels < 0) | (labels >= n_classes)]).tolist()
            if outside:
                faults.add(path, f"holds the labels {outside}, must be 0 .. {n_classes - 1}")
            numbered = enumerate(zip(images, labels.tolist(), strict=True))
            rows += [_Row(path, number, image, label) for number, (image, label) in numbered]
        if not faults and not rows:
            faults.add(expand_root(self._root) / self._patterns[split], "holds no rows")
        faults.raise_if_any()
        return rows

    def _labels(self, path: Path) -> np.ndarray:
        """Return the column of labels, `(n,)` int64."""
        column = _read_column(path, self._label_column)
        if not _pyarrow("types").is_integer(column.type) or column.null_count:
            raise DataError([f"{path}: column {self._label_column!r} must hold integers, none missing"])
        return np.asarray(column.to_numpy(), dtype=np.int64)

    def _images(self, path: Path) -> list[bytes | None]:
        """Return the column of encoded images."""
        types = _pyarrow("types")
        column = _read_column(path, self._image_column)
        if types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = _pyarrow("compute").struct_field(column, "bytes")
        if not types.is_binary(column.type) and not types.is_large_binary(column.type):
            raise DataError([f"{path}: column {self._image_column!r} must hold bytes, or a structure with them"])
        return list(column.to_pylist())


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
        try:
            values.append(read(row.image or b""))
        except DataError as error:
            faults.add(row.path, f"row {row.number}: {error}")
    faults.raise_if_any()
    return values


def _pyarrow(module: str) -> Any:
    """Return a module of pyarrow, which is an extra.

    Raises:
        DataError: If it is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow.{module}")
    except ModuleNotFoundError as error:
        raise DataError(['Parquet files need pyarrow: pip install "pareto-nas[parquet]"']) from error


def _open(path: Path) -> Any:
    """Return the `pyarrow.parquet.ParquetFile`."""
    parquet = _pyarrow("parquet")
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError([f"{path}: cannot be read as a Parquet file ({error})"]) from error


def _read_column(path: Path, name: str) -> Any:
    """Return a column as one `pyarrow.Array`."""
    with _open(path) as file:
        names = file.schema_arrow.names
        if name not in names:
            raise DataError([f"{path}: column {name!r} is missing, there are {names}"])
        try:
            column = file.read(columns=[name]).column(name)
        except (OSError, ValueError) as error:
            raise DataError([f"{path}: column {name!r} cannot be read ({error})"]) from error
    return column.combine_chunks()


def _names_in_metadata(path: Path, label_column: str) -> tuple[str, ...] | None:
    """Return the class names that the `datasets` library writes into a file's schema, if they are there."""
    with _open(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label_column]["names"])
    except (KeyError, TypeError, ValueError):
        return None
