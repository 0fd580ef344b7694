"""The README's road from an installation to a labelled picture, as its user takes it."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.base import Split
from nas.data.synthetic_faces import SyntheticFaces

ROOT = Path(__file__).parent.parent
NEEDED_BY_SCRIPT = ("numpy", "pillow", "onnxruntime")


def shell(*arguments, cwd):
    done = subprocess.run(list(map(str, arguments)), cwd=cwd, check=False, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def environment(tmp_path):
    """The Python of a fresh virtual environment that holds only what predict.py needs."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    shell(python, "-m", "pip", "install", "--quiet", *NEEDED_BY_SCRIPT, cwd=tmp_path)
    return python


@pytest.mark.slow
def test_from_the_quickstart_to_a_picture_labelled_where_nothing_else_is_installed(environment, tmp_path):
    run, bundle, photo = tmp_path / "runs" / "quickstart", tmp_path / "faces", tmp_path / "face.png"
    nas = [sys.executable, "-m", "nas"]
    shell(*nas, "search", ROOT / "configs" / "quickstart.yaml", "--run-dir", run, cwd=ROOT)
    shell(*nas, "bundle", run, "--knee", "--out", bundle, cwd=ROOT)
    pixels = SyntheticFaces(image_size=64, n_train=1, n_validation=1).load(Split.VALIDATION).images[0]
    Image.fromarray(pixels.numpy().transpose(1, 2, 0)).resize((150, 200), Image.Resampling.BICUBIC).save(photo)
    shell(environment, bundle / "predict.py", photo, "--raw", "script", "--out", "script", cwd=tmp_path)
    shell(*nas, "predict", bundle, photo, "--raw", tmp_path / "own", "--out", tmp_path / "own", cwd=ROOT)
    script, own = (np.load(tmp_path / name / "face.npy") for name in ("script", "own"))
    assert script.shape == (200, 150)
    assert (script == own).mean() >= 0.999
    assert len(np.unique(script)) > 2
    assert (tmp_path / "script" / "face.overlay.png").is_file()
    modules = shell(environment, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).lower()
    assert "torch" not in modules
    assert "pareto" not in modules
