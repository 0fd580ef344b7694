"""Any bytes give a value or one of our errors, within ten seconds and 2 GiB."""

import gzip
import io
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image
from torch import nn

import nas
from latency.graph.onnx_reader import graph_from_onnx, onnx_batch_size, onnx_input_shape
from latency.predictors.device_model import DeviceModel, Header, header_line, reading_line
from latency.predictors.layers import Layer
from nas.analysis.tables import to_csv, to_json
from nas.config import load_config
from nas.data.decoding import decode_image, decode_mask, size_and_channels
from nas.data.fashion_mnist import read_idx
from nas.data.parquet_columns import class_names_in, columns_of, n_rows_of, read_images, read_labels
from nas.pretrained.onnx_teacher import OnnxTeacher, external_files
from nas.profiling.profile import read_genotype
from nas.torch_tools import read_weights, save_weights, weights_metadata
from nas.version import VERSION
from search_spaces.spaces import NasBench201, Tabular
from tests.foreign import OUR_ERRORS, bounded, foreign_bytes, foreign_texts
from tests.golden_stores import STORES
from tests.latency import onnx_files

ROOT = Path(__file__).parent.parent


def table(**arrays):
    file = io.BytesIO()
    ops = np.array([[0, 1], [1, 1], [0, 1]])
    np.savez_compressed(
        file, **{"ops": ops, "op_names": np.array(["none", "conv"]), "accuracy": np.arange(3.0)} | arrays
    )
    return file.getvalue()


def read_table(path):
    space = Tabular(path, costs=("accuracy",))
    space.check()
    for genotype in space.enumerate():
        space.describe(genotype)
        space.row(space.nearest(genotype.genes))
    return space.cell_graph


def read_onnx(path):
    onnx_batch_size(path)
    shape = onnx_input_shape(path)
    try:
        return graph_from_onnx(path, shape or (3, 8, 8))
    except ValueError as error:
        assert "input_shape" in str(error) or "batch_size" in str(error)  # what the caller asked for does not fit
        return None


def read_teacher(path):
    external_files(path)
    teacher = OnnxTeacher(3, 2, path=path)
    teacher.open()
    return teacher.n_params


def idx():
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 4, 4))
    return gzip.compress(header + bytes(range(32)))


def network(folder):
    nodes = [
        onnx_files.node("Conv", "x w", "c"),
        onnx_files.node("Shape", "c", "s"),
        onnx_files.node("Relu", "c", "r"),
        onnx_files.node("Expand", "r s", "y"),
    ]
    return onnx_files.write(folder, nodes, ["n", 3, 8, 8], [onnx_files.weight("w", 2, 3, 1, 1)]).read_bytes()


def images():
    """Return an image in each of several formats and modes."""
    rng = np.random.default_rng(0)
    found = []
    forms = (("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("L", "JPEG"), ("RGB", "TIFF"))
    for mode, form in forms:
        file = io.BytesIO()
        depth = np.uint16 if mode == "I;16" else np.uint8
        channels = {"RGB": (3,), "RGBA": (4,)}.get(mode, ())
        image = Image.fromarray(rng.integers(0, 255, (8, 8, *channels)).astype(depth))
        (image if image.mode == mode else image.convert(mode)).save(file, form)
        found.append(file.getvalue())
    for form in ("BMP", "GIF", "WEBP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 3, (8, 8), dtype=np.uint8)).save(file, form)
        found.append(file.getvalue())
    return found


def parquet(folder):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"img": images()[:3], "label": [0, 1, 1], "text": ["a", "b", "a"]})
    found = []
    for options in ({"compression": "none"}, {"compression": "snappy"}, {"use_dictionary": False}):
        parquet.write_table(table, folder / "valid.parquet", **options)
        found.append((folder / "valid.parquet").read_bytes())
    return found


def read_parquet(path):
    columns = columns_of(path)
    class_names_in(path, "label")
    for name in columns[1]:
        read_labels(path, name)
    return n_rows_of(path), read_labels(path, "label"), read_images(path, "img")


def weights(folder):
    save_weights(nn.Linear(3, 2), folder / "w.safetensors", {"scores": "{}"}, with_checksum=True)
    return (folder / "w.safetensors").read_bytes()


def read_safetensors(path):
    return read_weights(path), weights_metadata(path)


def read_store(path):
    shutil.copyfile(path, path.parent / "store.sqlite")
    run = nas.load_run(path.parent)
    to_json(run, all_records=True)
    to_csv(run, all_records=True)
    return run.hypervolumes()


def readings():
    """Return a file of readings of eleven networks of one kind of layer."""
    lines = [header_line(Header({"kind": "fake"}, (3, 8, 8), 1, {}))]
    for n in range(1, 12):
        lines.append(reading_line(str(n), [Layer("convolution 3x3", 10 * n, n, n, 9)], 1.0 + n, is_disturbed=False))
    return "".join(lines).encode()


def read_readings(path):
    model = DeviceModel.load(path)
    return model.foretell([model.readings[0].layers]), model.text()


READERS = {
    "yaml": (load_config, lambda folder: [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]),
    "npz": (read_table, lambda folder: [table(), table(edges=np.array([[0, 1], [1, 2]])), table(x=np.array(["ab"]))]),
    "idx": (lambda path: read_idx(path, (4, 4)), lambda folder: [idx(), gzip.decompress(idx())]),
    "onnx": (read_onnx, lambda folder: [network(folder)]),
    "onnx teacher": (read_teacher, lambda folder: [network(folder)]),
    "image": (decode_image, lambda folder: images()),
    "image size": (size_and_channels, lambda folder: images()),
    "mask": (decode_mask, lambda folder: images()),
    "parquet": (read_parquet, parquet),
    "store": (read_store, lambda folder: [(STORES / VERSION / "store.sqlite").read_bytes()]),
    "latency readings": (read_readings, lambda folder: [readings()]),
    "safetensors": (read_safetensors, lambda folder: [weights(folder)]),
}  # fmt: skip


def check(name, folder, n):
    read, make_valid = READERS[name]
    path = folder / "foreign.bin"

    @settings(
        max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=n < 1000
    )
    @given(foreign_bytes(make_valid(folder)))
    def holds(content):
        path.write_bytes(content)
        bounded(read, path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries wonder about what they read
        holds()


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_give_a_value_or_an_error_of_ours(name, tmp_path):
    check(name, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_files(name, tmp_path):
    check(name, tmp_path, 10_000)


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"store"}))
def test_what_is_no_regular_file_is_refused_at_once(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read, _ = READERS[name]
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OUR_ERRORS, match=path.name):
            read(path)


NESTED = ("[" * 5000, "{a: " * 5000, "- " * 5000, "&a [*a, *a]", "!!python/object:os.system x", "1:" * 3000, "f" * 9000)
KEYS = ("controller", "search_space", "objectives", "data", "seed", "name", "0", "1", "metric", "kind", "x-own")
MARKS = (
    ".",
    "=",
    "[",
    "]",
    "{",
    "}",
    ",",
    ": ",
    "-",
    " ",
    "\n",
    "#",
    "&a ",
    "*a",
    "!!int ",
    "<<",
    "|",
    ">",
    "?",
    "'",
    '"',
)
VALUES = ("null", "1e999", ".nan", "0x", '"\\ud800"', '"\\0"', "²", "9" * 30, "~", "%", "\x1b[2J", "\u202e")


def check_texts(read, texts, n):
    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(texts)
    def holds(text):
        bounded(read, text)

    holds()


def read_setting(text):
    return load_config(ROOT / "configs" / "quickstart.yaml", [text])


@pytest.mark.parametrize("n", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_setting_is_applied_or_refused(n, monkeypatch):
    monkeypatch.chdir(ROOT)
    valid = ("controller.n_generations=20", "objectives.0.metric=mean_iou", "data={kind: synthetic_faces}")
    check_texts(read_setting, foreign_texts((*KEYS, *MARKS, *VALUES, *NESTED), valid), n)


@pytest.mark.parametrize("n", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_text_is_a_genotype_or_refused(n):
    space = NasBench201()
    names = space.describe(space.genotype([0, 1, 2, 3, 4, 0]))
    words = ("|", "~", "+", ",", "0", "1", "-", "--", "²", "9" * 30, "none", "nor_conv_3x3", " ", *NESTED)
    check_texts(lambda text: read_genotype(space, text), foreign_texts(words, ("0,1,2,3,4,0", names)), n)
