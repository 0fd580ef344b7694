"""What every device promises, run over each entry of the registry."""

import json
import math

import pytest
import torch
from torch import nn

from latency.devices import DEVICES
from latency.devices.base import Device, MemoryReading
from latency.errors import MeasurementError, UnsupportedMeasurementError
from latency.timing.stats import LatencyStats

# Options that make each device quick. A new device is added here, or `test_every_device_is_covered` fails.
OPTIONS = {
    "torch_cpu": {"n_runs": 5},
    "torch_cuda": {"n_runs": 5},
    "onnxruntime": {"n_runs": 5},
    "fake": {},
}
ELSEWHERE = {"predicted", "remote"}  # need a file of readings, a board: test_device_model.py, test_remote_device.py
INPUT_SHAPE = (3, 8, 8)
METRICS = {"latency_ms", "peak_memory_bytes", "energy_mj"}

needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_device = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=needs_cuda if kind == "torch_cuda" else []) for kind in OPTIONS],
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def device_of(kind, **options):
    return DEVICES[kind](**OPTIONS[kind], **options)


def readings(device, model, input_shape=INPUT_SHAPE):
    """Call each measurement that the device says it has."""
    if "latency_ms" in device.metrics:
        yield lambda: device.measure_latency(model, input_shape)
    if "peak_memory_bytes" in device.metrics:
        yield lambda: device.measure_peak_memory(model, input_shape)


def test_every_device_is_covered():
    assert set(OPTIONS) | ELSEWHERE == set(DEVICES)


@pytest.mark.parametrize("kind", OPTIONS)
def test_construction_is_cheap_and_validated(kind):
    device = device_of(kind)
    assert isinstance(device, Device)
    assert device.metrics
    assert device.metrics <= METRICS
    assert device.batch_size == 1
    with pytest.raises(ValueError, match=r"batch_size\n +Input should be greater than 0 .*input_value=0"):
        device_of(kind, batch_size=0)


@every_device
def test_it_can_be_used_where_it_says_so(kind):
    device_of(kind).check()


@every_device
def test_readings_are_positive_and_ordered_and_tell_their_conditions(kind):
    device, model = device_of(kind, batch_size=2), network()
    latency = device.measure_latency(model, INPUT_SHAPE)
    assert isinstance(latency, LatencyStats)
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms < math.inf
    assert latency.n_runs <= 5
    found = [latency.conditions]
    if "peak_memory_bytes" in device.metrics:
        memory = device.measure_peak_memory(model, INPUT_SHAPE)
        assert isinstance(memory, MemoryReading)
        parts = [memory.conditions[f"{part}_bytes"] for part in ("weights", "input", "activations")]
        assert memory.peak_bytes == sum(parts)
        assert parts[0] >= 4 * sum(parameter.numel() for parameter in model.parameters())
        assert parts[1] == 2 * 3 * 8 * 8 * 4
        assert parts[2] >= 2 * 8 * 8 * 8 * 4
        assert type(memory.peak_bytes) is int
        found.append(memory.conditions)
    for conditions in found:
        assert {"device", "runtime", "precision", "batch_size", "input_shape"} <= set(conditions)
        assert conditions["batch_size"] == 2
        assert conditions["input_shape"] == [3, 8, 8]
        assert json.loads(json.dumps(conditions)) == conditions


@every_device
def test_peak_memory_is_the_same_at_each_reading(kind):
    device, model = device_of(kind), network()
    if "peak_memory_bytes" not in device.metrics:
        with pytest.raises(UnsupportedMeasurementError, match="peak"):
            device.measure_peak_memory(model, INPUT_SHAPE)
        return
    assert len({device.measure_peak_memory(model, INPUT_SHAPE).peak_bytes for _ in range(3)}) == 1


@every_device
def test_train_mode_is_refused(kind):
    model = network()
    model[1].train()
    for read in readings(device_of(kind), model):
        with pytest.raises(ValueError, match=r"module '1' is in train mode: call model.eval\(\)"):
            read()


@every_device
def test_the_model_and_the_process_are_left_as_they_were(kind):
    model = network()
    state = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    n_threads, generator = torch.get_num_threads(), torch.get_rng_state()
    for read in readings(device_of(kind), model):
        read()
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is state[name][0]
        assert torch.equal(value, state[name][1])
        assert value.device.type == "cpu"
        assert not value.is_inference()
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.get_num_threads() == n_threads
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@every_device
def test_a_wrong_input_shape_is_an_error_that_shows_it(kind):
    for read in readings(device_of(kind), network(), (4, 8, 8)):
        with pytest.raises(MeasurementError, match=r"4, 8, 8"):
            read()


@every_device
def test_sizes_that_cannot_be_are_refused(kind):
    for read in readings(device_of(kind), network(), (3, 0, 8)):
        with pytest.raises(ValueError, match=r"^input_shape must hold positive sizes"):
            read()
