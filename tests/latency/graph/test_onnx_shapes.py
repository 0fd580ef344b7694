"""Sizes that follow from numbers, from the runtime's own operators, or from data alone."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases
from torch import nn

from latency.counting.complexity import count, count_sample
from latency.errors import TracingError
from latency.graph.onnx_reader import graph_from_onnx, onnx_batch_size, onnx_input_shape
from latency.graph.onnx_writer import write_onnx
from latency.memory import estimate_peak_memory
from tests.latency.onnx_files import array, node, value, weight, write


def test_sizes_computed_in_floating_point_are_folded(tmp_path):
    nodes = [
        node("Shape", "x", "sizes"), node("Slice", "sizes two four", "image"),
        node("Cast", "image", "real", to=TensorProto.FLOAT), node("Mul", "real factor", "larger"),
        node("Floor", "larger", "whole"), node("Cast", "whole", "new", to=TensorProto.INT64),
        node("Slice", "sizes zero two", "before"), node("Concat", "before new", "all", axis=0),
        helper.make_node("Resize", ["x", "", "", "all"], ["resized"], mode="nearest"), node("Conv", "resized w", "y"),
    ]  # fmt: skip
    weights = [array("factor", [1.5, 2.5], np.float32), weight("w", 4, 3, 1, 1)]
    weights += [array(name, [number]) for name, number in (("zero", 0), ("two", 2), ("four", 4))]
    graph = graph_from_onnx(write(tmp_path, nodes, ["batch", 3, 5, 5], weights))
    assert [graph.tensors[tensor].shape for tensor in graph.outputs] == [(1, 4, 7, 12)]
    assert [operator.name for operator in graph.operators] == ["onnx.Resize", "onnx.Conv"]
    assert count(graph).require_complete().n_macs == 4 * 3 * 7 * 12


def test_reshapes_to_computed_sizes(tmp_path):
    nodes = [
        node("Shape", "x", "sizes"), node("Gather", "sizes zero", "batch"), node("Unsqueeze", "batch axis", "b"),
        node("Concat", "b rest", "target", axis=0), node("Reshape", "x target", "flat"), node("MatMul", "flat w", "y"),
    ]  # fmt: skip
    weights = [array("zero", 0), array("axis", [0]), array("rest", [-1]), weight("w", 48, 5)]
    path = write(tmp_path, nodes, ["batch", 3, 4, 4], weights)
    assert count(graph_from_onnx(path)).require_complete().n_macs == 48 * 5
    assert [graph_from_onnx(path, batch_size=3).tensors[t].shape for t in graph_from_onnx(path).outputs] == [(3, 5)]


def test_what_depends_on_data_is_listed_with_all_that_follows(tmp_path):
    nodes = [node("MatMul", "x w", "a"), node("NonZero", "a", "n"), node("Cast", "n", "f", to=1), node("Exp", "f", "y")]
    graph = graph_from_onnx(write(tmp_path, nodes, [1, 4], [weight("w", 4, 6)]))
    found = count(graph)
    assert (found.n_macs, found.uncounted) == (24, ("onnx.Exp",))
    assert [operator.has_open_sizes for operator in graph.operators] == [False, True, True, True]


def test_sizes_that_the_file_tells_are_believed_where_nothing_else_does(tmp_path):
    made = helper.make_graph(
        [helper.make_node("Odd", ["x"], ["o"], domain="own.domain"), node("MatMul", "o w", "y")],
        "g",
        [value("x", ["batch", 2])],
        [value("y", ["batch", 5])],
        [weight("w", 7, 5)],
        value_info=[value("o", ["batch", 7])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own.domain", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=9), tmp_path / "odd.onnx")
    found = count(graph_from_onnx(tmp_path / "odd.onnx"))
    assert (found.n_macs, found.uncounted) == (35, ("own.domain.Odd",))


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_a_file_that_onnxruntime_optimised_counts_as_its_original(tmp_path, level):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Sigmoid()).eval()
    write_onnx(model, (3, 8, 8), tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "fast.onnx")
    onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    graph = graph_from_onnx(tmp_path / "fast.onnx")
    assert ("com.microsoft.FusedConv" in {operator.name for operator in graph.operators}) == (level == "EXTENDED")
    found = count(graph).require_complete()
    assert (found.n_params, found.n_macs) == (3 * 8 * 9 + 8 + 8 * 4 + 4, 3 * 8 * 9 * 36 + 8 * 4 * 36)


@pytest.mark.parametrize(
    ("made", "weights", "shape", "n_macs"),
    [
        (
            helper.make_node("FusedConv", ["x", "w"], ["y"], activation="Relu"),
            [weight("w", 4, 2, 3, 3)],
            (4, 3, 3),
            648,
        ),
        (helper.make_node("FusedMatMul", ["x", "w"], ["y"], transB=1), [weight("w", 6, 5)], (2, 5, 6), 2 * 5 * 5 * 6),
        (helper.make_node("FusedGemm", ["x", "w"], ["y"], transB=1), [weight("w", 6, 5)], None, None),
    ],
    ids=["FusedConv", "FusedMatMul", "FusedGemm"],
)
def test_operators_of_onnxruntime_have_sizes_where_the_file_tells_none(tmp_path, made, weights, shape, n_macs):
    made.domain = "com.microsoft"
    sizes = {"FusedConv": [1, 2, 5, 5], "FusedMatMul": [1, 2, 5, 5], "FusedGemm": [1, 5]}[made.op_type]
    graph = graph_from_onnx(write(tmp_path, [made], sizes, weights))
    assert graph.tensors[graph.outputs[0]].shape == (1, *(shape or (6,)))
    assert count(graph).require_complete().n_macs == (n_macs or 30)


def test_a_fixed_batch_is_the_files_own_and_counts_are_of_one_sample(tmp_path):
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    path = write(tmp_path, nodes, [8, 3, 5, 5], [weight("w", 4, 3, 3, 3)])
    graph = graph_from_onnx(path)
    assert (graph.batch_size, onnx_batch_size(path), onnx_input_shape(path)) == (8, 8, (3, 5, 5))
    found = count_sample(graph).require_complete()
    assert (found.n_macs, found.other_operations) == (4 * 27 * 9, {"activation": 36})
    assert estimate_peak_memory(graph).input_bytes == 4 * 8 * 75


def test_work_that_is_no_multiple_of_the_batch_is_listed(tmp_path):
    nodes = [node("ReduceSum", "x axis", "s"), node("Exp", "s", "y")]
    path = write(tmp_path, nodes, [8, 5], [array("axis", [0])])
    assert count_sample(graph_from_onnx(path)).uncounted == ("onnx.Exp",)


def test_the_batch_of_a_sequence_is_its_second_size(tmp_path):
    path = write(
        tmp_path, [node("GRU", "x w r", "y", hidden_size=2)], [7, 3, 4], [weight("w", 1, 6, 4), weight("r", 1, 6, 2)]
    )
    graph = graph_from_onnx(path)
    assert (graph.batch_size, count_sample(graph).n_macs) == (3, 7 * 6 * (4 + 2))


def test_further_inputs_keep_their_sizes_or_take_those_of_equal_name(tmp_path):
    inputs = [value("mask", ["batch", "length"]), value("table", [5, 5])]
    nodes = [node("Mul", "x mask", "m"), node("MatMul", "m table", "y")]
    path = write(tmp_path, nodes, ["batch", "length"], inputs=inputs)
    graph = graph_from_onnx(path, (5,))
    assert [graph.tensors[tensor].shape for tensor in graph.inputs] == [(1, 5), (1, 5), (5, 5)]
    assert count(graph).n_macs == 25


def test_inputs_that_are_no_tensors_of_numbers_are_refused_in_words(tmp_path):
    kinds = {
        r"its input 'x' is not a tensor of known sizes": helper.make_sequence_type_proto(
            helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 2])
        ),
        r"'x' holds STRING, which has no torch type here": helper.make_tensor_type_proto(TensorProto.STRING, [1, 2]),
    }
    for message, kind in kinds.items():
        graph = helper.make_graph(
            [node("Identity", "x", "y")], "g", [helper.make_value_info("x", kind)], [helper.make_value_info("y", kind)]
        )
        onnx.save(helper.make_model(graph, ir_version=9), tmp_path / "odd.onnx")
        with pytest.raises(TracingError, match=message):
            graph_from_onnx(tmp_path / "odd.onnx")


def outcomes(cases, folder):
    """Profile each case; what is not refused in words escapes as an exception."""
    refused = []
    for case in cases:
        (folder / "case.onnx").write_bytes(case.model.SerializeToString())
        try:
            graph = graph_from_onnx(folder / "case.onnx")
        except (TracingError, ValueError) as error:
            assert "as ONNX:" not in str(error), case.name  # an exception of another kind, dressed up
            refused.append(case.name)
        else:
            count_sample(graph)
            estimate_peak_memory(graph)
    return refused


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_some_of_onnxs_own_cases_are_read_or_refused_in_words(tmp_path):
    cases = [case for case in collect_testcases("Conv") if case.model is not None]
    for name in ("QLinearConv", "Loop", "If", "Scan", "Attention", "Einsum", "LSTM", "GRU", "Resize"):
        cases += [case for case in collect_testcases(name) if case.model is not None]
    refused = outcomes(cases, tmp_path)
    assert len(cases) >= 60
    assert all("seq" in name or "opt" in name for name in refused)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_of_onnxs_own_cases_are_read_or_refused_in_words(tmp_path):
    cases = [case for case in collect_testcases(None) if case.model is not None]
    assert len(outcomes(cases, tmp_path)) < 0.05 * len(cases)
