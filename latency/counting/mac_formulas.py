"""The multiply-adds of an operator: a literal table from its name to a formula of its tensors."""

from latency.counting.formulas import Formula, convolution, input_tensor, product
from latency.counting.onnx_formulas import ONNX_MAC_FORMULAS
from latency.graph.operator_graph import Operator, OperatorGraph


def _linear(operator: Operator, graph: OperatorGraph) -> int:
    return input_tensor(operator, graph, 0).n_elements * input_tensor(operator, graph, 1).shape[0]


def _attention(operator: Operator, graph: OperatorGraph) -> int:
    # query (..., heads, L, E), key (..., S, E), value (..., S, V): the scores, then their sums of values
    query, key, value = (input_tensor(operator, graph, position) for position in range(3))
    n_rows = query.n_elements // query.shape[-1]
    return n_rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


MAC_FORMULAS: dict[str, Formula] = {
    "aten.convolution": convolution(1),
    "aten._convolution": convolution(1),
    "aten.linear": _linear,
    "aten.mm": product(0, 1),
    "aten.bmm": product(0, 1),
    "aten.mv": product(0, 1),
    "aten.dot": product(0, 1),
    "aten.addmm": product(1, 2),
    "aten.addmv": product(1, 2),
    "aten.baddbmm": product(1, 2),
    "aten.addbmm": product(1, 2),
    "aten.vdot": product(0, 1),
    "aten.addmm_": product(1, 2),
    "aten.addmv_": product(1, 2),
    "aten.baddbmm_": product(1, 2),
    "aten.addbmm_": product(1, 2),
    "aten._addmm_activation": product(1, 2),
    "aten._int_mm": product(0, 1),
    "aten._scaled_mm": product(0, 1),
    "aten._grouped_mm": product(0, 1),
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    **ONNX_MAC_FORMULAS,
}
