"""The multiply-adds of ONNX's operators and of onnxruntime's own: literal tables, as `mac_formulas` says."""

import math
from collections.abc import Mapping

from latency.counting.formulas import Formula, convolution, first_times_rows, input_tensor, output_tensor
from latency.graph.operator_graph import Operator, OperatorGraph


def _matmul(first: int) -> Formula:
    """Return the formula of a product whose left operand stands at this position.

    Either operand's batch may be broadcast, which the result alone shows: each of its numbers is a row's sum.
    """

    def formula(operator: Operator, graph: OperatorGraph) -> int:
        left = input_tensor(operator, graph, first)
        inner = left.shape[-2] if operator.attributes.get("transA", 0) else left.shape[-1]
        return output_tensor(operator, graph).n_elements * inner

    return formula


def _recurrent(operator: Operator, graph: OperatorGraph) -> int:
    """Each step of each sequence meets both weights of each direction once."""
    sequence, weight, recurrence = (input_tensor(operator, graph, position) for position in range(3))
    n_steps = sequence.n_elements // sequence.shape[-1]
    return n_steps * (weight.n_elements + recurrence.n_elements)


def _attention(operator: Operator, graph: OperatorGraph) -> int:
    """Return the scores and their sums of values; sizes as in `(B, heads, L, E)`, or `(B, L, heads * E)`."""
    query, key, value = (input_tensor(operator, graph, position) for position in range(3))
    if len(query.shape) == 4:
        n_heads, width = query.shape[1], query.shape[3] + value.shape[3]
    else:
        n_heads, n_shared = operator.attributes["q_num_heads"], operator.attributes["kv_num_heads"]
        width = query.shape[2] // n_heads + value.shape[2] // n_shared
    n_keys = key.shape[-2]
    if len(operator.inputs) > 4:
        past = input_tensor(operator, graph, 4)
        n_keys += past.shape[-2] if past.n_elements else 0
    return query.shape[0] * int(n_heads) * query.shape[-2] * n_keys * width


def _einsum(operator: Operator, graph: OperatorGraph) -> int:
    """Contract from left to right, as runtimes do: a pair costs the sizes of all its labels, if it sums over any."""
    operands, result = _einsum_labels(operator, graph)
    sizes: dict[str, int] = {}
    for labels, tensor in zip(operands, operator.inputs, strict=True):
        for label, size in zip(labels, graph.tensors[tensor].shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))  # a 1 may be broadcast
    total = 0
    left = operands[0]
    for position, right in enumerate(operands[1:], start=1):
        needed = set(result).union(*operands[position + 1 :])
        # What one operand alone has and nobody needs is summed before.
        pair = {label for label in {*left, *right} if label in needed or (label in left and label in right)}
        if pair - needed:
            total += math.prod(sizes[label] for label in pair)
        left = [label for label in pair if label in needed]
    return total


def _einsum_labels(operator: Operator, graph: OperatorGraph) -> tuple[list[list[str]], list[str]]:
    """Return the labels of each operand and of the result, those behind an ellipsis by numbers."""
    terms, arrow, result = operator.attributes["equation"].replace(" ", "").partition("->")
    operands = [
        _spelled_out(term, len(graph.tensors[tensor].shape))
        for term, tensor in zip(terms.split(","), operator.inputs, strict=True)
    ]
    if arrow:
        return operands, _spelled_out(result, len(output_tensor(operator, graph).shape))
    seen = [label for labels in operands for label in labels]
    return operands, [label for label in dict.fromkeys(seen) if seen.count(label) == 1 or label.isdigit()]


def _spelled_out(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    n_hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *map(str, range(n_hidden, 0, -1)), *after]


def _packed_matmul(operator: Operator, graph: OperatorGraph) -> int:
    return output_tensor(operator, graph).n_elements * int(operator.attributes["K"])


def _joint_attention(operator: Operator, graph: OperatorGraph) -> int | None:
    """Count onnxruntime's `Attention`: one product makes query, key and value, then come scores and sums."""
    sequence, weight = input_tensor(operator, graph, 0), input_tensor(operator, graph, 1)
    if "qkv_hidden_sizes" in operator.attributes or len(operator.inputs) > 4:
        return None  # a past, or values of another width
    projections = sequence.n_elements * weight.shape[1]
    return projections + 2 * sequence.shape[0] * sequence.shape[1] ** 2 * (weight.shape[1] // 3)


def _separate_attention(operator: Operator, graph: OperatorGraph) -> int | None:
    """Count onnxruntime's `MultiHeadAttention` of unpacked query, key and value, `(B, L, heads * E)`."""
    tensors = [input_tensor(operator, graph, position) for position in range(min(3, len(operator.inputs)))]
    if len(tensors) < 3 or any(len(tensor.shape) != 3 for tensor in tensors) or len(operator.inputs) > 6:
        return None  # packed, or with a past
    query, key, value = tensors
    return query.shape[0] * query.shape[1] * key.shape[1] * (query.shape[2] + value.shape[2])


ONNX_MAC_FORMULAS: Mapping[str, Formula] = {
    "onnx.Conv": convolution(1),
    "onnx.ConvTranspose": convolution(1),
    "onnx.ConvInteger": convolution(1),
    "onnx.QLinearConv": convolution(3),
    "onnx.DeformConv": convolution(1),
    "onnx.CausalConvWithState": convolution(1),
    "onnx.Gemm": first_times_rows,
    "onnx.MatMul": _matmul(0),
    "onnx.MatMulInteger": _matmul(0),
    "onnx.QLinearMatMul": _matmul(0),
    "onnx.Einsum": _einsum,
    "onnx.LSTM": _recurrent,
    "onnx.GRU": _recurrent,
    "onnx.RNN": _recurrent,
    "onnx.Attention": _attention,
    "com.microsoft.FusedConv": convolution(1),
    "com.microsoft.FusedGemm": first_times_rows,
    "com.microsoft.FusedMatMul": _matmul(0),
    "com.microsoft.GemmFastGelu": _matmul(0),
    "com.microsoft.QGemm": _matmul(0),
    "com.microsoft.MatMulIntegerToFloat": _matmul(0),
    "com.microsoft.DynamicQuantizeMatMul": _matmul(0),
    "com.microsoft.MatMulNBits": _packed_matmul,
    "com.microsoft.DynamicQuantizeLSTM": _recurrent,
    "com.microsoft.Attention": _joint_attention,
    "com.microsoft.MultiHeadAttention": _separate_attention,
}
