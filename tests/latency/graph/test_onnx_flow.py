"""Branches, loops and the order of nodes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from latency.counting.complexity import count
from latency.errors import TracingError
from latency.graph import onnx_flow
from latency.graph.onnx_reader import graph_from_onnx
from tests.latency.onnx_files import array, node, value, weight, write


def branch(name, *nodes):
    return helper.make_graph(list(nodes), name, [], [value(nodes[-1].output[0])])


def chosen_by(condition):
    small, large = node("MatMul", "x small", "s"), node("MatMul", "x large", "l")
    return helper.make_node(
        "If", [condition], ["y"], then_branch=branch("then", small), else_branch=branch("else", large)
    )


WEIGHTS = [weight("small", 4, 2), weight("large", 4, 50)]


def test_a_branch_that_sizes_decide_is_followed(tmp_path):
    nodes = [
        node("Shape", "x", "sizes"), node("Gather", "sizes one", "width"), node("Equal", "width four", "is_four"),
        chosen_by("is_four"),
    ]  # fmt: skip
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 4], [*WEIGHTS, array("one", 1), array("four", 4)]))
    assert [operator.name for operator in graph.operators] == ["onnx.MatMul"]
    assert count(graph).require_complete().n_macs == 8


def test_a_branch_that_data_decides_is_listed(tmp_path):
    nodes = [node("ReduceSum", "x", "sum", keepdims=0), node("Cast", "sum", "c", to=TensorProto.BOOL), chosen_by("c")]
    found = count(graph_from_onnx(write(tmp_path, nodes, [1, 4], WEIGHTS)))
    assert found.uncounted == ("onnx.If",)
    assert found.n_params == 4 * 52


def loop(inputs, *, condition="go"):
    nodes = [node("MatMul", "state w", "next"), node("Identity", "next", "row"), node("Identity", condition, "go_on")]
    body = helper.make_graph(
        nodes,
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", None)],
        [value("go_on", [], TensorProto.BOOL), value("next"), value("row")],
    )
    return helper.make_node("Loop", inputs, ["y", "rows"], body=body)


def test_a_loop_runs_as_often_as_it_says(tmp_path):
    weights = [array("n", 5), weight("w", 4, 4)]
    graph = graph_from_onnx(write(tmp_path, [loop(["n", "", "x"])], [1, 4], weights, outputs=("y", "rows")))
    found = count(graph).require_complete()
    assert (found.n_macs, found.n_params) == (5 * 16, 16)
    assert [graph.tensors[tensor].shape for tensor in graph.outputs] == [(1, 4), (5, 1, 4)]


def test_a_loop_without_a_known_end_is_listed(tmp_path):
    bound = value("n", [], TensorProto.INT64)
    for nodes, inputs in (
        ([loop(["n", "", "x"])], [bound]),
        ([node("ReduceMax", "x", "m"), node("Cast", "m", "c", to=9), loop(["", "c", "x"])], []),
    ):
        path = write(tmp_path, nodes, [1, 4], [weight("w", 4, 4)], inputs=inputs)
        found = count(graph_from_onnx(path))
        assert (found.uncounted, found.n_params) == (("onnx.Loop",), 16)


def test_a_loop_that_would_take_for_ever_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_flow, "_MAX_STEPS", 1000)
    path = write(tmp_path, [loop(["n", "", "x"])], [1, 4], [array("n", 10**12), weight("w", 4, 4)])
    assert count(graph_from_onnx(path)).uncounted == ("onnx.Loop",)


def test_a_scan_runs_once_for_each_slice(tmp_path):
    nodes = [node("MatMul", "row w", "m"), node("Add", "state m", "next"), node("Identity", "next", "out")]
    body = helper.make_graph(
        nodes, "body", [value("state", [1, 6]), value("row", [1, 4])], [value("next"), value("out")]
    )
    scan = helper.make_node("Scan", ["start", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    weights = [weight("start", 1, 6), weight("w", 4, 6)]
    graph = graph_from_onnx(write(tmp_path, [scan], [7, 1, 4], weights, outputs=("y", "last")))
    assert sum(operator.name == "onnx.MatMul" for operator in graph.operators) == 7
    assert graph.tensors[graph.outputs[0]].shape == (7, 1, 6)


def test_nodes_out_of_order_are_sorted(tmp_path):
    # As converters to half precision write them: casts behind those who read them.
    nodes = [
        node("MatMul", "x16 w", "y16"), node("Cast", "y16", "y", to=TensorProto.FLOAT),
        node("Cast", "x", "x16", to=TensorProto.FLOAT16),
    ]  # fmt: skip
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 4], [weight("w", 4, 6, dtype=np.float16)]))
    assert [operator.name for operator in graph.operators] == ["onnx.Cast", "onnx.MatMul", "onnx.Cast"]
    assert count(graph).require_complete().n_macs == 24


def test_what_cannot_run_is_refused(tmp_path):
    circle = [node("Add", "x b", "a"), node("Add", "x a", "b"), node("Relu", "b", "y")]
    with pytest.raises(TracingError, match=r"wait for each other in a circle, '' \(Add\) among them"):
        graph_from_onnx(write(tmp_path, circle, [1, 4]))
    with pytest.raises(TracingError, match=r"operator '' \(Relu\) reads 'gone', which nothing makes"):
        graph_from_onnx(write(tmp_path, [node("Relu", "gone", "y")], [1, 4]))
    with pytest.raises(TracingError, match="the graph's output reads 'y', which nothing makes"):
        graph_from_onnx(write(tmp_path, [node("Relu", "x", "z")], [1, 4]))
