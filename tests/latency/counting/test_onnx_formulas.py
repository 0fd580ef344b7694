"""The multiply-adds of ONNX's operators, against closed forms and torch's own counter."""

import numpy as np
import pytest
import torch
from onnx import helper
from torch.utils.flop_counter import FlopCounterMode

from latency.counting.complexity import count, count_sample
from latency.graph.onnx_reader import graph_from_onnx
from tests.latency.onnx_files import array, node, value, weight, write


def n_macs(folder, made, sizes, weights=(), **options):
    return count(graph_from_onnx(write(folder, [made], sizes, weights, **options))).require_complete().n_macs


@pytest.mark.parametrize(
    ("kind", "n_gates", "bidirectional"), [("LSTM", 4, False), ("GRU", 3, True), ("RNN", 1, False)]
)
def test_recurrent_operators_meet_their_weights_at_each_step(tmp_path, kind, n_gates, bidirectional):
    n_directions, hidden = 1 + bidirectional, 5
    direction = "bidirectional" if bidirectional else "forward"
    made = node(kind, "x w r", "y", hidden_size=hidden, direction=direction)
    weights = [weight("w", n_directions, n_gates * hidden, 4), weight("r", n_directions, n_gates * hidden, hidden)]
    found = count(graph_from_onnx(write(tmp_path, [made], [7, 1, 4], weights))).require_complete()
    assert found.n_macs == 7 * n_directions * n_gates * hidden * (4 + hidden)
    assert found.n_params == n_directions * n_gates * hidden * (4 + hidden)


@pytest.mark.parametrize(
    ("equation", "sizes", "other", "expected"),
    [
        ("bij,jk->bik", (1, 3, 4), (4, 6), 3 * 4 * 6),
        ("bij,kj", (1, 3, 4), (6, 4), 3 * 4 * 6),  # without a result's labels: bik
        ("bhqd,bhkd->bhqk", (1, 2, 5, 8), (1, 2, 7, 8), 2 * 5 * 7 * 8),
        ("...ij,jk->...ik", (1, 2, 3, 4), (4, 6), 2 * 3 * 4 * 6),
        ("bi,bi->bi", (1, 4), (1, 4), 0),
        ("bi,bi->b", (1, 4), (1, 4), 4),
        ("bij,jk->bk", (1, 3, 4), (4, 6), 4 * 6),  # i is summed before
    ],
)
def test_einsum(tmp_path, equation, sizes, other, expected):
    made = node("Einsum", "x w", "y", equation=equation)
    assert n_macs(tmp_path, made, sizes, [weight("w", *other)]) == expected
    with FlopCounterMode(display=False) as counter:
        torch.einsum(equation, torch.zeros(sizes), torch.zeros(other))
    assert counter.get_total_flops() == 2 * expected


def test_an_einsum_of_three_goes_from_left_to_right(tmp_path):
    made = node("Einsum", "x v w", "y", equation="bi,ij,jk->bk")
    assert n_macs(tmp_path, made, (1, 3), [weight("v", 3, 4), weight("w", 4, 5)]) == 3 * 4 + 4 * 5


@pytest.mark.parametrize(
    ("sizes", "keys", "attributes", "expected"),
    [
        ((1, 2, 5, 8), (1, 2, 7, 8), {}, 2 * 5 * 7 * (8 + 8)),
        ((1, 4, 5, 8), (1, 2, 7, 8), {}, 4 * 5 * 7 * (8 + 8)),  # two query heads for each of the keys'
        ((1, 5, 16), (1, 7, 16), {"q_num_heads": 2, "kv_num_heads": 2}, 5 * 7 * (16 + 16)),
        ((1, 5, 16), (1, 7, 8), {"q_num_heads": 4, "kv_num_heads": 2}, 5 * 7 * (16 + 16)),
    ],
)
def test_attention_is_its_two_products(tmp_path, sizes, keys, attributes, expected):
    made = node("Attention", "x k v", "y", **attributes)
    assert n_macs(tmp_path, made, sizes, [weight("k", *keys), weight("v", *keys)]) == expected


def test_attention_looks_at_its_past_too(tmp_path):
    made = helper.make_node("Attention", ["x", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"])
    weights = [weight(name, 1, 2, length, 8) for name, length in (("k", 3), ("v", 3), ("pk", 4), ("pv", 4))]
    assert n_macs(tmp_path, made, (1, 2, 3, 8), weights) == 2 * 3 * 7 * 16


def test_a_deformable_convolution_counts_as_one(tmp_path):
    made = node("DeformConv", "x w o", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=3)
    weights = [weight("w", 6, 1, 3, 3), weight("o", 1, 18, 8, 8)]
    assert n_macs(tmp_path, made, (1, 3, 8, 8), weights) == 6 * 9 * 64


@pytest.mark.parametrize("kind", ["ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"])
def test_products_of_integers(tmp_path, kind):
    is_convolution = "Conv" in kind
    sizes = (4, 3, 2, 2) if is_convolution else (3, 4)
    w = weight("w", *sizes, dtype=np.int8)
    quantise = node("QuantizeLinear", "x s z", "q")
    weights = [w, array("s", 0.5, np.float32), array("z", 0, np.int8), array("z8", 0, np.uint8)]
    inputs = {"ConvInteger": "q w", "MatMulInteger": "q w"}.get(kind, "q s z w s z s z")
    made = node(kind, inputs, "y")
    input_sizes = (1, 3, 6, 6) if is_convolution else (1, 5, 3)
    found = count_sample(graph_from_onnx(write(tmp_path, [quantise, made], input_sizes, weights)))
    assert found.require_complete().n_macs == (4 * 12 * 25 if is_convolution else 5 * 3 * 4)
    assert found.n_params == w.raw_data.__len__()


def test_packed_weights_of_four_bits(tmp_path):
    made = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=32, N=6, bits=4, block_size=32
    )
    weights = [weight("w", 6, 1, 16, dtype=np.uint8), array("s", [0.5] * 6, np.float32)]
    graph = graph_from_onnx(write(tmp_path, [made], (1, 5, 32), weights))
    found = count(graph).require_complete()
    assert (found.n_macs, found.n_params) == (5 * 32 * 6, 32 * 6)


def test_sums_of_many_and_quantisation_are_elementwise(tmp_path):
    nodes = [node("Sum", "x x x", "s"), node("QuantizeLinear", "s f z", "q"), node("DequantizeLinear", "q f z", "y")]
    path = write(tmp_path, nodes, (1, 10), [array("f", 0.5, np.float32), array("z", 0, np.int8)])
    assert count(graph_from_onnx(path)).require_complete().other_operations == {"elementwise": 20 + 20 + 20}


def test_a_recurrent_operator_of_a_batch_counts_one_sequence(tmp_path):
    made = node("LSTM", "x w r", "y", hidden_size=2)
    path = write(
        tmp_path, [made], [7, 3, 4], [weight("w", 1, 8, 4), weight("r", 1, 8, 2)], inputs=[value("unused", [1])]
    )
    assert count_sample(graph_from_onnx(path)).n_macs == 7 * 8 * 6
