"""Layers measured alone, and what they say of whole models."""

import numpy as np
import pytest
import torch
from torch import nn

from latency.devices.onnx_device import OnnxDevice
from latency.graph.tracer import graph_from_torch
from latency.predictors import Blend, Layer, LayerEncoder, Lookup, LookupTable, layers_of
from latency.predictors.alone import layers_alone

SHAPE = (3, 16, 16)


class Network(nn.Module):
    """Convolutions with what is fused into them, a sum, a concatenation of unequal parts, and a matrix product."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.last = nn.Linear(16, 5)

    def forward(self, image):
        features = self.first(image)
        added = torch.relu(self.second(features) + features)
        joined = torch.cat([added, features], 1)
        return self.last(joined.mean((2, 3)))


@pytest.fixture(scope="module")
def graph():
    return graph_from_torch(Network().eval(), SHAPE)


def test_every_layer_runs_alone_in_its_real_shape(graph):
    alone = layers_alone(graph)
    assert alone.keys() == set(layers_of(graph))
    for layer, make in alone.items():
        model = make()
        assert not model.training
        for batch_size in (1, 3):
            result = model(torch.rand(batch_size, *model.input_shape))
            assert result.shape[0] == batch_size
            assert result.numel() == batch_size * layer.n_written


def test_a_layer_alone_is_the_same_layer(graph):
    for layer, make in layers_alone(graph).items():
        model = make()
        (again,) = layers_of(graph_from_torch(model, tuple(model.input_shape)))
        assert again.kind == layer.kind
        assert again.n_macs == layer.n_macs
        assert again.n_written == layer.n_written


def test_fused_operators_run_with_the_layer(graph):
    convolution = next(layer for layer in layers_of(graph) if layer.kind == "convolution 3x3")
    result = layers_alone(graph)[convolution]()(torch.randn(1, *SHAPE))
    assert result.min() == 0  # of the activation
    assert 0 < (result > 0).float().mean() < 1


def test_onnxruntime_measures_layers_alone(graph):
    device = OnnxDevice(n_runs=5)
    for make in layers_alone(graph).values():
        model = make()
        assert device.measure_latency(model, model.input_shape).median_ms > 0


def layer(kind, size):
    return Layer(kind, 9 * size, size, size, 9)


def test_sums_hold_what_was_measured_and_estimate_the_rest():
    known = {layer(kind, size): slope * size for kind, slope in (("a", 1e-3), ("b", 3e-3)) for size in (10, 100, 1000)}
    table = LookupTable(known)
    model = [layer("a", 10), layer("b", 1000), layer("b", 1000)]
    assert table.sums([model]) == pytest.approx([0.01 + 3 + 3])
    unseen = [layer("a", 300)], [layer("b", 300)]
    assert table.sums(unseen) == pytest.approx([0.3, 0.9], rel=0.1)


@pytest.fixture
def models():
    """40 models of layers whose cost no count tells, and which take a fixed time more when they run together."""
    rng = np.random.default_rng(0)
    alone = {layer("a", size): rng.uniform(0.1, 2.0) for size in range(20, 60)}
    chosen = [list(rng.choice(len(alone), 8)) for _ in range(40)]
    layers = list(alone)
    models = [[layers[index] for index in indices] for indices in chosen]
    latencies = np.array([0.7 + 0.9 * sum(alone[one] for one in model) for model in models])
    return models, latencies * rng.normal(1, 0.01, 40), alone


def test_a_few_readings_suffice_where_layers_were_measured_alone(models):
    models, latencies, alone = models
    encodings = LayerEncoder.of(models, LookupTable(alone)).encode(models)
    lookup = Lookup()
    lookup.fit(encodings.take(range(10)), latencies[:10])
    rest = encodings.take(range(10, 40))
    assert np.abs(lookup.predict(rest).mean_ms / latencies[10:] - 1).max() < 0.05
    held_out = lookup.held_out().mean_ms
    again = Lookup()
    again.fit(encodings.take(range(1, 10)), latencies[1:10])
    assert held_out[0] == pytest.approx(again.predict(encodings.take([0])).mean_ms[0])
    blend = Blend()
    blend.fit(encodings.take(range(10)), latencies[:10])
    assert np.abs(blend.predict(rest).mean_ms / latencies[10:] - 1).max() < 0.1
    without = Blend()
    plain = LayerEncoder.of(models).encode(models)
    without.fit(plain.take(range(10)), latencies[:10])
    assert "lookup" not in without.weights
    error = np.abs(without.predict(plain.take(range(10, 40))).mean_ms / latencies[10:] - 1)
    assert np.median(error) > 0.1  # nothing else tells these layers apart
