"""Memory that operators take to work in and give back before they return."""

import math
from collections.abc import Callable

from latency.graph import Operator, OperatorGraph


def _batch_norm(graph: OperatorGraph, operator: Operator) -> int:
    """Return the bytes of the scale and the shift of each channel, that the CPU's kernel folds first."""
    image = graph.tensors[operator.inputs[0]]
    return 2 * image.shape[1] * image.dtype.itemsize


# The torch operators on the CPU whose working memory is fixed by shapes. A convolution's is not: which of its
# kernels runs depends on the processor and the library; those of oneDNN reorder what they read.
_FORMULAS: dict[str, Callable[[OperatorGraph, Operator], int]] = {
    "aten.native_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
}
_NO_FIXED_SIZE = frozenset({"aten.convolution", "aten.convolution_backward", "aten.addmm", "aten.mm", "aten.bmm"})


def scratch_bytes(graph: OperatorGraph, operator: Operator) -> int | None:
    """Return what `operator` allocates for itself on the CPU; `None` where that is not known.

    Operators that are not listed here allocate nothing but their results.
    """
    if operator.name in _NO_FIXED_SIZE:
        return None
    formula = _FORMULAS.get(operator.name)
    return formula(graph, operator) if formula and operator.inputs else 0


def im2col_bytes(graph: OperatorGraph, operator: Operator) -> int:
    """Return the working memory of torch's own CPU convolution, taken where oneDNN is not used.

    The input's windows, side by side: `(B, C_in * kernel, H_out * W_out)`; a 1x1 convolution of stride 1
    reads its input as it lies.
    """
    image, weight = (graph.tensors[tensor] for tensor in operator.inputs[:2])
    kernel = weight.shape[2:]
    if all(size == 1 for size in (*kernel, *operator.attributes["stride"])):
        return 0
    output = graph.tensors[operator.outputs[0]]
    return image.shape[0] * image.shape[1] * math.prod(kernel) * math.prod(output.shape[2:]) * image.dtype.itemsize
