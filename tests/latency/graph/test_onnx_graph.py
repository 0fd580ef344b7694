import logging

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency.errors import OnnxExportError
from latency.graph import onnx_writer
from latency.graph.onnx_writer import write_onnx
from tests.latency.functions import Function


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, image):
        return F.interpolate(self.head(self.stem(image)), size=image.shape[-2:], mode="bilinear")


def test_the_file_is_the_model_for_any_batch(tmp_path, capfd, recwarn):
    torch.manual_seed(0)
    model = Segmenter().eval()
    model.stem[1].running_mean.normal_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / "new" / "model.onnx"
    levels = [logging.getLogger(name).level for name in ("torch.onnx", "torch.export")]
    written = write_onnx(model, (3, 16, 16), path, metadata={"classes": "a,b"})

    assert [logging.getLogger(name).level for name in ("torch.onnx", "torch.export")] == levels
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert list(path.parent.iterdir()) == [path]
    assert written.path == path
    assert written.n_bytes == path.stat().st_size
    assert written.max_difference <= 1e-4
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    graph = onnx.load(path)
    assert {entry.key: entry.value for entry in graph.metadata_props} == {"classes": "a,b"}
    assert written.opset_version == graph.opset_import[0].version
    assert b".py" not in path.read_bytes()  # no places in the exporter's or the user's source
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", ["batch", 3, 16, 16])]
    assert [value.name for value in session.get_outputs()] == ["logits"]
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    (actual,) = session.run(None, {"image": images.numpy()})
    with torch.inference_mode():
        expected = model(images)
    assert torch.allclose(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-4)


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    model = nn.Linear(4, 4).eval()
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the file of before")
    export = onnx_writer._export

    def export_another(_, *arguments):
        return export(nn.Linear(4, 4).eval(), *arguments)

    monkeypatch.setattr(onnx_writer, "_export", export_another)
    with pytest.raises(OnnxExportError, match=r"differs from torch's by .* at most 0.0001 is allowed"):
        write_onnx(model, (4,), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"the file of before"


def test_an_invalid_graph_is_not_written(tmp_path, monkeypatch):
    def export_nonsense(*_):
        node = onnx.helper.make_node("NoSuchOperator", ["image"], ["logits"])
        value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 4])
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], []))

    monkeypatch.setattr(onnx_writer, "_export", export_nonsense)
    with pytest.raises(OnnxExportError, match=r"cannot write Linear as ONNX .*NoSuchOperator"):
        write_onnx(nn.Linear(4, 4).eval(), (4,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Function(lambda x: (x, x)), "the model must return one tensor, got a tuple"),
        (Function(lambda x: x / 0), "holds NaN or infinity"),
        (nn.Linear(5, 2), r"cannot write Linear as ONNX for images of shape \(4,\): mat1 and mat2 shapes"),
        (
            Function(lambda x: x if x.sum() > 0 else -x),
            "cannot write Function as ONNX",
        ),
    ],
    ids=["two outputs", "not finite", "wrong shape", "branches on data"],
)
def test_models_without_a_graph_are_refused_and_leave_no_file(model, message, tmp_path, capfd):
    with pytest.raises(OnnxExportError, match=message):
        write_onnx(model.eval(), (4,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_train_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        write_onnx(nn.Linear(4, 4), (4,), tmp_path / "model.onnx")
