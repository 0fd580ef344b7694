"""Memory that operators take to work in and give back before they return."""

from collections.abc import Callable

from latency.counting.mac_formulas import MAC_FORMULAS
from latency.graph.operator_graph import Operator, OperatorGraph


def _batch_norm(graph: OperatorGraph, operator: Operator) -> int:
    """Return the bytes of the scale and the shift of each channel, that the CPU's kernel folds first."""
    image = graph.tensors[operator.inputs[0]]
    return 2 * image.shape[1] * image.dtype.itemsize


# The torch operators on the CPU whose working memory is fixed by shapes. That of convolutions, matrix products and
# attention is not: which of their kernels runs depends on the processor, the library and the threads.
_FORMULAS: dict[str, Callable[[OperatorGraph, Operator], int]] = {
    "aten.native_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
}
_NO_FIXED_SIZE = frozenset({*MAC_FORMULAS, "aten.convolution_backward"})


def scratch_bytes(graph: OperatorGraph, operator: Operator) -> int | None:
    """Return what `operator` allocates for itself on the CPU; `None` where that is not known.

    Other torch operators that are not listed here are taken to allocate nothing but their results. Of operators
    that do not come from torch nothing is known: their runtime has kernels of its own.
    """
    if operator.name in _NO_FIXED_SIZE or not operator.name.startswith("aten."):
        return None
    formula = _FORMULAS.get(operator.name)
    return formula(graph, operator) if formula and operator.inputs else 0
