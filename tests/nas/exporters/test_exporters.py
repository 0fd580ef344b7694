import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import nas
from nas.data.normalization import Normalization
from nas.errors import ExportError, InputError
from nas.evaluation import ModelSignature
from nas.exporters import EXPORTERS, export_onnx

SIGNATURE = ModelSignature(1, (6, 8), 3)
NORMALIZATION = Normalization((0.25,), (0.5,))


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).eval()


def export(model, path, **options):
    given = {"signature": SIGNATURE, "normalization": NORMALIZATION, "class_names": ("a", "b", "ç")}
    return export_onnx(model, path, **given, metadata={"candidate": "0f"}, **options)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_file_takes_plain_images_in_a_batch_of_any_size(tmp_path, batch):
    model, path = network(), tmp_path / "network.onnx"
    export(model, path)
    image = torch.rand(batch, 1, 6, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    with torch.inference_mode():
        expected = model((image - 0.25) / 0.5)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_file_says_what_it_is(tmp_path):
    export(network(), tmp_path / "network.onnx")
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "network.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == ["a", "b", "ç"]
    assert properties["candidate"] == "0f"


class Undecided(nn.Module):
    """What was traced is not what comes later."""

    def __init__(self):
        super().__init__()
        self.network = network()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.network(x) + self.calls


def test_a_file_that_would_compute_something_else_is_not_written(tmp_path):
    path = tmp_path / "network.onnx"
    with pytest.raises(ExportError, match=r"network\.onnx was not written"):
        export(Undecided(), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_stored_candidate_is_exported_with_its_trained_weights(tiny_run, tmp_path, form):
    run = nas.load_run(tiny_run)
    path = nas.export(tiny_run, run.knee.id, format=form, path=tmp_path / "out" / f"knee.{form}")
    assert path.stat().st_size > run.knee.metrics.get("n_params", 4000) * 4
    with pytest.raises(InputError, match="format must be one of onnx"):
        nas.export(tiny_run, format="pickle")
