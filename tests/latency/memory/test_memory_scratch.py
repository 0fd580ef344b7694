"""What operators take to work in: the second figure of the estimate."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from latency.graph.onnx_reader import graph_from_onnx
from latency.graph.onnx_writer import write_onnx
from latency.graph.tracer import graph_from_torch
from latency.inference import torch_threads, weights_bytes
from latency.memory.estimate import estimate_peak_memory
from latency.memory.measure import allocation_peak_cpu
from latency.memory.scratch import im2col_bytes, scratch_bytes
from search_spaces.references.reference_models import UNet
from tests.latency.functions import Function

# oneDNN's layouts are those of the processor.
like_an_x86_machine = pytest.mark.skipif(
    "AVX" not in torch.backends.cpu.get_cpu_capability(), reason="the formula was read off processors with AVX2, AVX512"
)


def measured(model, graph, image):
    with torch_threads(1), torch.inference_mode():
        model(image)
        peak = allocation_peak_cpu(lambda: model(image), {operator.name for operator in graph.operators})
    held = weights_bytes(model) + image.nbytes
    return held + peak.without_scratch_bytes, held + peak.n_bytes


def test_scratch_of_small_convolutions_and_norms_is_what_the_profiler_sees():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval()
    graph = graph_from_torch(model, (3, 10, 10))
    convolution, norm = graph.operators[0], next(o for o in graph.operators if "batch_norm" in o.name)
    assert scratch_bytes(graph, convolution) == im2col_bytes(graph, convolution) == 4 * 27 * 64
    assert scratch_bytes(graph, norm) == 2 * 4 * 8
    y = torch.zeros(1, 8, 8, 8)
    with torch.inference_mode():
        peak = allocation_peak_cpu(lambda: model[1](y), {norm.name})
    assert (peak.without_scratch_bytes, peak.scratch_bytes, peak.n_bytes) == (2048, 64, 2048 + 64)


@like_an_x86_machine
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(24, 20, 3),
        nn.Conv2d(12, 12, 5, padding=2),
        nn.Conv2d(24, 24, 3, groups=24),
        nn.Conv2d(32, 32, 1),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        nn.Upsample(scale_factor=1.5, mode="nearest"),
    ],
    ids=lambda layer: f"{type(layer).__name__} {layer.extra_repr()}",
)
def test_the_second_figure_of_a_layer_is_what_the_profiler_sees(layer):
    n_channels = getattr(layer, "in_channels", 8)
    model, image = layer.eval(), torch.zeros(1, n_channels, 40, 40)
    graph = graph_from_torch(model, (n_channels, 40, 40))
    without, with_scratch = measured(model, graph, image)
    found = estimate_peak_memory(graph)
    assert found.peak_memory_estimate_bytes == without
    assert found.peak_with_scratch_estimate_bytes == pytest.approx(with_scratch, rel=0.001)


@like_an_x86_machine
def test_a_u_net_takes_the_second_figure():
    model = UNet(3, 5, width=32).eval()
    graph = graph_from_torch(model, (3, 64, 64))
    without, with_scratch = measured(model, graph, torch.zeros(1, 3, 64, 64))
    found = estimate_peak_memory(graph)
    assert with_scratch > 1.05 * without
    assert found.peak_memory_estimate_bytes == pytest.approx(without, rel=0.001)
    assert found.peak_with_scratch_estimate_bytes == pytest.approx(with_scratch, rel=0.01)


@pytest.mark.parametrize("n_tokens", [16, 300, 1024])
def test_fused_attention_takes_a_block_for_each_thread(n_tokens):
    model = Function(lambda x: functional.scaled_dot_product_attention(x, x, x)).eval()
    graph = graph_from_torch(model, (2, n_tokens, 8))
    without, with_scratch = measured(model, graph, torch.zeros(1, 2, n_tokens, 8))
    found = estimate_peak_memory(graph)
    assert (found.peak_memory_estimate_bytes, found.peak_with_scratch_estimate_bytes) == (without, with_scratch)
    rows = {16: 16, 300: 64, 1024: 256}[n_tokens]
    assert found.scratch_bytes == 4 * rows * (min(512, n_tokens) + 2 + 8)
    assert estimate_peak_memory(graph, n_threads=3).scratch_bytes == 3 * found.scratch_bytes


def test_the_softmax_of_plain_attention_marks_infinite_scores():
    model = Function(lambda x: functional.scaled_dot_product_attention(x, x, x)).eval()
    with sdpa_kernel(SDPBackend.MATH):
        graph = graph_from_torch(model, (2, 64, 8))
        _, with_scratch = measured(model, graph, torch.zeros(1, 2, 64, 8))
    found = estimate_peak_memory(graph)
    assert found.scratch_bytes == 2 * 64 * 64 + 2 * 64 + 4
    assert found.peak_with_scratch_estimate_bytes == pytest.approx(with_scratch, rel=0.001)


def test_scratch_that_is_not_known_is_not_zero(tmp_path):
    half = graph_from_torch(nn.Conv2d(3, 8, 3).half().eval(), (3, 10, 10))
    assert scratch_bytes(half, half.operators[0]) is None
    write_onnx(nn.ReLU().eval(), (4,), tmp_path / "relu.onnx")
    assert estimate_peak_memory(graph_from_onnx(tmp_path / "relu.onnx")).n_unknown_scratch == 1
