"""What the tables of formulas share: arguments by position, and products that torch and ONNX both have."""

from collections.abc import Callable

from latency.graph.operator_graph import Operator, OperatorGraph, TensorInfo

Formula = Callable[[Operator, OperatorGraph], int | None]
"""From an operator to its work for the whole batch; `None` for arguments that it does not know how to count."""


def input_tensor(operator: Operator, graph: OperatorGraph, position: int) -> TensorInfo:
    """Return an argument."""
    return graph.tensors[operator.inputs[position]]


def output_tensor(operator: Operator, graph: OperatorGraph) -> TensorInfo:
    """Return the first result."""
    return graph.tensors[operator.outputs[0]]


def convolution(weight_position: int) -> Formula:
    """Return the formula of a convolution whose weight stands at this position."""

    def formula(operator: Operator, graph: OperatorGraph) -> int:
        # A weight is (C_out, C_in / groups, *kernel), or (C_in, C_out / groups, *kernel) transposed. Either
        # way each element of the side that its first axis stands for meets the rest of the weight once.
        weight = input_tensor(operator, graph, weight_position)
        is_transposed = operator.attributes.get("transposed", operator.name == "onnx.ConvTranspose")
        side = input_tensor(operator, graph, 0) if is_transposed else output_tensor(operator, graph)
        return side.n_elements * weight.n_elements // weight.shape[0]

    return formula


def product(first: int, second: int) -> Formula:
    """Return the formula of `(..., m, k) @ (..., k, n)` for operands at these positions."""

    def formula(operator: Operator, graph: OperatorGraph) -> int:
        left, right = input_tensor(operator, graph, first), input_tensor(operator, graph, second)
        n_columns = right.shape[-1] if len(right.shape) > 1 else 1
        return left.n_elements * n_columns

    return formula


def first_times_rows(operator: Operator, graph: OperatorGraph) -> int:
    """Count `Gemm`, whose right operand lies as it is or transposed."""
    left, right = input_tensor(operator, graph, 0), input_tensor(operator, graph, 1)
    return left.n_elements * right.shape[0 if operator.attributes.get("transB", 0) else 1]
