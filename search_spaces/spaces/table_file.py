"""The one place where foreign bytes become a table: an npz file's arrays, bounded before they are read, and checked."""

import contextlib
import io
import math
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from search_spaces.errors import SearchSpaceError

MAX_BYTES = 512 << 20  # of the file, and of all its arrays
MAX_ROWS = 1 << 20
MAX_GENES = 1 << 24  # rows times genes
MAX_CHOICES = 4096  # of a gene
_MAX_NAMES_BYTES = 1 << 20
_MAX_LIST_BYTES = 1 << 20  # of the names and places of a file's arrays
_PLAIN_KINDS = "biufSU"  # numbers and texts; other arrays are left alone, some of them could run code


@contextlib.contextmanager
def table_boundary(name: Path) -> Iterator[None]:
    """Turn whatever a library raises over a file's content into `SearchSpaceError`."""
    try:
        yield
    except SearchSpaceError as error:
        raise SearchSpaceError(f"{name}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SearchSpaceError(f"{name}: cannot be read as an npz table: {reason}") from error


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a table, `ops` as int64.

    Raises:
        SearchSpaceError: If the file is no table, or larger than what is read; within a `table_boundary` also for all
            that numpy raises.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SearchSpaceError("cannot be read as an npz table: it is no regular file")
    if status.st_size > MAX_BYTES:
        raise SearchSpaceError(f"must have at most {MAX_BYTES >> 20} MiB, it has {status.st_size >> 20:,}")
    if not zipfile.is_zipfile(path):
        raise SearchSpaceError("cannot be read as an npz table: it is no npz file")
    with _BoundedReader(io.FileIO(path)) as source, zipfile.ZipFile(source) as file:
        source.at_most = MAX_BYTES
        members = [info for info in file.infolist() if info.filename.endswith(".npy")]
        if (total := sum(info.file_size for info in members)) > MAX_BYTES:
            raise SearchSpaceError(f"its arrays must have at most {MAX_BYTES >> 20} MiB, they have {total >> 20:,}")
        arrays = {}
        for info in members:
            with file.open(info) as stream:
                if (array := _array(stream, info.file_size)) is not None:
                    arrays[info.filename.removesuffix(".npy")] = array
    return {**arrays, "ops": _checked_ops(arrays)}


class _BoundedReader(io.BufferedReader):
    """A file that is not read in larger pieces than `at_most` bytes: at first those of a list of its arrays."""

    at_most = _MAX_LIST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.at_most:
            raise SearchSpaceError(f"the list of its arrays must have at most {_MAX_LIST_BYTES >> 10:,} KiB")
        return super().read(size)


def _array(stream: IO[bytes], n_bytes: int) -> np.ndarray | None:
    """Return the array of a `.npy` file; `None` if it holds neither numbers nor texts."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):  # later ones are for names of fields, which no array of a table has
        return None
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject:
        return None
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > n_bytes or any(size < 0 for size in shape):
        raise SearchSpaceError(f"an array of shape {shape} takes {wanted:,} bytes, the file holds {n_bytes:,}")
    content = stream.read(wanted)
    array = np.frombuffer(content, dtype, math.prod(shape)) if wanted else np.empty(math.prod(shape), dtype)
    if stream.read(1):
        raise SearchSpaceError(f"an array of shape {shape} must end after {wanted:,} bytes")
    return array.reshape(shape, order="F" if is_fortran else "C").copy()


def _checked_ops(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the genes of the rows, checked with what stands beside them."""
    ops = arrays.get("ops")
    if ops is None or ops.ndim != 2 or 0 in ops.shape or ops.dtype.kind not in "iu" or ops.min() < 0:
        raise SearchSpaceError("ops must be an (n_rows, n_genes) array of integers from 0 on")
    if len(ops) > MAX_ROWS or ops.size > MAX_GENES:
        raise SearchSpaceError(f"ops must have at most {MAX_ROWS:,} rows and {MAX_GENES:,} values, got {ops.shape}")
    if ops.max() >= MAX_CHOICES:
        raise SearchSpaceError(f"ops must be below {MAX_CHOICES:,}, got {ops.max()}")
    names, edges = arrays.get("op_names"), arrays.get("edges")
    if names is not None and (names.ndim != 1 or ops.max() >= len(names)):
        raise SearchSpaceError(f"op_names must name the operations 0 .. {ops.max()}")
    if names is not None and (len(names) > MAX_CHOICES or names.nbytes > _MAX_NAMES_BYTES):
        raise SearchSpaceError(f"op_names must be at most {MAX_CHOICES:,} names, of {_MAX_NAMES_BYTES >> 10:,} KiB")
    if edges is not None and edges.shape != (ops.shape[1], 2):
        raise SearchSpaceError(f"edges must be of shape ({ops.shape[1]}, 2), got {edges.shape}")
    if edges is not None and edges.dtype.kind not in "iu":
        raise SearchSpaceError("edges must be integers, the source and target node of each")
    ordinal = arrays.get("ordinal")
    if ordinal is not None and not (ordinal.ndim == 1 and (ordinal.dtype.kind in "SU" or len(ordinal) == ops.shape[1])):
        raise SearchSpaceError(
            f"ordinal must say of each of the {ops.shape[1]} genes whether it is a number, or name those that are, "
            f"got an array of shape {ordinal.shape}"
        )
    if ordinal is not None and ordinal.dtype.kind not in "bSU" and not np.isin(ordinal, (0, 1)).all():
        raise SearchSpaceError("ordinal must hold true and false, or names of genes")
    return ops.astype(np.int64)
