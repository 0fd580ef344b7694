"""Small files that stand for huge ones, and what else was found to hang, fill the memory or leak a library's error."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
import onnx
import pytest
from onnx import helper

from latency.graph.onnx_reader import graph_from_onnx
from nas.data import fashion_mnist, parquet_columns
from nas.data.decoding import decode_image, decode_mask
from nas.data.fashion_mnist import read_idx
from nas.data.parquet_columns import read_images, read_labels
from nas.errors import DataError, InputError
from nas.pretrained.onnx_teacher import OnnxTeacher, external_files
from search_spaces.errors import SearchSpaceError
from search_spaces.spaces import Tabular, table_file
from tests.foreign import bounded
from tests.latency import onnx_files


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def with_member(path, name, content, size=None):
    """Write an archive with one member, which says that it unpacks to `size` bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    if size is not None:
        raw = path.read_bytes()
        path.write_bytes(raw.replace(struct.pack("<I", len(content)), struct.pack("<I", size)))
    return path


def header(shape, descr="<i8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def many_members(path):
    with zipfile.ZipFile(path, "w") as file:
        for index in range(20_000):
            file.writestr(f"{index:040d}.npy", b"")
    return path


ONE = np.zeros((1, 1), int)
LARGE = header((1 << 19, 1)) + bytes(1 << 22)
NESTED = b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535
TABLES = {
    "an op of a billion": (lambda p: npz(p, ops=np.array([[10**9]])), "ops must be below 4,096"),
    "too many rows": (lambda p: npz(p, ops=np.zeros(((1 << 20) + 1, 1), np.uint8)), "at most 1,048,576 rows"),
    "too many names": (lambda p: npz(p, ops=ONE, op_names=np.arange(5000)), "at most 4,096 names"),
    "edges of text": (lambda p: npz(p, ops=ONE, edges=np.array([["a", "b"]])), "edges must be integers"),
    "edges of NaN": (lambda p: npz(p, ops=ONE, edges=np.full((1, 2), np.nan)), "edges must be integers"),
    "bomb": (lambda p: with_member(p, "ops.npy", bytes(9 << 20)), "at most 8 MiB, they have 9"),
    "bomb that lies": (lambda p: with_member(p, "ops.npy", LARGE, 99), "Bad CRC-32"),
    "huge shape": (lambda p: with_member(p, "ops.npy", header((1 << 40, 1 << 20))), "takes"),
    "overflowing shape": (lambda p: with_member(p, "ops.npy", header((1 << 63, 1 << 63, 0))), "cannot be read|must be"),
    "negative shape": (lambda p: with_member(p, "ops.npy", header((-1, -1))), "shape"),
    "nested header": (lambda p: with_member(p, "ops.npy", NESTED), "cannot be read"),
    "objects": (lambda p: npz(p, ops=ONE, x=np.array([{}], dtype=object)), None),
    "many arrays": (many_members, "the list of its arrays must have at most 1,024 KiB"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "MAX_BYTES", 8 << 20)
    make, message = TABLES[name]
    space = Tabular(make(tmp_path / "t.npz"))
    error = bounded(lambda path: space.genes, space.path)
    if message is None:
        assert error is None
    else:
        with pytest.raises(SearchSpaceError, match=message) as raised:
            raise error
        assert str(raised.value).startswith(f"{space.path}: ")


def png(side, depth, kind, n_channels):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row, packer = bytes(1 + side * n_channels * depth // 8), zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_image_of_more_pixels_than_are_read_is_refused_before_it_is_decoded():
    for decode in (decode_image, decode_mask):
        with pytest.raises(DataError, match=r"has 10001 x 10001 pixels, at most 100,000,000 are read"):
            raise bounded(decode, png(10_001, 1, 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "kind", "n_channels"), [(8, 6, 4), (16, 0, 1), (8, 4, 2), (8, 2, 3)])
def test_the_largest_image_is_read_in_bounds(depth, kind, n_channels):
    bounded(decode_image, png(10_000, depth, kind, n_channels))
    bounded(decode_mask, png(10_000, depth, kind, n_channels))


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "_MAX_BYTES", 8 << 20)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(9 << 20), 1))
    with pytest.raises(DataError, match="must hold at most 8 MiB unpacked"):
        raise bounded(lambda path: read_idx(path, (28, 28)), path)


def test_a_column_of_one_value_that_stands_for_many_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_columns, "_MAX_COLUMN_BYTES", 8 << 20)
    monkeypatch.setattr(parquet_columns, "_MAX_ROWS", 10_000)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table({"img": pyarrow.array([bytes(1 << 16)] * 200)}), path)
    assert path.stat().st_size < 1 << 17
    with pytest.raises(DataError, match="takes more than the 8 MiB that are read of one file"):
        raise bounded(lambda path: read_images(path, "img"), path)
    parquet.write_table(pyarrow.table({"label": pyarrow.array(np.zeros(10_001, np.int8))}), path)
    with pytest.raises(DataError, match="has 10,001 rows, at most 10,000 are read"):
        raise bounded(lambda path: read_labels(path, "label"), path)


def onnx_with_functions(path, bodies):
    """Write a file that calls the first of some functions, each a list of operators of `own`."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", name, ["x"], ["y"], _chain(calls), opsets) for name, calls in bodies.items()
    ]
    graph = helper.make_graph(
        _chain([next(iter(bodies))]), "g", [onnx_files.value("x", [1, 2])], [onnx_files.value("y")]
    )
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10), path)
    return path


def _chain(kinds):
    names = ["x", *(f"t{i}" for i in range(1, len(kinds))), "y"]
    return [
        helper.make_node(kind, [names[i]], [names[i + 1]], domain="" if kind == "Relu" else "own")
        for i, kind in enumerate(kinds)
    ]


def test_functions_that_call_each_other_are_bounded(tmp_path):
    laughs = {f"f{i}": [f"f{i + 1}"] * 10 for i in range(12)} | {"f12": ["Relu"] * 10}
    path = onnx_with_functions(tmp_path / "net.onnx", laughs)
    assert "its functions written out are 1e+13 operators" in str(bounded(graph_from_onnx, path))
    path = onnx_with_functions(tmp_path / "net.onnx", {"f": ["g"], "g": ["f"]})
    assert "calls itself" in str(bounded(graph_from_onnx, path))
    path = onnx_with_functions(tmp_path / "net.onnx", {"f": ["g", "g"], "g": ["Relu", "Relu"]})
    assert len(graph_from_onnx(path).operators) == 4


def test_a_name_of_a_size_that_is_no_text_is_refused(tmp_path):
    path = onnx_files.write(tmp_path, [onnx_files.node("Relu", "x", "y")], ["batch", 3, 8, 8])
    path.write_bytes(path.read_bytes().replace(b"batch", b"bat\xa9h"))
    teacher = OnnxTeacher(3, 2, path=path)
    error = bounded(lambda path: teacher.open(), path)
    assert "cannot be read as an ONNX file" in str(error)
    bounded(graph_from_onnx, path)


def test_a_file_that_names_weights_elsewhere_is_refused(tmp_path):
    for location in ("../secret", "/etc/passwd", "a/../../b"):
        weight = onnx_files.weight("w", 2, 3, 1, 1)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        path = onnx_files.write(tmp_path, [onnx_files.node("Conv", "x w", "y")], ["n", 3, 8, 8], [weight])
        with pytest.raises(InputError, match="must keep its weights beside it"):
            external_files(path)
