"""Every format: what is written computes what torch does, says what it is, and fails without a trace."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import nas
from latency.devices.onnx_device import OnnxDevice
from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.errors import DamagedFileError, ExportError, InputError
from nas.evaluation import ModelSignature
from nas.exporters import EXPORTERS, SUFFIXES, DataAtHand, ExportOptions, Product, export_onnx
from nas.tasks import Classification, Segmentation
from search_spaces import Mobile, NasBench201, SegmentationCell

SIGNATURE = ModelSignature(1, (6, 8), 3)
NORMALIZATION = Normalization((0.25,), (0.5,))
NAMES = ("a", "b", "ç")
QUICK = OnnxDevice(n_runs=6, relative_interval=None)
PLAIN = ExportOptions(device=QUICK)


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).eval()


def product(model=None, **options):
    return Product(
        network() if model is None else model, SIGNATURE, NORMALIZATION, NAMES, False, {"candidate": "0f"}, **options
    )


def data(n=40):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 6, 8), generator=random, dtype=torch.uint8)
    return DataAtHand(Examples(images, torch.arange(n) % 3), images[:20], Classification(NAMES))


def of_space(space, shape=(3, 64, 64), n_classes=4, seed=0):
    genotype = space.canonical(space.sample(np.random.default_rng(seed)))
    model = space.build(genotype, in_channels=shape[0], n_classes=n_classes, seed=0).eval()
    for module in model.modules():  # statistics as after a training, not those of a start
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    names = tuple(f"class {n}" for n in range(n_classes))
    is_dense = isinstance(space, SegmentationCell)
    normalization = Normalization((0.4,) * shape[0], (0.3,) * shape[0])
    recipe = {"kind": space.name, "options": space.options, "genes": list(genotype.genes)}
    signature = ModelSignature(shape[0], shape[1:], n_classes)
    return Product(model, signature, normalization, names, is_dense, recipe=recipe)


def with_data(given, n=32):
    """Return a product with images of noise and targets at hand."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *given.signature.input_shape), generator=random, dtype=torch.uint8)
    shape = (n, *given.signature.image_size) if given.is_dense else (n,)
    targets = torch.randint(0, given.signature.n_classes, shape, generator=random)
    task = (Segmentation if given.is_dense else Classification)(given.class_names)
    return dataclasses.replace(given, data=DataAtHand(Examples(images, targets), images, task))


CELLS = SegmentationCell(n_cells=1, n_branches=2)
SPACES = pytest.mark.parametrize(
    "space", [CELLS, NasBench201(width=4, cells_per_stage=1), Mobile()], ids=lambda space: space.name
)


def check_weights_read_back(given, folder):
    images = np.random.default_rng(0).random((2, *given.signature.input_shape), dtype=np.float32)
    with torch.inference_mode():
        found = nas.load_model(folder)(torch.from_numpy(images))
    np.testing.assert_array_equal(found, given.run(images))


@pytest.mark.parametrize("batch", [1, 5])
def test_the_file_takes_plain_images_in_a_batch_of_any_size(tmp_path, batch):
    given, path = product(), tmp_path / "network.onnx"
    export_onnx(given, path, PLAIN)
    image = torch.rand(batch, 1, 6, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    with torch.inference_mode():
        expected = given.network((image - 0.25) / 0.5)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_file_says_what_it_is(tmp_path):
    export_onnx(product(scores={"accuracy": 0.5}), tmp_path / "network.onnx", ExportOptions(opset=18))
    graph = onnx.load(tmp_path / "network.onnx")
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(properties["class_names"]) == ["a", "b", "ç"]
    assert properties["candidate"] == "0f"
    contract = json.loads(properties["contract"])
    assert (contract["layout"], contract["image_size"], contract["channels"]) == ("(B, C, H, W)", [6, 8], "grey")
    assert json.loads(properties["normalization"]) == {"mean": [0.25], "std": [0.5]}
    assert json.loads(properties["scores"]) == {"accuracy": 0.5}
    assert graph.opset_import[0].version == 18


@pytest.mark.parametrize("form", ["onnx", "exported_program", "python"])  # the others are not exact
def test_a_file_that_would_compute_something_else_is_not_written(tmp_path, form, monkeypatch):
    def damaged(self, images):
        return run(self, images) + 0.01

    run = Product.run
    monkeypatch.setattr(Product, "run", damaged)
    with pytest.raises(ExportError, match="does not compute what torch does: 32 images of noise of 6 x 8, 1 at a time"):
        EXPORTERS[form](product(), tmp_path / f"network{SUFFIXES[form]}", PLAIN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_stored_candidate_is_exported_with_its_trained_weights(tiny_run, tmp_path, form):
    run = nas.load_run(tiny_run)
    path = nas.export(tiny_run, run.knee.id, format=form, path=tmp_path / "out" / f"knee{SUFFIXES[form]}")
    files = path.parent.rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) > run.knee.metrics.get("n_params", 4000)
    with pytest.raises(InputError, match="format must be one of onnx"):
        nas.export(tiny_run, format="pickle")


@pytest.mark.parametrize(
    "size", [(160, 128), *(pytest.param(size, marks=pytest.mark.slow) for size in ((64, 64), (32, 96)))]
)
def test_a_segmentation_network_takes_images_of_any_size(tmp_path, size):
    given, path = of_space(CELLS), tmp_path / "any.onnx"
    exported = export_onnx(given, path, ExportOptions(any_size=True))
    assert exported.contract.any_size
    assert {comparison.image_size for comparison in exported.comparisons} == {(64, 64), given.other_size()}
    images = np.random.default_rng(1).random((2, 3, *size), dtype=np.float32)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"image": images})
    np.testing.assert_allclose(logits, given.run(images), atol=1e-3)


def test_whole_images_are_labelled_at_one_size_only(tmp_path):
    with pytest.raises(ExportError, match="images of any size are for segmentation"):
        export_onnx(product(), tmp_path / "any.onnx", ExportOptions(any_size=True))


def test_processing_inside_gives_a_class_map_of_the_images_own_size(tmp_path):
    given, path = of_space(CELLS), tmp_path / "whole.onnx"
    exported = export_onnx(given, path, ExportOptions(with_processing=True))
    assert exported.contract.dtype == "uint8"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 90, 70, 3), dtype=np.uint8)
    class_map, probability = onnxruntime.InferenceSession(path).run(None, {"image": pixels})
    assert class_map.shape == probability.shape == (1, 90, 70)
    assert class_map.dtype == np.uint8
    resized = Image.fromarray(pixels[0]).resize((64, 64), Image.Resampling.BILINEAR)  # as the training's images are
    image = np.asarray(resized, np.float32).transpose(2, 0, 1)[None] / 255
    small = torch.from_numpy(given.run(image)).softmax(1)
    expected = nn.functional.interpolate(small, (90, 70), mode="bilinear").max(1)
    assert (expected.indices.numpy() == class_map).mean() > 0.97  # Pillow rounds to whole pixels, twice
    assert np.abs(expected.values.numpy() - probability).max() < 0.02


def test_processing_inside_gives_a_label_and_its_probability(tmp_path):
    given, path = product(), tmp_path / "whole.onnx"
    export_onnx(given, path, ExportOptions(with_processing=True))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 1), dtype=np.uint8)
    label, probability = onnxruntime.InferenceSession(path).run(None, {"image": pixels})
    expected = torch.from_numpy(given.run(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)).softmax(1).max(1)
    assert label.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(probability, expected.values, atol=1e-5)


def test_int8_stands_beside_float32(tmp_path):
    exported = EXPORTERS["onnx_int8"](product(data=data()), tmp_path / "small.onnx", PLAIN)
    graph = onnx.load(tmp_path / "small.onnx")
    kinds = {node.op_type for node in graph.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert {prop.key for prop in graph.metadata_props} >= {"class_names", "contract", "candidate"}
    facts = exported.facts
    assert facts["float32"]["scores"] == data().score(product().run)
    assert facts["int8"]["n_bytes"] == (tmp_path / "small.onnx").stat().st_size
    assert facts["int8"]["latency_ms"] > 0
    text = "\n".join(exported.remarks)
    assert "accuracy on the validation split: " in text
    assert f"{facts['float32']['n_bytes']:,} bytes in float32" in text
    assert exported.comparisons[0].images == "32 validation images"


def test_int8_is_refused_beyond_a_drop_and_without_images(tmp_path, monkeypatch):
    scores = iter([{"accuracy": 0.8}, {"accuracy": 0.7}])
    monkeypatch.setattr(DataAtHand, "score", lambda self, run: next(scores))
    with pytest.raises(
        ExportError, match=r"int8 loses 0.1000 of accuracy \(0.8000 to 0.7000\), more than --max-drop 0.05"
    ):
        EXPORTERS["onnx_int8"](product(data=data()), tmp_path / "a.onnx", ExportOptions(max_drop=0.05, device=QUICK))
    with pytest.raises(ExportError, match="calibrated on the run's training images, and they are not at hand"):
        EXPORTERS["onnx_int8"](product(), tmp_path / "a.onnx", PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_the_written_code_needs_neither_this_project_nor_its_folder(tmp_path):
    given = of_space(CELLS)
    exported = EXPORTERS["python"](given, tmp_path / "found.py", PLAIN)
    text = (tmp_path / "found.py").read_text()
    assert "import nas" not in text
    assert "self.mean" in text
    images = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['nas'] = sys.modules['search_spaces'] = sys.modules['latency'] = None\n"
        "import numpy, torch\nfrom found import Network\n"
        "with torch.inference_mode():\n"
        "    logits = Network.load()(torch.from_numpy(numpy.load('images.npy')))\n"
        "numpy.save('logits.npy', logits.numpy())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), given.run(images), atol=1e-5)
    assert "from found import Network" in exported.snippet


@SPACES
@pytest.mark.parametrize("form", ["exported_program", "python"])
def test_networks_of_each_space_are_written(tmp_path, space, form):
    for seed in range(2):
        given = of_space(space, seed=seed)
        exported = EXPORTERS[form](given, tmp_path / f"n{seed}{SUFFIXES[form]}", PLAIN)
        assert [c.batch_size for c in exported.comparisons] == [1, 32]
        assert all(c.max_difference < 1e-4 and c.agreement > 0.9999 for c in exported.comparisons)
        assert all(path.exists() for path in exported.paths)


@SPACES
def test_weights_of_each_space_are_read_back(tmp_path, space):
    given = of_space(space)
    EXPORTERS["safetensors"](given, tmp_path / "n", PLAIN)
    check_weights_read_back(given, tmp_path / "n")


@pytest.mark.slow
@SPACES
@pytest.mark.parametrize("form", EXPORTERS)
def test_twenty_networks_of_each_space_are_written(tmp_path, space, form):
    for seed in range(20):
        given = with_data(of_space(space, seed=seed))
        path = tmp_path / f"n{seed}{SUFFIXES[form]}"
        exported = EXPORTERS[form](given, path, PLAIN)
        assert all(
            c.max_difference < 1e-4 and c.agreement >= 0.9999 for c in exported.comparisons if "int8" not in form
        )
        if form == "safetensors":
            check_weights_read_back(given, path)


def test_a_model_folder_is_read_back(tiny_run, tmp_path):
    run = nas.load_run(tiny_run)
    model = nas.export(tiny_run, run.knee.id, format="safetensors", folder=tmp_path)
    folder = model.parent
    onnx_file = nas.export(tiny_run, run.knee.id, folder=tmp_path)
    values = json.loads(model.read_text())
    images = np.random.default_rng(0).random(
        (3, values["signature"]["in_channels"], *values["signature"]["image_size"]), dtype=np.float32
    )
    (expected,) = onnxruntime.InferenceSession(onnx_file).run(None, {"image": images})
    network = nas.load_model(folder)
    assert not network.training
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(images)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("damage", "fault", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), InputError, "is no folder of an exported model"),
        (lambda folder: (folder / "model.json").write_text("{"), DamagedFileError, "model.json cannot be read"),
        (lambda folder: (folder / "model.json").write_text("[]"), DamagedFileError, "does not say format"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), DamagedFileError, "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), InputError, "does not hold this model's weights"),
    ],
)
def test_a_damaged_model_folder_is_an_error_that_names_the_file(tiny_run, tmp_path, damage, fault, message):
    folder = nas.export(tiny_run, format="safetensors", folder=tmp_path).parent
    damage(folder)
    with pytest.raises(fault, match=message):
        nas.load_model(folder)


def test_a_model_that_names_code_needs_trust(tiny_run, tmp_path):
    model = nas.export(tiny_run, format="safetensors", folder=tmp_path)
    values = json.loads(model.read_text())
    values["recipe"]["kind"] = "somebody.else:Space"
    model.write_text(json.dumps(values))
    with pytest.raises(InputError, match="names Python code"):
        nas.load_model(model.parent)
