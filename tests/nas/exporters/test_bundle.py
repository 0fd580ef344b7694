"""Bundles: whole or not there, and three ways of asking the same network give the same answer."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import nas
from nas import api
from nas.cli.app import app
from nas.data.decoding import decode_image, to_array
from nas.errors import InputError
from nas.exporters.bundle.predict import open_image, to_input
from nas.exporters.bundle.writing import read_manifest
from nas.pretrained.teacher import TeacherSpec
from nas.torch_tools import load_weights, save_weights

FACES = {
    "name": "faces",
    "data": {"kind": "synthetic_faces", "image_size": 32, "n_train": 16, "n_validation": 8, "n_test": 8},
    "search_space": {"kind": "segmentation_cell", "n_cells": 1, "n_branches": 1},
    "training": {"device": "cpu", "epochs": 2, "batch_size": 8},
    "objectives": [{"metric": "mean_iou", "direction": "maximize"}, {"metric": "n_params"}],
    "controller": {"kind": "random", "n_candidates": 1},
    "references": ["unet"],
    "tensorboard": False,
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A finished run of segmentation, retrained."""
    folder = tmp_path_factory.mktemp("runs") / "faces"
    run = nas.run_search(FACES, folder)
    nas.retrain(folder, run.front[0].id, 1)
    return folder


@pytest.fixture(scope="module")
def made(faces, tmp_path_factory):
    """The bundle of that run's network."""
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    api.bundle(faces, folder=folder)
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    """A copy, to be broken."""
    shutil.copytree(made, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def photo(tmp_path):
    """A photograph of another size, saved sideways."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((70, 50), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)


def test_a_bundle_holds_what_its_manifest_says(made):
    manifest = read_manifest(made)
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert files == {*manifest["files"], "manifest.json"}
    assert {"model.onnx", "weights/model.safetensors", "weights/model.json", "predict.py", "README.md"} <= files
    assert {"front.png", "predictions.png", "network.svg"} <= files
    assert manifest["contract"]["image_size"] == [32, 32]
    assert manifest["genotype"]["space"] == "segmentation_cell"
    assert manifest["test_scores"]["mean_iou"] > 0
    assert manifest["configuration"]["name"] == "faces"
    assert manifest["formats"]["onnx"]["compared_with_torch"][0]["images"] == "8 validation images"
    assert len(manifest["data_fingerprint"]) > 8


def test_the_card_says_how_good_and_how_to_use_it(made):
    card = (made / "README.md").read_text()
    manifest = json.loads((made / "manifest.json").read_text())
    assert (
        f"| mean_iou | {manifest['validation_scores']['mean_iou']:.4f} | {manifest['test_scores']['mean_iou']:.4f}"
        in card
    )
    for text in ("python predict.py IMAGE", "(B, C, H, W)", "| skin |", "predictions.png", "## Limits", "n_params"):
        assert text in card


def test_script_and_framework_say_the_same_of_an_image_file(made, photo, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['nas'] = None\n"
        f"import runpy; runpy.run_path({str(made / 'predict.py')!r}, {{}}, '__main__')"
    )
    arguments = [sys.executable, "-c", code]
    said = subprocess.run(
        [*arguments, str(photo), "--raw", "script", "--out", "script"],
        cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "photo.overlay.png" in said.stdout
    result = command("predict", made, photo, "--raw", tmp_path / "own", "--out", tmp_path / "own")
    assert result.exit_code == 0, result.output
    script, own = (np.load(tmp_path / name / "photo.npy") for name in ("script", "own"))
    assert script.shape == (70, 50)  # upright
    assert (script == own).mean() >= 0.999
    with Image.open(tmp_path / "own" / "photo.overlay.png") as overlay:
        assert overlay.size == (50, 70)


SHAPES = {
    "RGB": lambda rng: Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)),
    "grey": lambda rng: Image.fromarray(rng.integers(0, 256, (40, 60), dtype=np.uint8)),
    "16 bits": lambda rng: Image.fromarray(rng.integers(0, 65536, (40, 60), dtype=np.uint16)),
    "transparent": lambda rng: Image.fromarray(rng.integers(0, 256, (40, 60, 4), dtype=np.uint8), "RGBA"),
    "palette": lambda rng: Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).quantize(20),
    "black and white": lambda rng: Image.fromarray(rng.integers(0, 2, (40, 60), dtype=np.uint8) * 255).convert("1"),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("channels", "n"), [("grey", 1), ("red, green, blue", 3)])
def test_the_script_reads_images_as_trainings_do(tmp_path, kind, channels, n):
    path = tmp_path / "image.png"
    SHAPES[kind](np.random.default_rng(0)).save(path)
    ours = to_array(decode_image(path), n, (32, 24)).astype(np.float32)[None] / 255
    scripts = to_input(open_image(path), {"image_size": [32, 24], "channels": channels})
    np.testing.assert_allclose(scripts, ours, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b"x"), "model.onnx is not what was written"),
        (lambda b: (b / "README.md").unlink(), "README.md is missing"),
        (lambda b: (b / "manifest.json").write_text("{}"), "cannot be read as the manifest"),
        (lambda b: (b / "manifest.json").unlink(), "is no bundle: it holds no manifest.json"),
    ],
)
def test_a_changed_bundle_is_refused(bundle, photo, damage, message):
    damage(bundle)
    for arguments in (("predict", bundle, photo), ("bench", bundle)):
        result = command(*arguments)
        assert result.exit_code != 0
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)


def test_a_manifest_cannot_name_files_elsewhere(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["../x"] = "0"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="names a file outside of the bundle"):
        read_manifest(bundle)


def test_the_script_says_what_is_wrong(bundle, photo, tmp_path):
    def said(*arguments):
        run = [sys.executable, str(bundle / "predict.py"), *map(str, arguments)]
        ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        return ended.stderr

    (tmp_path / "no.png").write_bytes(b"no image")
    assert "no.png cannot be read as an image" in said(tmp_path / "no.png")
    assert "there is no such file" in said(tmp_path / "missing.png")
    assert "several images are called photo" in said(photo, photo)
    (bundle / "model.onnx").write_bytes(b"x")
    assert "model.onnx is not what was written" in said(photo)


def test_a_bundle_is_timed_and_scored(made, faces, tmp_path):
    result = command("bench", made, "--device", "onnxruntime:n_runs=8,relative_interval=null", "--json")
    assert result.exit_code == 0, result.output
    (timing,) = json.loads(result.stdout)["timings"]
    assert timing["file"] == "model.onnx"
    assert timing["latency_ms"] > 0
    result = command("evaluate", made, "--data", faces / "config.yaml", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["scores"]["mean_iou"] == pytest.approx(found["manifest"]["mean_iou"], abs=1e-3)
    result = command("evaluate", made, "--data", faces / "config.yaml", "--split", "test", "--json")
    found = json.loads(result.stdout)
    assert found["scores"]["mean_iou"] == pytest.approx(found["manifest"]["mean_iou"], abs=1e-3)
    result = command("evaluate", made, "--data", faces / "config.yaml", "--set", "data.image_size=64")
    assert "data.image_size must be [32, 32], the bundle's, got [64, 64]" in str(result.exception)


def test_nothing_is_left_where_a_bundle_cannot_be(faces, made, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is there already"):
        api.bundle(faces, folder=made)
    with pytest.raises(InputError, match="formats must be of onnx"):
        api.bundle(faces, folder=tmp_path / "b", formats=["tflite"])

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nas.exporters.bundle.writing.shutil.copyfile", full)
    with pytest.raises(InputError, match="cannot be written: .*No space left"):
        api.bundle(faces, folder=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_references_are_bundled_like_candidates(faces, tmp_path):
    api.bundle(faces, "unet", folder=tmp_path / "reference")
    manifest = read_manifest(tmp_path / "reference")
    assert manifest["title"] == "faces: unet"
    network = nas.load_model(tmp_path / "reference" / "weights")
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 32, 32)


def test_without_the_data_the_card_leaves_pictures_out(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.parent, tmp_path / "runs") / tiny_run.name
    api.bundle(run, folder=tmp_path / "bundle", overrides=["data.root=/nowhere"])
    manifest = read_manifest(tmp_path / "bundle")
    assert "predictions.png" not in manifest["files"]
    assert manifest["formats"]["onnx"]["compared_with_torch"][0]["images"] == "32 images of noise"
    assert "was not at hand" in (tmp_path / "bundle" / "README.md").read_text()


# The teacher


def test_the_teacher_is_bundled_like_candidates(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.parent, tmp_path / "runs") / tiny_run.name
    result = command("bundle", run, "--candidate", "teacher", "--out", tmp_path / "bundle", "--format", "python")
    assert result.exit_code == 0, result.output
    manifest, loaded = read_manifest(tmp_path / "bundle"), nas.load_run(run)
    assert manifest["origin"]["candidate"] == "teacher"
    assert manifest["validation_scores"]["accuracy"] == pytest.approx(loaded.teacher["scores"]["accuracy"], abs=1e-3)
    assert manifest["metrics"]["n_params"]["value"] == loaded.teacher["n_params"]
    assert (
        sum(p.numel() for p in nas.load_model(tmp_path / "bundle" / "weights").parameters())
        == loaded.teacher["n_params"]
    )
    assert "resnet, the teacher of the search" in (tmp_path / "bundle" / "README.md").read_text()
    assert api.export(run, "teacher").name == "teacher.full.onnx"


def test_a_given_teacher_is_exported_with_its_own_form(tmp_path):
    torch.manual_seed(0)
    save_weights(TeacherSpec("unet", {"width": 4}).build(3, 8), tmp_path / "mine.safetensors")
    form = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.4, 0.3], "channel_order": "bgr"}
    teacher = {"kind": "unet", "width": 4, "weights": str(tmp_path / "mine.safetensors"), **form}
    run = nas.run_search({**FACES, "references": [], "teacher": teacher}, tmp_path / "runs" / "given")
    api.bundle(run.path, "teacher", folder=tmp_path / "bundle")
    network, own = nas.load_model(tmp_path / "bundle" / "weights"), TeacherSpec("unet", {"width": 4}).build(3, 8).eval()
    load_weights(own, tmp_path / "mine.safetensors")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(form[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        torch.testing.assert_close(network(images), own((images.flip(1) - mean) / std), rtol=1e-3, atol=1e-4)
    (tmp_path / "mine.safetensors").unlink()
    with pytest.raises(InputError, match=r"mine\.safetensors: the weights of this run's teacher are not there"):
        api.export(run.path, "teacher")


def test_a_run_without_a_teacher_to_write_says_so(faces):
    with pytest.raises(InputError, match="this run has no trained teacher"):
        api.export(faces, "teacher")
