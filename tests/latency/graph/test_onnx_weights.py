"""Which constants of a file are parameters: the numbers are those of the network before it was converted."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from torch import nn

from latency.counting.complexity import count, count_model
from latency.graph.onnx_reader import graph_from_onnx
from latency.graph.onnx_writer import write_onnx
from latency.graph.operator_graph import StorageKind
from tests.latency.onnx_files import array, node, value, weight, write


@pytest.fixture(scope="module")
def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "net.onnx"
    write_onnx(network, (3, 8, 8), path)
    return path


class Images(CalibrationDataReader):
    def __init__(self):
        self.images = iter(np.random.default_rng(0).standard_normal((2, 1, 3, 8, 8)).astype(np.float32))

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"image": image}


CONVERSIONS = {
    "qdq": lambda a, b: quantize_static(a, b, Images(), quant_format=QuantFormat.QDQ),
    "qdq_per_channel": lambda a, b: quantize_static(a, b, Images(), quant_format=QuantFormat.QDQ, per_channel=True),
    "qoperator": lambda a, b: quantize_static(a, b, Images(), quant_format=QuantFormat.QOperator),
    "dynamic": quantize_dynamic,
    "dynamic_per_channel": lambda a, b: quantize_dynamic(a, b, per_channel=True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_a_quantised_network_has_the_parameters_and_macs_of_its_original(convert, network, file, tmp_path):
    convert(file, tmp_path / "converted.onnx")
    expected = count_model(network, (3, 8, 8))
    graph = graph_from_onnx(tmp_path / "converted.onnx")
    found = count(graph).require_complete()
    assert (found.n_params, found.n_macs) == (expected.n_params, expected.n_macs)
    n_biases = 8 + 8 + 5  # in 32 bits, or single precision
    assert graph.storage_bytes(StorageKind.PARAMETER) == (expected.n_params - n_biases) + 4 * n_biases


def test_dequantised_weights_are_no_activations(tmp_path):
    nodes = [node("DequantizeLinear", "q s z", "w"), node("MatMul", "x w", "y")]
    weights = [weight("q", 6, 4, dtype=np.int8), array("s", [0.1] * 4, np.float32), array("z", [0] * 4, np.int8)]
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 6], weights))
    assert [operator.name for operator in graph.operators] == ["onnx.MatMul"]
    assert graph.storage_bytes(StorageKind.PARAMETER) == 24
    assert graph.storage_bytes(StorageKind.ACTIVATION) == 4 * 4
    found = count(graph)
    assert (found.n_params, found.n_macs, found.other_operations) == (24, 24, {})
    assert set(graph.buffers) == {"s", "z"}


def test_an_embedding_table_in_integers_is_dequantised_after_it_is_read(tmp_path):
    nodes = [node("Gather", "q x", "rows"), node("DequantizeLinear", "rows s", "y")]
    path = write(tmp_path, nodes, [1, 3], [weight("q", 10, 4, dtype=np.int8), array("s", 0.1, np.float32)])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    assert count(graph_from_onnx(path)).n_params == 40


def test_weights_in_constant_nodes_count_as_initialisers_do(tmp_path, network, file):
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    onnx.save(model, tmp_path / "constants.onnx")
    here, there = count(graph_from_onnx(tmp_path / "constants.onnx")), count(graph_from_onnx(file))
    assert (here.n_params, here.n_macs) == (there.n_params, there.n_macs)
    assert here.n_params == count_model(network, (3, 8, 8)).n_params


def test_scalars_bounds_and_sizes_are_no_parameters(tmp_path):
    nodes = [
        node("Mul", "x half", "a"),
        node("Clip", "a low high", "b"),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], mode="nearest"),
        node("Mul", "c once", "d"),
        node("Mul", "d block.gain", "e"),
        node("Add", "e bias", "y"),
    ]
    weights = [
        array("half", 0.5, np.float32), array("low", [0.0], np.float32), array("high", [6.0], np.float32),
        array("scales", [1, 1, 2, 2], np.float32), weight("bias", 3, 1, 1), weight("once", 1), weight("block.gain", 1),
    ]  # fmt: skip
    found = graph_from_onnx(write(tmp_path, nodes, [1, 3, 4, 4], weights))
    assert set(found.parameters) == {"bias", "block.gain"}
    assert [found.tensors[t].shape for t in found.outputs] == [(1, 3, 8, 8)]


def test_a_sparse_initialiser_is_the_dense_tensor_that_runs(tmp_path):
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 7])
    sparse = helper.make_sparse_tensor(values, indices, [4, 6])
    path = write(tmp_path, [node("MatMul", "x w", "y")], [1, 4], sparse_initializer=[sparse])
    found = count(graph_from_onnx(path)).require_complete()
    assert (found.n_params, found.n_macs) == (24, 24)


@pytest.mark.parametrize(
    ("element_type", "n_bytes"),
    [
        (TensorProto.INT4, 12),
        (TensorProto.UINT4, 12),
        (TensorProto.INT8, 24),
        (TensorProto.FLOAT8E4M3FN, 24),
        (TensorProto.FLOAT8E5M2, 24),
        (TensorProto.FLOAT4E2M1, 12),
    ],
)
def test_small_types_take_their_bits(tmp_path, element_type, n_bytes):
    weights = [helper.make_tensor("q", element_type, [6, 4], [1] * 24), array("s", 0.5, np.float32)]
    nodes = [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w", "y")]
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 6], weights))
    assert graph.storage_bytes(StorageKind.PARAMETER) == n_bytes
    assert (count(graph).n_params, count(graph).n_macs) == (24, 24)


def test_unsigned_integers_are_read(tmp_path):
    nodes = [node("Cast", "u", "f", to=TensorProto.FLOAT), node("Mul", "x f", "y")]
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 5], [array("u", [1, 2, 3, 4, 5], np.uint32)]))
    assert graph.storage_bytes(StorageKind.BUFFER) >= 20
    assert count(graph).n_params == 0


def test_weights_of_branches_that_are_not_taken_count_too(tmp_path):
    branches = {
        name: helper.make_graph([node("MatMul", f"x {name}_w", f"{name}_y")], name, [], [value(f"{name}_y")], [w])
        for name, w in (("then", weight("then_w", 4, 6)), ("else", weight("else_w", 4, 6)))
    }
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branches["then"], else_branch=branches["else"])
    found = count(graph_from_onnx(write(tmp_path, [chosen], [1, 4], [array("c", True, np.bool_)])))
    assert (found.n_params, found.n_macs, found.uncounted) == (48, 24, ())
