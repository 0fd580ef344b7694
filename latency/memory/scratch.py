"""Memory that operators take on the CPU to work in and give back before they return."""

import math
import os
from collections.abc import Callable, Sequence

import torch

from latency.counting.mac_formulas import MAC_FORMULAS
from latency.graph.operator_graph import Operator, OperatorGraph, TensorInfo

_Formula = Callable[[OperatorGraph, Operator, int], int | None]


def scratch_bytes(graph: OperatorGraph, operator: Operator, n_threads: int = 1) -> int | None:
    """Return what `operator` allocates for itself on the CPU beside its results, at most; `None` where not known.

    Other torch operators that are not listed here are taken to allocate nothing but their results. Of operators
    that do not come from torch nothing is known: their runtime has kernels of its own.

    Args:
        graph: Where the operator stands.
        operator: One of its operators.
        n_threads: Torch's, which decide on kernels and on how many buffers these need.
    """
    if not operator.name.startswith("aten."):
        return None
    formula = _FORMULAS.get(operator.name)
    if formula is not None:
        return formula(graph, operator, n_threads) if operator.inputs else 0
    return None if operator.name in _NO_FIXED_SIZE else 0


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


def _batch_norm(graph: OperatorGraph, operator: Operator, n_threads: int) -> int:
    """Return the bytes of the scale and the shift of each channel, that the CPU's kernel folds first."""
    image = graph.tensors[operator.inputs[0]]
    return 2 * image.shape[1] * image.dtype.itemsize


def _convolution(graph: OperatorGraph, operator: Operator, n_threads: int) -> int | None:
    image, weight = (graph.tensors[tensor] for tensor in operator.inputs[:2])
    if image.dtype is not torch.float32 or len(image.shape) > 4:
        return None
    if _takes_onednn(image, weight, operator, n_threads):
        return _onednn_bytes(image, weight, graph.tensors[operator.outputs[0]], operator)
    if operator.attributes["transposed"]:
        windows = math.prod(weight.shape[1:]) * math.prod(image.shape[2:])  # of one image at a time
        return windows * image.dtype.itemsize
    return im2col_bytes(graph, operator)


def _takes_onednn(image: TensorInfo, weight: TensorInfo, operator: Operator, n_threads: int) -> bool:
    """Return whether torch hands a convolution to oneDNN.

    Source:
        `ConvParams::use_mkldnn` in torch's `aten/src/ATen/native/Convolution.cpp`, 2.13.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # type: ignore[no-untyped-call]
        return False
    kernel = weight.shape[2:]
    steps: Sequence[int] = [*operator.attributes["stride"], *operator.attributes["dilation"]]
    is_pointwise = all(size == 1 for size in kernel)
    is_simple = all(step == 1 for step in steps) and image.shape[0] < 16 and is_pointwise and n_threads == 1
    is_worth_it = (
        operator.attributes["groups"] > 1
        or (len(kernel) == 2 and min(kernel) > 3)
        or image.shape[0] > 1
        or image.n_elements > 20480
    )
    return not is_simple and is_worth_it


def _onednn_bytes(image: TensorInfo, weight: TensorInfo, output: TensorInfo, operator: Operator) -> int:
    """Return the bytes of copies in which channels lie in blocks: first of all three, then of the result alone.

    A first layer's few channels are read as they lie. A transposed convolution copies its result twice.
    """
    if operator.attributes["transposed"]:
        return 2 * output.n_elements * image.dtype.itemsize
    block = 16 if onednn_takes_avx512() else 8
    groups = int(operator.attributes["groups"])
    is_read_in_place = groups == 1 and image.shape[1] < block
    blocked_image = 0 if is_read_in_place else _in_blocks(image.shape, 1, block)
    blocked_output = _in_blocks(output.shape, 1, block)
    blocked_weight = weight.n_elements
    if groups in (1, image.shape[1]):
        blocked_weight = _in_blocks(weight.shape, 0, block)
    if groups == 1 and not is_read_in_place:
        blocked_weight = blocked_weight // weight.shape[1] * _rounded(weight.shape[1], block)
    at_work = blocked_image + blocked_weight + blocked_output
    copying_back = blocked_output + output.n_elements
    return (max(at_work, copying_back) - output.n_elements) * image.dtype.itemsize


def onednn_takes_avx512() -> bool:
    """Return whether oneDNN lays channels out in blocks for AVX-512, which a variable can keep it from."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    is_allowed = allowed in ("", "ALL", "DEFAULT") or "AVX512" in allowed or "AVX10" in allowed
    return is_allowed and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _in_blocks(shape: Sequence[int], axis: int, block: int) -> int:
    """Return the elements of a tensor whose size along `axis` is rounded up."""
    return math.prod(shape) // shape[axis] * _rounded(shape[axis], block)


def _rounded(size: int, block: int) -> int:
    return -(-size // block) * block


def _attention(graph: OperatorGraph, operator: Operator, n_threads: int) -> int | None:
    """Return the bytes of each thread's block of scores, with its rows' largest values, sums and results.

    Source:
        `cpu_flash_attention` in torch's `aten/src/ATen/native/cpu/FlashAttentionKernel.cpp`, 2.13.
    """
    query, key = (graph.tensors[tensor] for tensor in operator.inputs[:2])
    if query.dtype is not torch.float32:
        return None
    n_queries, width, n_keys = query.shape[-2], query.shape[-1], key.shape[-2]
    rows = min(256 if n_queries >= 768 else 64 if n_queries >= 192 else 32, n_queries)
    columns = min(512, n_keys)
    return n_threads * rows * (columns + 2 + width) * query.dtype.itemsize


def _upsampling(graph: OperatorGraph, operator: Operator, n_threads: int) -> int:
    """Return the bytes of copies in which each place's channels lie side by side, taken for small images.

    Source:
        `_use_vectorized_kernel_cond_2d` in torch's `aten/src/ATen/native/cpu/UpSampleKernel.cpp`, 2.13.
    """
    image, output = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if sum(output.shape[2:]) > 128:
        return 0
    copied = image.n_elements if max(image.shape[2:]) > 1 else 0
    return (copied + output.n_elements) * image.dtype.itemsize


def _safe_softmax(graph: OperatorGraph, operator: Operator, n_threads: int) -> int:
    """Return the bytes of the marks of infinite scores and of rows that hold nothing else, and of the infinity.

    Only where there is such a row, which takes a mask that leaves it nothing, the softmax is copied too.
    """
    scores = graph.tensors[operator.inputs[0]]
    n_rows = scores.n_elements // max(1, scores.shape[int(operator.attributes.get("dim", -1))])
    return scores.n_elements + n_rows + scores.dtype.itemsize


def _product(graph: OperatorGraph, operator: Operator, n_threads: int) -> int | None:
    """Return 0 for the library of matrix products, which torch's allocator does not serve, in single precision."""
    return 0 if graph.tensors[operator.inputs[0]].dtype is torch.float32 else None


# The torch operators on the CPU whose working memory follows from shapes and from which kernel torch takes. What
# kernels of other precisions and of backward passes take is not known here.
_FORMULAS: dict[str, _Formula] = {
    "aten.native_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
    "aten.convolution": _convolution,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._safe_softmax": _safe_softmax,
    "aten.upsample_bilinear2d": _upsampling,
    "aten.upsample_nearest2d": _upsampling,
    "aten.mm": _product,
    "aten.addmm": _product,
    "aten.bmm": _product,
    "aten.baddbmm": _product,
}
_NO_FIXED_SIZE = frozenset({*MAC_FORMULAS, "aten.convolution_backward"})
