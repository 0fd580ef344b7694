"""Columns of Parquet files: encoded images, and labels as numbers or texts. Needs pyarrow, an extra."""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.data.faults import shown_list, shown_path
from nas.errors import DataError, DataFault, InputError
from nas.files import require_regular

_MAX_FILE_BYTES = 4 << 30
_MAX_ROWS = 16_000_000
_MAX_COLUMN_BYTES = 768 << 20  # of one file, decoded; half of what its values take in Python
_N_NUMBERS = 65_536  # rows that are decoded at a time
_N_VALUES = 64  # likewise of texts and images
Labels = list[int] | list[str]


def pyarrow_module(name: str) -> Any:
    """Return a module of pyarrow.

    Raises:
        DataError: If it is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow.{name}")
    except ModuleNotFoundError as error:
        raise DataError(['Parquet files need pyarrow: pip install "pareto-nas[parquet]"']) from error


def read_labels(path: Path, name: str) -> Labels:
    """Return the column of labels: integers, or texts.

    Dictionary-encoded columns are decoded, booleans are 0 and 1, floats whole numbers. `a.b` is the field b of the
    structure a; of a structure with one field alone that field is taken.

    Raises:
        DataError: If it is missing, holds something else, or lacks a row's label.
    """
    column = _plain(_read_column(path, name, _may_be_label, "label_column"))
    if column.null_count:
        raise _fault(path, f"column {name!r} lacks the label of {column.null_count} rows", "leave these rows out")
    types = pyarrow_module("types")
    if types.is_struct(column.type):
        fields = [column.type.field(index).name for index in range(column.type.num_fields)]
        remedy = f"write `data: {{label_column: {name}.{fields[0]}}}`, or another of {shown_list(fields)}"
        if len(fields) > 1:
            raise _fault(path, f"column {name!r} holds structures, must hold integers or texts", remedy)
        return read_labels(path, f"{name}.{fields[0]}")
    values = column.to_pylist()
    if types.is_boolean(column.type) or types.is_integer(column.type):
        return [int(value) for value in values]
    if types.is_floating(column.type) and all(float(value).is_integer() for value in values):
        return [int(value) for value in values]
    if types.is_string(column.type) or types.is_large_string(column.type):
        return [str(value) for value in values]
    raise _fault(path, f"column {name!r} must hold integers or texts, holds {column.type}", "")


def read_images(path: Path, name: str) -> list[bytes | None]:
    """Return the column of encoded images.

    Raises:
        DataError: If it is missing, or holds something else.
    """
    types = pyarrow_module("types")
    column = _plain(_read_column(path, name, _may_be_image, "image_column"))
    if types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = _plain(pyarrow_module("compute").struct_field(column, "bytes"))
    if not _is_binary(column.type):
        must = f"column {name!r} must hold encoded images as bytes, or a structure with them, holds {column.type}"
        raise _fault(path, must, "put the files' content into it, not pixels or paths")
    return list(column.to_pylist())


def class_names_in(path: Path, label_column: str) -> tuple[str, ...] | None:
    """Return the class names that the `datasets` library writes into a file's schema; `None` if there are none.

    Raises:
        DataError: If they are no names of classes.
    """
    with _opened(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[label_column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list):
        return None
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        twice = [name for name in names if names.count(name) > 1] if len(names) < 1000 else []
        what = f"some are given twice ({shown_list(dict.fromkeys(twice))})" if twice else "some are missing"
        raise _fault(path, f"its metadata name the classes, but {what}", "give data.class_names")
    return tuple(names)


def columns_of(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the columns that may hold images, and of those that may hold labels.

    Raises:
        DataError: If the file cannot be read.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
    return [field.name for field in schema if _may_be_image(field.type)], [
        field.name for field in schema if _may_be_label(field.type)
    ]


def n_rows_of(path: Path) -> int:
    """Return how many rows a file has.

    Raises:
        DataError: If the file cannot be read.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _fault(path: Path, text: str, remedy: str) -> DataError:
    return DataError([DataFault(shown_path(path), text, remedy=remedy)])


def _is_binary(kind: Any) -> bool:
    types = pyarrow_module("types")
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _may_be_image(kind: Any) -> bool:
    types = pyarrow_module("types")
    if types.is_dictionary(kind):
        return _may_be_image(kind.value_type)
    return _is_binary(kind) or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _may_be_label(kind: Any) -> bool:
    types = pyarrow_module("types")
    if types.is_dictionary(kind):
        return _may_be_label(kind.value_type)
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return bool(is_text or types.is_integer(kind) or types.is_boolean(kind)) or (
        types.is_struct(kind) and kind.get_field_index("bytes") < 0
    )


def _plain(column: Any) -> Any:
    """Return a column without the encoding that stores each value once."""
    return column.cast(column.type.value_type) if pyarrow_module("types").is_dictionary(column.type) else column


def _opened(path: Path) -> Any:
    """Return the `pyarrow.parquet.ParquetFile`."""
    parquet = pyarrow_module("parquet")
    try:
        require_regular(path, _MAX_FILE_BYTES)
        file = parquet.ParquetFile(path)
    except InputError as error:
        raise DataError([str(error)]) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise _fault(path, f"cannot be read as a Parquet file ({shown_path(reason)})", "") from error
    if (n_rows := file.metadata.num_rows) > _MAX_ROWS:
        file.close()
        raise _fault(path, f"has {n_rows:,} rows, at most {_MAX_ROWS:,} are read", "write several files")
    return file


def _read_column(path: Path, name: str, may_be: Callable[[Any], bool], option: str) -> Any:
    """Return a column, or a field of one where `name` has a point, as a `pyarrow.ChunkedArray`."""
    with _opened(path) as file:
        names = file.schema_arrow.names
        top, *fields = [name] if name in names else name.split(".")
        if top not in names:
            fitting = [field.name for field in file.schema_arrow if may_be(field.type)]
            remedy = f"write `data: {{{option}: {fitting[0]}}}`" if fitting else ""
            raise _fault(path, f"column {name!r} is missing, there are {shown_list(names)}", remedy)
        try:
            column = _bounded_column(file, path, top)
            for field in fields:
                column = pyarrow_module("compute").struct_field(column, field)
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise _fault(path, f"column {name!r} cannot be read ({shown_path(reason)})", "") from error
    return column


def _bounded_column(file: Any, path: Path, name: str) -> Any:
    """Return a column, read in parts: one of a few bytes can stand for as many copies of a value as there are rows."""
    types = pyarrow_module("types")
    field = file.schema_arrow.field(name)
    n_at_a_time = _N_NUMBERS if types.is_primitive(field.type) else _N_VALUES
    batches, n_bytes = [], 0
    for batch in file.iter_batches(batch_size=n_at_a_time, columns=[name]):
        batches.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > _MAX_COLUMN_BYTES:
            text = f"column {name!r} takes more than the {_MAX_COLUMN_BYTES >> 20} MiB that are read of one file"
            raise _fault(path, text, "write several files")
    return importlib.import_module("pyarrow").Table.from_batches(batches, _schema_of(field, batches)).column(name)


def _schema_of(field: Any, batches: Sequence[Any]) -> Any:
    return batches[0].schema if batches else importlib.import_module("pyarrow").schema([field])


def shown_labels(values: Sequence[object]) -> str:
    """Return labels as a configuration writes them: `[0, 1, 7]`."""
    return json.dumps(list(values), ensure_ascii=False)
