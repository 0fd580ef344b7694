import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from latency.devices import onnx_device
from latency.devices.onnx_device import OnnxDevice
from latency.graph.onnx_writer import write_onnx_to_measure
from latency.timing import onnx_session

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize(
    "options", [{"index": -1}, {"index": 1}, {"index": 1, "execution_provider": "coreml"}], ids=str
)
def test_an_index_needs_a_provider_with_devices(options):
    message = "greater than or equal to 0" if options["index"] < 0 else "index must be 0 unless execution_provider is"
    with pytest.raises(ValueError, match=message):
        OnnxDevice(**options)


class Binding:
    def __init__(self, log):
        self._log = log

    def bind_ortvalue_input(self, name, value):
        self._log.append(("input", value))

    def bind_output(self, name, *where):
        self._log.append(("output", where))


class Session:
    """Stands for onnxruntime's where a second GPU is."""

    def __init__(self, source, options, providers, log):
        self._providers, self._log = providers, log
        log.append(("session", providers))
        self._real = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def get_providers(self):
        return [name for name, _ in self._providers]

    def get_inputs(self):
        return self._real.get_inputs()

    def get_outputs(self):
        return self._real.get_outputs()

    def io_binding(self):
        return Binding(self._log)

    def run_with_iobinding(self, binding, options=None):
        pass


def test_a_second_gpu_gets_the_session_the_input_and_the_output(monkeypatch, tmp_path):
    path, log = tmp_path / "net.onnx", []
    write_onnx_to_measure(nn.Linear(4, 2).eval(), (4,), path)
    real = onnxruntime

    class Runtime:
        __version__, SessionOptions, RunOptions = real.__version__, real.SessionOptions, real.RunOptions

        @staticmethod
        def get_available_providers():
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        @staticmethod
        def InferenceSession(source, options, providers):  # noqa: N802 - as in onnxruntime
            return Session(source, options, providers, log)

        class OrtValue:
            @staticmethod
            def ortvalue_from_numpy(image, *where):
                return where

    monkeypatch.setattr(onnx_session, "onnxruntime", Runtime)
    stats = OnnxDevice(execution_provider="cuda", index=1, n_runs=2).measure_file(path, (4,))
    assert log == [
        ("session", [("CUDAExecutionProvider", {"device_id": 1})]),
        ("input", ("cuda", 1)),
        ("output", ("cuda", 1)),
    ]
    assert stats.conditions["device"] == "cuda:1"


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs an onnxruntime with CUDA")
def test_onnxruntime_measures_on_cuda():
    stats = OnnxDevice(execution_provider="cuda", index=torch.cuda.device_count() - 1, n_runs=5).measure_latency(
        nn.Conv2d(3, 8, 3).eval(), (3, 32, 32)
    )
    assert stats.conditions["providers_used"][0] == "CUDAExecutionProvider"


def test_float16_converts_the_graph(tmp_path):
    path = tmp_path / "net.onnx"
    write_onnx_to_measure(nn.Linear(4, 2).eval(), (4,), path)
    graph = onnx.load_from_string(onnx_device._as_float16(path)).graph
    assert {tensor.data_type for tensor in graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert OnnxDevice(precision="float16", n_runs=2).measure_file(path, (4,)).conditions["precision"] == "float16"
