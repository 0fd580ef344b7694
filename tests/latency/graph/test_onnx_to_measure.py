"""The file that is only measured: written from the operator graph, by torch's exporter where that can't be."""

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from latency.devices import OnnxDevice
from latency.errors import OnnxExportError
from latency.graph import onnx_writer
from latency.graph.onnx_writer import write_onnx_to_measure
from tests.latency.functions import Function


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Flatten(), nn.Linear(144, 2)).eval()


def never(*_):
    raise AssertionError("torch's exporter takes seconds")


def test_it_is_the_model_for_any_batch_and_the_exporter_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_writer, "_export", never)
    model, path = network(), tmp_path / "net.onnx"
    written = write_onnx_to_measure(model, (3, 8, 8), path)
    assert written.untranslated == ""
    assert written.max_difference <= 1e-4
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", ["batch", 3, 8, 8])]
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"image": images.numpy()})[0]), model(images))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.cumsum(1), "aten.cumsum has no translation"),
        (lambda x: x * torch.tensor(2.0), "reads a tensor that is no parameter"),
    ],
)
def test_torchs_exporter_writes_what_has_no_translation(function, reason, tmp_path):
    model = Function(function).eval()
    written = write_onnx_to_measure(model, (4,), tmp_path / "net.onnx")
    assert reason in written.untranslated
    assert written.max_difference <= 1e-6


def test_torchs_exporter_writes_what_a_translation_gets_wrong(tmp_path, monkeypatch):
    right = onnx_writer.onnx_from_graph

    def wrong(graph, model):
        program = right(graph, model)
        program.graph.node[-1].op_type = "Neg"
        return program

    monkeypatch.setattr(onnx_writer, "onnx_from_graph", wrong)
    written = write_onnx_to_measure(nn.ReLU().eval(), (4,), tmp_path / "net.onnx")
    assert "differs from torch's by" in written.untranslated
    assert [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node] == ["Relu"]


def test_a_model_without_a_graph_is_refused(tmp_path):
    with pytest.raises(OnnxExportError, match="the model must return one tensor, got a tuple"):
        write_onnx_to_measure(Function(lambda x: (x, x)).eval(), (4,), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_reading_says_who_wrote_the_file():
    conditions = OnnxDevice(n_runs=1).measure_latency(Function(lambda x: x.cumsum(0)).eval(), (4,)).conditions
    assert conditions["onnx_writer"] == "torch.onnx"
    assert conditions["onnx_writer_reason"] == "aten.cumsum has no translation"
    conditions = OnnxDevice(n_runs=1).measure_latency(network(), (3, 8, 8)).conditions
    assert conditions["onnx_writer"] == "latency.graph"
    assert "onnx_writer_reason" not in conditions
