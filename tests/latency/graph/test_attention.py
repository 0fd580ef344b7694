"""Attention is traced as the CPU runs it."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from latency.counting.complexity import count
from latency.graph.tracer import graph_from_torch
from latency.inference import weights_bytes
from latency.memory.estimate import estimate_peak_memory
from latency.memory.measure import allocation_peak_cpu
from latency.memory.order import best_order
from latency.memory.reordered import ReorderedModel
from latency.memory.training import trace_training_step
from tests.latency.functions import Function

FUSED = "aten._scaled_dot_product_flash_attention_for_cpu"
LENGTH, WIDTH, HEADS = 256, 32, 4


def names(graph):
    return {operator.name for operator in graph.operators}


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.qkv, self.options = nn.Linear(WIDTH, 3 * WIDTH), options
        self.register_buffer("mask", options.pop("attn_mask", None))

    def forward(self, x):
        heads = self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(*heads, self.mask, **self.options)


class Module(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.options = options

    def forward(self, x):
        return self.attention(x, x, x, **self.options)[0]


def measured(model, graph, length=LENGTH):
    image = torch.zeros(1, length, WIDTH)
    with torch.inference_mode():
        model(image)
        peak = allocation_peak_cpu(lambda: model(image), names(graph))
    return weights_bytes(model) + image.nbytes + peak.without_scratch_bytes


def encoder(**options):
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True, **options)


@pytest.mark.parametrize(
    ("model", "is_fused"),
    [
        (Attention(), True),
        (Attention(is_causal=True), True),
        (Attention(attn_mask=torch.ones(LENGTH, LENGTH, dtype=torch.bool)), True),
        (Attention(attn_mask=torch.zeros(LENGTH, LENGTH)), True),
        (Module(), False),
        (Module(need_weights=False), False),
        (encoder(), False),
        (encoder(norm_first=True), False),
        (nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False), False),
    ],
    ids=["plain", "causal", "bool mask", "mask", "module", "no weights", "encoder layer", "norm first", "encoder"],
)
def test_the_estimate_is_what_the_profiler_sees(model, is_fused):
    graph = graph_from_torch(model.eval(), (LENGTH, WIDTH))
    assert (FUSED in names(graph)) == is_fused
    found = estimate_peak_memory(graph).peak_memory_estimate_bytes
    assert found == pytest.approx(measured(model, graph), rel=0.001)
    assert (found > 4 * HEADS * LENGTH**2) != is_fused  # the scores


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True}, {"activation": "gelu"}], ids=["relu", "norm first", "gelu"]
)
def test_hidden_features_of_an_encoder_layer_are_held_once(options):
    model = encoder(**options).eval()
    graph = graph_from_torch(model, (16, WIDTH))
    found = estimate_peak_memory(graph).peak_memory_estimate_bytes
    assert found == pytest.approx(measured(model, graph, 16), rel=0.001)


def test_the_plain_backend_holds_the_scores():
    model = Attention().eval()
    with sdpa_kernel(SDPBackend.MATH):
        graph = graph_from_torch(model, (LENGTH, WIDTH))
        assert estimate_peak_memory(graph).peak_memory_estimate_bytes == pytest.approx(
            measured(model, graph), rel=0.001
        )
    assert FUSED not in names(graph)
    fused = graph_from_torch(model, (LENGTH, WIDTH))
    assert estimate_peak_memory(graph).activations_bytes > 4 * estimate_peak_memory(fused).activations_bytes
    assert count(graph).n_macs == count(fused).n_macs


@pytest.mark.parametrize("fits", [False, True], ids=["3 dimensions", "4 dimensions"])
def test_the_cpu_is_asked_which_kernel_it_takes(fits):
    model = Function(lambda x: functional.scaled_dot_product_attention(x, x, x)).eval()
    assert (FUSED in names(graph_from_torch(model, (2, 16, 8) if fits else (16, 8)))) == fits


def test_shared_heads_count_all_queries():
    def attend(x):
        query, key = x[:, :4], x[:, 4:]
        return functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)

    graph = graph_from_torch(Function(attend).eval(), (6, 16, 8))
    assert count(graph).require_complete().n_macs == 4 * 16 * 16 * (8 + 8)


def test_a_module_in_another_thread_of_torchs_paths_is_left_alone():
    module = Module().eval()
    with torch.inference_mode():
        before = module(torch.ones(1, 8, WIDTH))
        graph_from_torch(module, (8, WIDTH))
        assert torch.equal(module(torch.ones(1, 8, WIDTH)), before)


def test_the_steps_of_the_native_path_compute_what_it_does():
    torch.manual_seed(0)
    model, image = Module().eval(), torch.randn(1, 8, WIDTH)
    graph = graph_from_torch(model, (8, WIDTH))
    again = ReorderedModel(model, graph, best_order(graph).order)
    with torch.inference_mode():
        assert torch.allclose(again(image), model(image), atol=1e-6)


def test_a_training_step_takes_the_fused_kernel_too():
    graph = trace_training_step(Attention(), (LENGTH, WIDTH), batch_size=2)
    assert {FUSED, f"{FUSED}_backward"} <= names(graph)
