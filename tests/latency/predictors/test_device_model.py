"""Layers of models, files of readings, and the device that foretells from them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

from latency.devices import DEVICES, TorchCpuDevice
from latency.devices.fake_device import FakeDevice
from latency.devices.predicted_device import PredictedDevice
from latency.errors import DeviceUnavailableError, MeasurementError, PredictionError, UnsupportedMeasurementError
from latency.graph.tracer import graph_from_torch
from latency.predictors.device_model import DeviceModel, Header, header_line, read_readings, reading_line
from latency.predictors.encoding import LayerEncoder
from latency.predictors.layers import layers_of
from latency.timing.clocks import processor_name

SHAPE = (3, 16, 16)


def network(width=8, depth=2, kernel=3):
    layers = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)).eval()


def layers(model):
    return layers_of(graph_from_torch(model, SHAPE))


def pool(n=40):
    rng = np.random.default_rng(0)
    return [network(int(rng.integers(4, 40)), int(rng.integers(1, 6)), int(rng.choice([1, 3]))) for _ in range(n)]


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """A file of readings on the fake device, whose latency is that of its operators and multiply-adds."""
    path = tmp_path_factory.mktemp("readings") / "fake.jsonl"
    header = Header({"kind": "fake", "macs_per_ms": 1e6}, SHAPE, 1, {}, "made up")
    device = FakeDevice(macs_per_ms=1e6)
    lines = [header_line(header)]
    for number, model in enumerate(pool()):
        ms = device.measure_latency(model, SHAPE).median_ms
        lines.append(reading_line(str(number), layers(model), ms, is_disturbed=False))
    path.write_text("".join(lines))
    return path


def test_what_a_runtime_fuses_is_one_layer():
    found = layers(network(8, 1))
    assert [layer.kind for layer in found] == ["convolution 3x3", "convolution 3x3", "mean", "addmm"]
    second = found[1]
    assert second.n_macs == 8 * 8 * 9 * 16 * 16
    assert (second.n_read, second.n_written) == (8 * 16 * 16, 8 * 16 * 16)
    assert second.n_weights == 8 * 8 * 9 + 8


def test_an_activation_that_reads_a_sum_is_a_layer_and_groups_are_told_apart():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
            self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=2)
            self.up = nn.ConvTranspose2d(6, 6, 2, stride=2)

        def forward(self, x):
            y = self.depthwise(x)
            return self.up(torch.relu(torch.cat([y, self.grouped(y)], dim=1)[:, :6]))

    found = layers_of(graph_from_torch(Residual().eval(), (6, 8, 8)))
    kinds = [layer.kind for layer in found]
    assert kinds[:2] == ["convolution 3x3 depthwise", "convolution 3x3 grouped"]
    assert "cat" in kinds
    assert "relu" in kinds
    assert kinds[-1] == "transposed convolution 2x2"


def test_a_model_unlike_those_measured_is_doubted():
    encoder = LayerEncoder.of([layers(model) for model in pool(10)])
    assert encoder.doubts(layers(network(16, 3))) == ()
    assert "nothing is known of: convolution 5x5" in encoder.doubts(layers(network(8, 2, 5)))[0]
    (deep,) = encoder.doubts(layers(network(8, 30, 3)))
    assert "31 layers 'convolution 3x3'" in deep


def test_it_foretells_a_device_from_its_readings(readings):
    device = PredictedDevice(model=readings)
    device.check()
    truth = FakeDevice(macs_per_ms=1e6)
    errors = []
    for model in (network(w, d, k) for w, d, k in [(10, 2, 3), (20, 4, 1), (30, 5, 3), (6, 1, 3), (33, 3, 1)]):
        stats = device.measure_latency(model, SHAPE)
        errors.append(abs(stats.median_ms / truth.measure_latency(model, SHAPE).median_ms - 1))
        assert stats.p10_ms < stats.median_ms < stats.p90_ms
        assert stats.conditions["is_predicted"] is True
        assert stats.conditions["doubts"] == []
    assert max(errors) < 0.1
    assert DEVICES["predicted"] is PredictedDevice


def test_what_to_do_when_unsure_is_the_users_choice(readings):
    odd = network(8, 2, 5)
    flagged = PredictedDevice(model=readings).measure_latency(odd, SHAPE)
    assert "convolution 5x5" in flagged.conditions["doubts"][0]
    with pytest.raises(MeasurementError, match=r"cannot be foretold: layers that nothing is known of: convolution 5x5"):
        PredictedDevice(model=readings, when_unsure="refuse").measure_latency(odd, SHAPE)
    device = PredictedDevice(model=readings, when_unsure="measure")
    device.check()
    measured = device.measure_latency(odd, SHAPE)
    assert measured.median_ms == FakeDevice(macs_per_ms=1e6).measure_latency(odd, SHAPE).median_ms
    assert measured.conditions["device"] == "fake"
    assert "convolution 5x5" in measured.conditions["measured_because"][0]
    narrow = PredictedDevice(model=readings, max_spread=1e-9).measure_latency(network(16, 3), SHAPE)
    assert "the interval is" in narrow.conditions["doubts"][0]


def test_final_figures_are_the_devices_own_where_it_is_here(readings, tmp_path):
    assert PredictedDevice(model=readings).confirming() == FakeDevice(macs_per_ms=1e6)
    text = readings.read_text().replace('"kind": "fake", "macs_per_ms": 1000000.0', '"kind": "torch_cuda"')
    far = tmp_path / "far.jsonl"
    far.write_text(text)
    device = PredictedDevice(model=far)
    if not torch.cuda.is_available():
        assert device.confirming() == device
        with pytest.raises(DeviceUnavailableError):
            PredictedDevice(model=far, when_unsure="measure").check()


def changed(readings, path, old, new):
    """Return a copy of the file whose first line says something else."""
    text = readings.read_text()
    assert old in text.partition("\n")[0]
    path.write_text(text.replace(old, new, 1))
    return path


def test_other_hardware_of_the_same_kind_is_not_taken_for_it(readings, tmp_path):
    header = '"kind": "fake", "macs_per_ms": 1000000.0}, "input_shape": [3, 16, 16], "batch_size": 1, "conditions": {}'
    torch_cpu = header.replace('"kind": "fake", "macs_per_ms": 1000000.0', '"kind": "torch_cpu"')
    other = changed(readings, tmp_path / "o.jsonl", header, torch_cpu.replace("{}", '{"processor": "Another CPU"}'))
    device = PredictedDevice(model=other)
    assert device.confirming() == device
    with pytest.raises(DeviceUnavailableError, match="holds readings of 'Another CPU', here is '.+'"):
        PredictedDevice(model=other, when_unsure="measure").check()
    ours = torch_cpu.replace("{}", f'{{"processor": "{processor_name()}"}}')
    here = changed(readings, tmp_path / "h.jsonl", header, ours)
    assert PredictedDevice(model=here).confirming() == TorchCpuDevice()


def test_an_address_in_a_file_is_never_followed(readings, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "not for strangers")
    board = '"kind": "remote", "url": "http://127.0.0.1:9", "token_variable": "SECRET"'
    path = changed(readings, tmp_path / "r.jsonl", '"kind": "fake", "macs_per_ms": 1000000.0', board)
    monkeypatch.setattr("httpx.request", lambda *args, **options: pytest.fail("somebody was asked"))
    device = PredictedDevice(model=path)
    assert device.confirming() == device
    with pytest.raises(DeviceUnavailableError, match="holds a board's readings: give its url"):
        PredictedDevice(model=path, when_unsure="measure").check()


def test_more_than_can_be_learnt_from_is_refused_at_once(readings, tmp_path):
    lines = readings.read_text().splitlines(keepends=True)
    line = json.loads(lines[1])
    path = tmp_path / "many.jsonl"
    path.write_text(lines[0] + "".join(json.dumps({**line, "name": str(n)}) + "\n" for n in range(2001)))
    with pytest.raises(PredictionError, match=r"readings of 10 to 2,000 models are needed, got 2,001"):
        DeviceModel.load(path)
    long = {**line, "layers": [[f"kind {n}", 1, 1, 1, 1] for n in range(3000)]}
    path.write_text(lines[0] + "".join(json.dumps({**long, "name": str(n)}) + "\n" for n in range(10)))
    with pytest.raises(PredictionError, match=r"10 models of up to 3,000 layers of 3,000 kinds are too many"):
        DeviceModel.load(path)


def test_a_record_says_which_file_foretold_it(readings):
    conditions = PredictedDevice(model=readings).measure_latency(network(16, 3), SHAPE).conditions
    assert conditions["readings_sha256"] == hashlib.sha256(readings.read_bytes()).hexdigest()


def test_another_image_size_or_a_figure_that_it_lacks_is_refused(readings):
    device = PredictedDevice(model=readings)
    with pytest.raises(
        MeasurementError, match=r"readings for images of \(3, 16, 16\), got a network for \(3, 32, 32\)"
    ):
        device.measure_latency(network(), (3, 32, 32))
    with pytest.raises(UnsupportedMeasurementError):
        device.measure_peak_memory(network(), SHAPE)


def test_a_line_that_was_cut_off_is_left_out_and_repeated_readings_are_one(readings, tmp_path):
    path = tmp_path / "cut.jsonl"
    text = readings.read_text()
    again = json.loads(text.splitlines()[1])
    again["latency_ms"] *= 3
    path.write_text(text + json.dumps(again) + "\n" + text.splitlines()[3][:50])
    _, found = read_readings(path)
    assert len(found) == 40
    first = found[0].latencies_ms
    assert first == (first[0], 3 * first[0])
    assert found[0].latency_ms == 2 * first[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of readings"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"{}\n", "is no file of readings"),
        (b"[" * 100_000 + b"\n", "is no file of readings"),
        (b'{"format": "another"}\n', "is no file of readings"),
    ],
)
def test_what_is_no_file_of_readings_is_refused(content, message, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(PredictionError, match=message):
        DeviceModel.load(path)
    with pytest.raises(DeviceUnavailableError, match=message):
        PredictedDevice(model=path).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_ms": -1.0}, "a latency must be positive"),
        ({"latency_ms": float("nan")}, "a latency must be positive"),
        ({"layers": [["conv", -1, 1, 1, 1]]}, "whole numbers from 0"),
        ({"layers": [["conv", 1]]}, "is damaged"),
        ({"layers": 3}, "is damaged"),
    ],
)
def test_damaged_readings_are_refused_with_the_files_name(readings, tmp_path, change, message):
    lines = readings.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), **change})
    path = tmp_path / "damaged.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(PredictionError, match=f"damaged.jsonl.*{message}"):
        read_readings(path)


def test_too_few_readings_or_no_file_are_refused(readings, tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(readings.read_text().splitlines(keepends=True)[:8]))
    with pytest.raises(PredictionError, match=r"few.jsonl: readings of 10 to 2,000 models are needed, got 7"):
        DeviceModel.load(path)
    with pytest.raises(PredictionError, match="none.jsonl cannot be read"):
        DeviceModel.load(tmp_path / "none.jsonl")
