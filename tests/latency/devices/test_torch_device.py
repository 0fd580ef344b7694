import contextlib
import shutil
import subprocess

import pytest
import torch
from torch import nn

from latency import inference as inference_module
from latency.devices import TorchCpuDevice, TorchCudaDevice
from latency.errors import DeviceUnavailableError, MeasurementError
from latency.timing import clocks


class Spy(nn.Module):
    """Keeps what the world looks like while it runs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.seen = []

    def forward(self, image):
        self.seen.append(
            (
                torch.get_num_threads(),
                torch.is_inference_mode_enabled(),
                tuple(image.shape),
                image.is_contiguous(memory_format=torch.channels_last),
            )
        )
        return self.layer(image)

    def __deepcopy__(self, memo):
        copy = Spy().eval()
        copy.seen = self.seen
        return copy


def test_it_runs_in_inference_mode_with_its_own_threads_and_batch():
    before = torch.get_num_threads()
    model = Spy().eval()
    device = TorchCpuDevice(batch_size=3, n_threads=2, n_runs=4, relative_interval=None, n_warmup=1)
    stats = device.measure_latency(model, (3, 4, 4))
    # a trial, a warm-up, four readings, and others where this busy machine interrupted one
    assert set(model.seen) == {(2, True, (3, 3, 4, 4), False)}
    assert 6 <= len(model.seen) <= 6 + stats.conditions["n_disturbed"]
    assert stats.n_runs <= 4
    assert stats.conditions["n_warmup"] == 1
    assert stats.conditions["n_threads"] == 2
    assert torch.get_num_threads() == before


def test_threads_are_given_back_when_the_model_fails():
    before = torch.get_num_threads()
    with pytest.raises(MeasurementError, match=r"failed on cpu with an input of shape \(1, 5, 4, 4\)"):
        TorchCpuDevice(n_threads=before + 1).measure_latency(Spy().eval(), (5, 4, 4))
    assert torch.get_num_threads() == before


def test_channels_last_runs_a_copy_in_that_layout():
    model = Spy().eval()
    weight = model.layer.weight
    stats = TorchCpuDevice(channels_last=True, n_runs=1, relative_interval=None, n_warmup=0).measure_latency(
        model, (3, 4, 4)
    )
    assert set(model.seen) == {(1, True, (1, 3, 4, 4), True)}
    assert stats.conditions["channels_last"] is True
    assert model.layer.weight is weight


def test_float64_models_are_measured_in_the_precision_stated():
    model = nn.Linear(4, 4).double().eval()
    assert TorchCpuDevice(n_runs=1).measure_latency(model, (4,)).conditions["precision"] == "float32"
    assert model.weight.dtype is torch.float64


def test_peak_memory_closed_form():
    # Three linear layers of 4 -> 1024 -> 1024 -> 2: while the second runs, its input and output are alive.
    model = nn.Sequential(nn.Linear(4, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 2)).eval()
    reading = TorchCpuDevice(batch_size=8).measure_peak_memory(model, (4,))
    weights = 4 * (5 * 1024 + 1025 * 1024 + 1025 * 2)
    activations = 2 * 8 * 1024 * 4
    assert reading.conditions["weights_bytes"] == weights
    assert reading.conditions["activations_bytes"] == activations
    assert reading.peak_bytes == weights + 8 * 4 * 4 + activations


def test_shared_weights_take_their_memory_once():
    layer = nn.Linear(8, 8, bias=False)
    reading = TorchCpuDevice().measure_peak_memory(nn.Sequential(layer, layer).eval(), (8,))
    assert reading.conditions["weights_bytes"] == 256


def test_an_inference_longer_than_the_limit_is_stopped_within(monkeypatch):
    now = [0.0]

    class Slow(nn.Module):
        def forward(self, x):
            now[0] += 6.0
            return x

    model = nn.Sequential(*(Slow() for _ in range(1000))).eval()
    with (
        pytest.raises(MeasurementError, match=r"one inference takes over 10 s .* \(time_limit_s\)"),
        inference_module.interrupted_after(10, model, clock=lambda: now[0]),
    ):
        model(torch.zeros(1))
    assert now[0] == 12.0
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_threads": 0}, "n_threads\n  Input should be greater than 0 .*input_value=0"),
        ({"n_runs": 0}, "n_runs\n  Input should be greater than 0 .*input_value=0"),
        ({"time_limit_s": -1.0}, "time_limit_s\n  Input should be greater than 0 .*input_value=-1.0"),
        ({"n_warmup": -1}, "n_warmup\n  Input should be greater than or equal to 0 .*input_value=-1"),
    ],
)
def test_cpu_options_are_validated(options, message):
    with pytest.raises(ValueError, match=message):
        TorchCpuDevice(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision\n  Input should be 'float32', 'float16' or 'bfloat16' .*'int8'"),
        ({"index": -1}, "index\n  Input should be greater than or equal to 0 .*input_value=-1"),
    ],
)
def test_cuda_options_are_validated(options, message):
    with pytest.raises(ValueError, match=message):
        TorchCudaDevice(**options)


def test_cuda_that_is_not_there_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for use in (
        lambda device: device.check(),
        lambda device: device.measure_latency(nn.Linear(4, 4).eval(), (4,)),
        lambda device: device.measure_peak_memory(nn.Linear(4, 4).eval(), (4,)),
    ):
        with pytest.raises(DeviceUnavailableError, match=r"no CUDA device here: .* torch_cpu"):
            use(TorchCudaDevice())


def test_a_cuda_index_too_high_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceUnavailableError, match=r"no CUDA device 2: torch sees 2"):
        TorchCudaDevice(index=2).check()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_cuda_measures_in_each_precision(precision):
    model = nn.Sequential(nn.Linear(64, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 64)).eval()
    device = TorchCudaDevice(batch_size=4, precision=precision, n_runs=5)
    n_bytes = 4 if precision == "float32" else 2
    assert device.measure_latency(model, (64,)).conditions["timer"] == "cuda_events"
    conditions = device.measure_peak_memory(model, (64,)).conditions
    assert conditions["weights_bytes"] == n_bytes * sum(parameter.numel() for parameter in model.parameters())
    assert conditions["activations_bytes"] == 2 * 4 * 1024 * n_bytes


class Stream:
    def __init__(self, device):
        self.device = device

    def wait_stream(self, other):
        pass


class SecondGpu:
    """What a capture asks of `torch.cuda`; like torch's, its stream by default is of the device captured on before."""

    current = Stream(torch.device("cuda", 0))

    def __init__(self, monkeypatch):
        self.captured_on = []
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", type("Graph", (), {"replay": lambda self: "replayed"}))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    @contextlib.contextmanager
    def capture(self, graph, stream=None):
        self.captured_on.append((stream or self.current).device)
        yield


def test_an_inference_is_captured_on_its_own_devices_stream(monkeypatch):
    cuda, calls = SecondGpu(monkeypatch), []
    replay = TorchCudaDevice(index=1, cuda_graph=True)._timed_call(lambda: calls.append(1))
    assert cuda.captured_on == [torch.device("cuda", 1)]
    assert calls == [1] * 4  # three before the capture and the captured one
    assert replay() == "replayed"


def test_clocks_are_asked_of_the_device_by_where_it_is_plugged_in(monkeypatch):
    plugged = {0: (0, 0xAF, 0), 1: (0, 0x3B, 0)}  # torch counts the fastest first, the driver's tool by the bus

    class Properties:
        def __init__(self, index):
            self.pci_domain_id, self.pci_bus_id, self.pci_device_id = plugged[index]

    monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
    monkeypatch.setattr(clocks.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    asked = []

    def answer(command, **options):
        asked.append(command[1])
        return subprocess.CompletedProcess(command, 0, stdout="1980, 2619, 41\n")

    monkeypatch.setattr(clocks.subprocess, "run", answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = [clocks.cuda_conditions(inference_module.pci_bus_id(index)) for index in (0, 1)]
    assert asked == ["--id=00000000:AF:00.0", "--id=00000000:3B:00.0"]
    assert found == [{"clock_mhz": 1980, "memory_clock_mhz": 2619, "temperature_c": 41}] * 2


@pytest.mark.gpu
def test_clocks_are_those_of_the_device_that_torch_measures():
    index = torch.cuda.device_count() - 1
    bus_id = inference_module.pci_bus_id(index)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        pytest.skip("the driver's tool is not here")
    listed = subprocess.run(
        [tool, "--query-gpu=pci.bus_id,uuid", "--format=csv,noheader"], capture_output=True, text=True, check=True
    )
    uuids = dict(line.split(", ") for line in listed.stdout.splitlines())
    assert uuids[bus_id] == f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    assert clocks.cuda_conditions(bus_id)["clock_mhz"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize(
    "index", [0, pytest.param(1, marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two"))]
)
def test_a_captured_inference_is_quicker_than_its_launches(index):
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(50))).eval()
    eager, captured = (
        TorchCudaDevice(index=index, cuda_graph=graph).measure_latency(model, (16,)) for graph in (False, True)
    )
    assert captured.conditions["cuda_graph"]
    assert captured.median_ms < eager.median_ms


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler uses what torch calls deprecated
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_is_another_runtime():
    device = TorchCpuDevice(compile=True, n_runs=5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    for size in (8, 12):  # a second model, another size
        stats = device.measure_latency(model, (3, size, size))
        assert stats.conditions["runtime"] == "torch.compile"
        assert stats.median_ms > 0
    assert TorchCpuDevice(n_runs=5).measure_latency(model, (3, 8, 8)).conditions["runtime"] == "torch"


def test_what_is_timed_is_the_compiled_model(monkeypatch):
    class Compiled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.n_calls = model, 0

        def forward(self, image):
            self.n_calls += 1
            return self.model(image)

    made = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: made.append(Compiled(model)) or made[-1])
    monkeypatch.setattr(TorchCpuDevice, "check", lambda self: None)
    stats = TorchCpuDevice(compile=True, n_runs=5, n_warmup=2).measure_latency(nn.Linear(3, 2).eval(), (3,))
    assert made[0].n_calls >= 5 + 2 + 1  # timed, to warm up, to compile
    assert stats.conditions["runtime"] == "torch.compile"
    TorchCpuDevice(n_runs=5).measure_latency(nn.Linear(3, 2).eval(), (3,))
    assert len(made) == 1


def test_compiling_without_a_compiler_is_refused_beforehand(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    TorchCpuDevice().check()
    with pytest.raises(DeviceUnavailableError, match="compile needs a C\\+\\+ compiler"):
        TorchCpuDevice(compile=True).check()


def test_a_model_that_cannot_be_compiled_is_an_error_in_words(monkeypatch):
    def failing(model, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr(TorchCpuDevice, "check", lambda self: None)
    with pytest.raises(MeasurementError, match=r"the model failed on cpu .*: no C\+\+ compiler"):
        TorchCpuDevice(compile=True).measure_latency(nn.Linear(3, 2).eval(), (3,))
