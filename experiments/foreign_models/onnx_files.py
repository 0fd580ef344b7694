"""ONNX files of many kinds: ONNX's own node cases, and what quantisers, optimisers and converters write."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from latency.graph.onnx_writer import write_onnx

_SHAPE = (3, 16, 16)


def node_cases(folder: Path, n_files: int | None) -> Iterator[tuple[str, Path]]:
    """Yield the first so many of ONNX's test cases of single operators, one file at a time."""
    models = ((case.name, case.model) for case in collect_testcases(None))
    for name, model in itertools.islice(models, n_files):
        if model is not None:
            path = folder / "case.onnx"
            path.write_bytes(model.SerializeToString())
            yield name, path


def written_kinds(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield files of one small network as tools write it, and of operators that exporters use."""
    source = folder / "float.onnx"
    write_onnx(_network(), _SHAPE, source)
    for name, convert in _CONVERSIONS.items():
        path = folder / f"{name}.onnx"
        convert(source, path)
        yield name, path
    for name, build in _GRAPHS.items():
        path = folder / f"{name}.onnx"
        onnx.save(helper.make_model(build(), opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
        yield name, path


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Three random images."""

    def __init__(self) -> None:
        self._images = iter(np.random.default_rng(0).standard_normal((3, 1, *_SHAPE)).astype(np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image as the quantiser wants it."""
        image = next(self._images, None)
        return None if image is None else {"image": image}


def _statically(form: QuantFormat, *, per_channel: bool) -> Callable[[Path, Path], None]:
    return lambda source, path: quantize_static(
        source, path, _Calibration(), quant_format=form, per_channel=per_channel
    )


def _optimised(level: str) -> Callable[[Path, Path], None]:
    def convert(source: Path, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    return convert


def _in_half_precision(source: Path, path: Path) -> None:
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=["Relu"]), path)


def _with_constant_nodes(source: Path, path: Path) -> None:
    model = onnx.load(source)
    for tensor in reversed(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    onnx.save(model, path)


def _of_eight(source: Path, path: Path) -> None:
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, path)


_CONVERSIONS: dict[str, Callable[[Path, Path], None]] = {
    "qdq": _statically(QuantFormat.QDQ, per_channel=False),
    "qdq_per_channel": _statically(QuantFormat.QDQ, per_channel=True),
    "qoperator": _statically(QuantFormat.QOperator, per_channel=False),
    "dynamic_int8": quantize_dynamic,
    "optimised_extended": _optimised("EXTENDED"),
    "optimised_all": _optimised("ALL"),
    "half_precision": _in_half_precision,
    "constant_nodes": _with_constant_nodes,
    "batch_of_eight": _of_eight,
}


def _value(name: str, *sizes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes or None)


def _weight(name: str, *sizes: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full(sizes, 0.5, dtype=np.float32), name)


def _recurrent(kind: str, n_gates: int) -> onnx.GraphProto:
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], hidden_size=5)
    weights = [_weight("w", 1, n_gates * 5, 4), _weight("r", 1, n_gates * 5, 5)]
    return helper.make_graph([node], kind, [_value("x", 7, 1, 4)], [_value("y")], weights)


def _einsum() -> onnx.GraphProto:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bij,jk->bik")
    return helper.make_graph([node], "einsum", [_value("x", 1, 3, 4)], [_value("y")], [_weight("w", 4, 6)])


def _attention() -> onnx.GraphProto:
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"], q_num_heads=2, kv_num_heads=2)
    return helper.make_graph([node], "attention", [_value("x", 1, 6, 8)], [_value("y")])


def _deformable() -> onnx.GraphProto:
    node = helper.make_node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    weights = [_weight("w", 4, 3, 3, 3), _weight("o", 1, 18, 8, 8)]
    return helper.make_graph([node], "deformable", [_value("x", 1, 3, 8, 8)], [_value("y")], weights)


def _loop() -> onnx.GraphProto:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            _value("state", 1, 4),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), _value("next", 1, 4)],
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    weights = [_weight("w", 4, 4), numpy_helper.from_array(np.array(3), "n")]
    return helper.make_graph([node], "loop", [_value("x", 1, 4)], [_value("y")], weights)


def _computed_sizes() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], start=2),
        helper.make_node("Cast", ["sizes"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factor"], ["larger"]),
        helper.make_node("Floor", ["larger"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["new"], to=TensorProto.INT64),
        helper.make_node("Shape", ["x"], ["first"], end=2),
        helper.make_node("Concat", ["first", "new"], ["all"], axis=0),
        helper.make_node("Resize", ["x", "", "", "all"], ["resized"], mode="nearest"),
        helper.make_node("Conv", ["resized", "w"], ["y"]),
    ]
    weights = [_weight("factor", 2), _weight("w", 4, 3, 1, 1)]
    return helper.make_graph(nodes, "computed_sizes", [_value("x", "batch", 3, 8, 8)], [_value("y")], weights)


def _small_types(element_type: int) -> onnx.GraphProto:
    weight = helper.make_tensor("w", element_type, [4, 6], [1] * 24)
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])]
    scale = numpy_helper.from_array(np.array(0.5, dtype=np.float32), "s")
    return helper.make_graph(nodes, "small_types", [_value("x", 1, 4)], [_value("y")], [weight, scale])


def _sparse() -> onnx.GraphProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 7])
    sparse = helper.make_sparse_tensor(values, indices, [4, 6])
    return helper.make_graph([node], "sparse", [_value("x", 1, 4)], [_value("y")], sparse_initializer=[sparse])


_GRAPHS: dict[str, Callable[[], onnx.GraphProto]] = {
    "lstm": lambda: _recurrent("LSTM", 4),
    "gru": lambda: _recurrent("GRU", 3),
    "einsum": _einsum,
    "attention": _attention,
    "deformable": _deformable,
    "loop": _loop,
    "computed_sizes": _computed_sizes,
    "int4": lambda: _small_types(TensorProto.INT4),
    "float8": lambda: _small_types(TensorProto.FLOAT8E4M3FN),
    "sparse": _sparse,
}
