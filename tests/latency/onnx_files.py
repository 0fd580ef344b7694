"""Small ONNX files for tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name, sizes=None, element_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element_type, sizes)


def weight(name, *sizes, dtype=np.float32):
    return numpy_helper.from_array(np.full(sizes, 0.5).astype(dtype), name)


def array(name, numbers, dtype=np.int64):
    return numpy_helper.from_array(np.array(numbers, dtype=dtype), name)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(" "), outputs.split(" "), **attributes)


def write(folder, nodes, sizes, weights=(), *, opset=23, outputs=("y",), inputs=(), **graph):
    """Write a file whose input `x` has these sizes, and return its path."""
    path = folder / "net.onnx"
    made = helper.make_graph(
        nodes, "g", [value("x", sizes), *inputs], [value(name) for name in outputs], list(weights), **graph
    )
    domains = [helper.make_opsetid(name, 1) for name in ("com.microsoft", "own.domain")]
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset), *domains], ir_version=11), path)
    return path
