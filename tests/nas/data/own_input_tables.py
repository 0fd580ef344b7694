"""Parquet files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from nas.data import Dataset, Split
from tests.nas.data.own_input import SIDE, folder, sizes

# --- Parquet files


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), grey, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, labels: Any, names: list[Any] | None = None, image: str = "img", label: str = "label") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(index), "path": None} for index in range(len(labels))]
    written = pyarrow.table({image: images, label: labels})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        written = written.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(written, path)


def named(*names: str) -> Callable[[Dataset], None]:
    """Return what holds where image number i is of class number i modulo the number of classes."""

    def holds(dataset: Dataset) -> None:
        assert dataset.class_names == names
        for split in (Split.TRAIN, Split.VALIDATION):
            examples = dataset.load(split)
            assert (examples.images[:, 0, 0, 0] % len(names)).tolist() == examples.targets.tolist()

    return holds


@folder("parquet", named("cat", "dog"))
def labels_as_texts(root: Path) -> None:
    table(root / "train.parquet", ["cat", "dog"] * 6)


@folder("parquet", named("cat", "dog"))
def labels_as_a_dictionary(root: Path) -> None:
    table(root / "train-0.parquet", pyarrow.array(["cat", "dog"] * 6).dictionary_encode())


@folder("parquet", named("0", "1"), "they are called by their numbers")
def labels_in_structures(root: Path) -> None:
    table(root / "train-0.parquet", [{"id": 0}, {"id": 1}] * 6)


@folder("parquet", named("cat", "dog"))
def names_in_the_metadata(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", "dog"])


@folder("parquet", None, "some are given twice (cat)", "give data.class_names")
def names_that_repeat(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", "cat"])


@folder("parquet", None, "some are missing", "give data.class_names")
def names_that_are_missing(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6, names=["cat", None])


@folder("parquet", None, "without a gap, holds 0, 1, 1000000", "1000000 in 1 row", "correct the labels")
def a_label_of_a_million(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6 + [10**6])


@folder("parquet", None, "holds 0, 1, 7", "`data: {label_values: [0, 1, 7]}`")
def labels_with_a_gap(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, 7] * 4)


@folder("parquet", named("0", "1", "7"), label_values=(0, 1, 7))
def labels_with_a_gap_said(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, 7] * 4)


@folder("parquet", None, "labels must be 0 .. 1, 3 rows hold -1", "-1 stands for rows without a label")
def labels_of_minus_one(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 6 + [-1] * 3, names=["cat", "dog"])


@folder("parquet", None, "lacks the label of 2 rows")
def labels_that_are_missing(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1, None] * 2)


@folder("parquet", None, "`data: {image_column: image}`", "`data: {label_column: fine_label}`")
def columns_of_other_names(root: Path) -> None:
    table(root / "train-0.parquet", [0, 1] * 3, image="image", label="fine_label")


@folder("parquet", sizes(6, 4), "4 for validation (valid-0.parquet)", "1 named as no split (")
def hub_folder(root: Path) -> None:
    table(root / "data" / "train-0.parquet", [0, 1] * 3)
    table(root / "data" / "valid-0.parquet", [0, 1] * 2)
    table(root / "data" / "other.parquet", [0, 1] * 2)


@folder("parquet", None, "cannot be read as a Parquet file")
def no_parquet_at_all(root: Path) -> None:
    (root / "train-0.parquet").write_bytes(b"PAR1 and nothing else")
