import pytest
import torch
from torch import nn

from latency import inference as inference_module
from latency.devices import TorchCpuDevice, TorchCudaDevice
from latency.errors import DeviceUnavailableError, MeasurementError


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
