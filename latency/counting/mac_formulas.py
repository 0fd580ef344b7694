"""The multiply-adds of an operator: a literal table from its name to a formula of its tensors.

A formula returns `None` for arguments that it does not know how to count.
"""

from collections.abc import Callable

from latency.graph.operator_graph import Operator, OperatorGraph, TensorInfo

Formula = Callable[[Operator, OperatorGraph], int | None]


def _input(operator: Operator, graph: OperatorGraph, position: int) -> TensorInfo:
    return graph.tensors[operator.inputs[position]]


def _convolution(operator: Operator, graph: OperatorGraph) -> int:
    # A weight is (C_out, C_in / groups, *kernel), or (C_in, C_out / groups, *kernel) transposed. Either
    # way each element of the side that its first axis stands for meets the rest of the weight once.
    weight = _input(operator, graph, 1)
    is_transposed = operator.attributes.get("transposed", operator.name == "onnx.ConvTranspose")
    side = _input(operator, graph, 0) if is_transposed else graph.tensors[operator.outputs[0]]
    return side.n_elements * weight.n_elements // weight.shape[0]


def _product(first: int, second: int) -> Formula:
    """Return the formula of `(..., m, k) @ (..., k, n)` for operands at these positions."""

    def formula(operator: Operator, graph: OperatorGraph) -> int:
        left, right = _input(operator, graph, first), _input(operator, graph, second)
        n_columns = right.shape[-1] if len(right.shape) > 1 else 1
        return left.n_elements * n_columns

    return formula


def _matmul(operator: Operator, graph: OperatorGraph) -> int:
    # Either operand's batch may be broadcast, which the result alone shows: each of its numbers is a row's sum.
    left, result = _input(operator, graph, 0), graph.tensors[operator.outputs[0]]
    return result.n_elements * left.shape[-1]


def _linear(operator: Operator, graph: OperatorGraph) -> int:
    return _input(operator, graph, 0).n_elements * _input(operator, graph, 1).shape[0]


def _gemm(operator: Operator, graph: OperatorGraph) -> int:
    left, right = _input(operator, graph, 0), _input(operator, graph, 1)
    return left.n_elements * right.shape[0 if operator.attributes.get("transB", 0) else 1]


def _attention(operator: Operator, graph: OperatorGraph) -> int:
    # query (..., heads, L, E), key (..., S, E), value (..., S, V): the scores, then their sums of values
    query, key, value = (_input(operator, graph, position) for position in range(3))
    n_rows = query.n_elements // query.shape[-1]
    return n_rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


MAC_FORMULAS: dict[str, Formula] = {
    "aten.convolution": _convolution,
    "aten.linear": _linear,
    "aten.mm": _product(0, 1),
    "aten.bmm": _product(0, 1),
    "aten.mv": _product(0, 1),
    "aten.dot": _product(0, 1),
    "aten.addmm": _product(1, 2),
    "aten.addmv": _product(1, 2),
    "aten.baddbmm": _product(1, 2),
    "aten.addbmm": _product(1, 2),
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "onnx.Conv": _convolution,
    "onnx.ConvTranspose": _convolution,
    "onnx.Gemm": _gemm,
    "onnx.MatMul": _matmul,
}
