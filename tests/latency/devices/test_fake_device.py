import pytest
from torch import nn

from latency.devices import FakeDevice

MODEL = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).eval()
N_MACS = 27 * 8 * 16


def test_latency_is_the_formula():
    device = FakeDevice(batch_size=4, base_ms=2.0, ms_per_operator=0.5, macs_per_ms=1000, spread=0.1)
    latency = device.measure_latency(MODEL, (3, 4, 4))
    expected = 2.0 + 2 * 0.5 + 4 * N_MACS / 1000
    assert latency.median_ms == pytest.approx(expected, rel=1e-12)
    assert latency.p10_ms == pytest.approx(0.9 * expected, rel=1e-12)
    assert latency.p90_ms == pytest.approx(1.1 * expected, rel=1e-12)


def test_memory_is_the_largest_working_set():
    # The activation works on two tensors of 8 x 4 x 4; the convolution reads the input and writes one.
    reading = FakeDevice(batch_size=2).measure_peak_memory(MODEL, (3, 4, 4))
    weights, image, activations = 4 * (27 * 8 + 8), 2 * 3 * 16 * 4, 2 * 2 * 8 * 16 * 4
    assert reading.peak_bytes == weights + image + activations
    assert reading.conditions["activations_bytes"] == activations


def test_equal_readings_at_each_call():
    device = FakeDevice()
    assert device.measure_latency(MODEL, (3, 4, 4)) == device.measure_latency(MODEL, (3, 4, 4))
    assert device.measure_peak_memory(MODEL, (3, 4, 4)) == device.measure_peak_memory(MODEL, (3, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_ms": 0}, "base_ms\n  Input should be greater than 0 .*input_value=0"),
        ({"macs_per_ms": -1}, "macs_per_ms\n  Input should be greater than 0 .*input_value=-1"),
        ({"ms_per_operator": -1}, "ms_per_operator\n  Input should be greater than or equal to 0 .*input_value=-1"),
        ({"spread": 1}, "spread\n  Input should be less than 1 .*input_value=1"),
    ],
)
def test_options_are_validated(options, message):
    with pytest.raises(ValueError, match=message):
        FakeDevice(**options)
