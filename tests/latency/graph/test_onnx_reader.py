import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from latency.counting.complexity import count, count_model
from latency.errors import TracingError
from latency.graph.onnx_reader import graph_from_onnx, onnx_input_shape
from latency.graph.onnx_writer import write_onnx
from latency.graph.operator_graph import StorageKind


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, groups=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()


def write(path, nodes, shape, weights=(), output_shape=None):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def weight(name, *shape):
    size = 1
    for side in shape:
        size *= side
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.5] * size)


def test_an_exported_model_counts_as_the_model(tmp_path):
    model = network()
    write_onnx(model, (3, 8, 8), tmp_path / "net.onnx")
    graph = graph_from_onnx(tmp_path / "net.onnx", batch_size=1)
    here, there = count(graph).require_complete(), count_model(model, (3, 8, 8))
    assert (here.n_params, here.n_macs) == (there.n_params, there.n_macs)
    assert here.macs_by_module == there.macs_by_module
    assert here.params_by_module == there.params_by_module
    assert here.other_operations == there.other_operations
    assert onnx_input_shape(tmp_path / "net.onnx") == (3, 8, 8)


def test_the_batch_is_what_is_asked_for(tmp_path):
    write_onnx(network(), (3, 8, 8), tmp_path / "net.onnx")
    graph = graph_from_onnx(tmp_path / "net.onnx", batch_size=5)
    assert graph.batch_size == 5
    assert graph.tensors[graph.inputs[0]].shape == (5, 3, 8, 8)
    assert [graph.tensors[t].shape for t in graph.outputs] == [(5, 5)]
    assert graph.storage_bytes(StorageKind.INPUT) == 5 * 3 * 64 * 4


def test_shapes_storages_modules_and_attributes(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["c"], name="/stem/Conv", kernel_shape=[3, 3], group=2),
        helper.make_node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight"], ["y"], transB=1),
    ]
    weights = [weight("stem.weight", 4, 1, 3, 3), *(weight(f"bn.{n}", 4) for n in ("weight", "bias", "mean", "var"))]
    path = write(tmp_path / "a.onnx", nodes, [1, 2, 5, 5], [*weights, weight("head.weight", 7, 36)])
    graph = graph_from_onnx(path)
    assert [o.name for o in graph.operators] == [
        "onnx.Conv", "onnx.BatchNormalization", "onnx.Flatten", "onnx.Gemm",
    ]  # fmt: skip
    assert [o.module for o in graph.operators] == ["stem", "bn", "", "head"]
    assert graph.operators[0].attributes == {"kernel_shape": [3, 3], "group": 2}
    shapes = [graph.tensors[o.outputs[0]].shape for o in graph.operators]
    assert shapes == [(1, 4, 3, 3), (1, 4, 3, 3), (1, 36), (1, 7)]
    storage = [graph.tensors[o.outputs[0]].storage for o in graph.operators]
    assert storage[1] == storage[2]
    assert len(set(storage)) == 3
    assert set(graph.buffers) == {"bn.mean", "bn.var"}
    complexity = count(graph)
    assert complexity.n_params == 36 + 8 + 7 * 36
    assert complexity.macs_by_operator == {"onnx.Conv": 9 * 36, "onnx.Gemm": 7 * 36}
    assert complexity.other_operations == {"normalisation": 2 * 36}


def test_an_operator_of_another_domain_keeps_its_name_and_is_uncounted(tmp_path):
    nodes = [helper.make_node("Odd", ["x"], ["y"], domain="own.domain")]
    path = write(tmp_path / "a.onnx", nodes, [1, 2], output_shape=[1, 2])
    graph = graph_from_onnx(path)
    assert [operator.name for operator in graph.operators] == ["own.domain.Odd"]
    assert graph.tensors[graph.outputs[0]].shape == (1, 2)  # as the file says
    assert count(graph).uncounted == ("own.domain.Odd",)


@pytest.mark.parametrize(
    ("left", "right", "n_macs"),
    [
        ((3, 4), (2, 4, 5), 2 * 3 * 4 * 5),  # the first operand's batch is broadcast
        ((2, 3, 4), (4, 5), 2 * 3 * 4 * 5),
        ((2, 1, 3, 4), (6, 4, 5), 2 * 6 * 3 * 4 * 5),
        ((2, 3, 4), (4,), 2 * 3 * 4),
        ((4,), (2, 4, 5), 2 * 4 * 5),
    ],
)
def test_matrix_products_count_a_broadcast_batch(tmp_path, left, right, n_macs):
    nodes = [helper.make_node("MatMul", ["left", "right"], ["p"]), helper.make_node("Relu", ["x"], ["y"])]
    path = write(tmp_path / "a.onnx", nodes, [1, 2], [weight("left", *left), weight("right", *right)])
    assert count(graph_from_onnx(path)).n_macs == n_macs


def test_sizes_left_open_must_be_given_and_given_ones_must_fit(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    open_path = write(tmp_path / "open.onnx", nodes, ["batch", 2, "height", "width"])
    assert onnx_input_shape(open_path) is None
    with pytest.raises(ValueError, match=r"^input_shape must be given: .* leaves size 2 of its input 'x' open"):
        graph_from_onnx(open_path)
    graph = graph_from_onnx(open_path, (2, 4, 6), batch_size=3)
    assert graph.tensors[graph.outputs[0]].shape == (3, 2, 4, 6)
    with pytest.raises(ValueError, match=r"^input_shape does not fit .* size 1 of its input 'x' is 2, not 3"):
        graph_from_onnx(open_path, (3, 4, 6))
    with pytest.raises(ValueError, match=r"^input_shape must have 3 sizes"):
        graph_from_onnx(open_path, (4, 6))
    closed = write(tmp_path / "closed.onnx", nodes, [1, 2])
    with pytest.raises(ValueError, match=r"^batch_size does not fit .* is 1, not 4"):
        graph_from_onnx(closed, batch_size=4)


def test_a_file_that_is_not_onnx_is_said_so(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    for read in (graph_from_onnx, onnx_input_shape):
        with pytest.raises(TracingError, match=r"cannot read .*a\.onnx as ONNX"):
            read(tmp_path / "a.onnx")
        with pytest.raises(TracingError, match=r"cannot read .*gone\.onnx as ONNX"):
            read(tmp_path / "gone.onnx")


def test_half_precision_weights_take_half_the_bytes(tmp_path):
    tensor = helper.make_tensor("w", TensorProto.FLOAT16, (3, 2), [0.0] * 6)
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "c"], ["y"]),
    ]
    graph = graph_from_onnx(write(tmp_path / "a.onnx", nodes, [1, 3], [tensor]))
    assert graph.storage_bytes(StorageKind.PARAMETER) == 12
    assert graph.tensors[graph.parameters["w"]].dtype is torch.float16
    assert count(graph).n_macs == 6
