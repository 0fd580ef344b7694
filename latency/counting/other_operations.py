"""What an operator computes beside multiply-adds of products: literal tables from its name to a formula.

One operation is an addition, a multiplication, a comparison or one evaluation of a function, on one number.
These are conventions, not measurements: a kernel may fuse, reorder or vectorise them. Sorting counts as one pass.
"""

import math
from collections.abc import Mapping
from enum import StrEnum

from latency.counting.mac_formulas import Formula
from latency.graph.operator_graph import Operator, OperatorGraph


class OperationKind(StrEnum):
    """What an operation belongs to."""

    NORMALISATION = "normalisation"
    ACTIVATION = "activation"
    SOFTMAX = "softmax"
    POOLING = "pooling"
    RESIZE = "resize"
    ELEMENTWISE = "elementwise"
    REDUCTION = "reduction"


def _per_output(n_operations: int) -> Formula:
    return lambda operator, graph: n_operations * graph.tensors[operator.outputs[0]].n_elements


def _per_input(n_operations: int) -> Formula:
    return lambda operator, graph: n_operations * graph.tensors[operator.inputs[0]].n_elements


def _pooling(operator: Operator, graph: OperatorGraph) -> int:
    """One operation for each element of the window, at each output."""
    output = graph.tensors[operator.outputs[0]]
    window = operator.attributes.get("kernel_size", operator.attributes.get("kernel_shape"))
    assert window is not None  # noqa: S101 - an argument without a default in torch's and ONNX's schemas
    sides = [int(side) for side in window]
    if len(sides) == 1:
        sides *= 3 if operator.name.startswith("aten") and "3d" in operator.name else len(output.shape[2:])
    return output.n_elements * math.prod(sides)


def _interpolation(n_taps: int) -> Formula:
    """A weighted sum of so many values at each output."""
    return _per_output(2 * n_taps - 1)


def _onnx_resize(operator: Operator, graph: OperatorGraph) -> int:
    source, target = (graph.tensors[tensors[0]] for tensors in (operator.inputs, operator.outputs))
    n_axes = sum(before != after for before, after in zip(source.shape, target.shape, strict=True))
    taps = {"linear": 2, "cubic": 4}.get(operator.attributes.get("mode", "nearest"), 1)
    return _interpolation(taps**n_axes)(operator, graph) if taps > 1 else 0


def _table(
    namespace: str, rows: Mapping[tuple[OperationKind, Formula], str]
) -> dict[str, tuple[OperationKind, Formula]]:
    return {f"{namespace}.{name}": row for row, names in rows.items() for name in names.split()}


_ATEN = _table(
    "aten",
    {
        # one scale and one shift: in eval mode the statistics are constants
        (OperationKind.NORMALISATION, _per_output(2)): """
            native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
            _batch_norm_with_update
        """,
        # sum, difference, square, its sum, division by the deviation, scale, shift
        (OperationKind.NORMALISATION, _per_output(7)): "native_layer_norm native_group_norm",
        (OperationKind.NORMALISATION, _per_output(4)): "_fused_rms_norm",  # square, sum, division, scale
        (OperationKind.ACTIVATION, _per_output(1)): """
            relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel elu elu_ celu celu_ selu selu_ gelu gelu_ silu
            silu_ mish mish_ sigmoid sigmoid_ log_sigmoid_forward hardsigmoid hardsigmoid_ hardswish hardswish_
            hardtanh hardtanh_ tanh tanh_ softplus threshold threshold_ glu clamp clamp_ clamp_min clamp_min_
            clamp_max clamp_max_ rrelu_with_noise hardshrink softshrink
        """,
        # largest, difference, exponential, sum, division
        (OperationKind.SOFTMAX, _per_output(5)): "_softmax _safe_softmax _log_softmax",
        (OperationKind.POOLING, _pooling): """
            max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d
        """,
        (OperationKind.POOLING, _per_input(1)): """
            _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
        """,
        (OperationKind.RESIZE, _interpolation(2)): "upsample_linear1d",
        (OperationKind.RESIZE, _interpolation(4)): "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d",
        (OperationKind.RESIZE, _interpolation(8)): "upsample_trilinear3d",
        (OperationKind.RESIZE, _interpolation(16)): "upsample_bicubic2d _upsample_bicubic2d_aa",
        (OperationKind.ELEMENTWISE, _per_output(1)): """
            add add_ sub sub_ rsub mul mul_ div div_ neg neg_ abs abs_ exp exp_ log log_ log1p sqrt sqrt_ rsqrt
            rsqrt_ pow pow_ square reciprocal reciprocal_ maximum minimum floor ceil round trunc sign sin cos erf
            floor_divide remainder fmod where masked_fill masked_fill_ eq ne lt le gt ge logical_and logical_or
            logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor isnan isinf isfinite nan_to_num
        """,
        (OperationKind.ELEMENTWISE, _per_output(2)): "addcmul addcmul_ addcdiv addcdiv_",
        (OperationKind.ELEMENTWISE, _per_output(3)): "lerp lerp_",
        (OperationKind.REDUCTION, _per_input(1)): """
            sum mean amax amin max min prod any all argmax argmin topk sort
        """,
        (OperationKind.REDUCTION, _per_input(2)): "linalg_vector_norm norm",  # power and sum
        (OperationKind.REDUCTION, _per_input(4)): "var var_mean std std_mean logsumexp",
    },
)

_ONNX = _table(
    "onnx",
    {
        (OperationKind.NORMALISATION, _per_output(2)): "BatchNormalization",
        (OperationKind.NORMALISATION, _per_output(7)): "LayerNormalization GroupNormalization InstanceNormalization",
        (OperationKind.NORMALISATION, _per_output(4)): "RMSNormalization",
        (OperationKind.ACTIVATION, _per_output(1)): """
            Relu LeakyRelu PRelu Elu Celu Selu Gelu Swish Mish Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign
            ThresholdedRelu Clip Shrink
        """,
        (OperationKind.SOFTMAX, _per_output(5)): "Softmax LogSoftmax",
        (OperationKind.POOLING, _pooling): "MaxPool AveragePool LpPool",
        (OperationKind.POOLING, _per_input(1)): "GlobalAveragePool GlobalMaxPool",
        (OperationKind.RESIZE, _onnx_resize): "Resize Upsample",
        (OperationKind.RESIZE, _interpolation(4)): "GridSample",
        (OperationKind.ELEMENTWISE, _per_output(1)): """
            Add Sub Mul Div Neg Abs Exp Log Sqrt Pow Reciprocal Max Min Floor Ceil Round Sign Sin Cos Erf Mod Where
            Equal Less LessOrEqual Greater GreaterOrEqual And Or Not Xor BitwiseAnd BitwiseOr BitwiseNot BitwiseXor
            IsNaN IsInf
        """,
        (OperationKind.REDUCTION, _per_input(1)): """
            ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ArgMax ArgMin TopK
        """,
        (OperationKind.REDUCTION, _per_input(2)): "ReduceL2 ReduceSumSquare",
        (OperationKind.REDUCTION, _per_input(4)): "ReduceLogSumExp",
    },
)

OTHER_OPERATIONS: dict[str, tuple[OperationKind, Formula]] = {**_ATEN, **_ONNX}
"""From an operator's name to what its operations belong to and how many they are."""

_FREE_ATEN = """
    view _unsafe_view reshape _reshape_alias as_strided t transpose transpose_ permute expand squeeze squeeze_
    unsqueeze unsqueeze_ select slice narrow split split_with_sizes unsafe_split unsafe_split_with_sizes chunk
    unbind unfold detach detach_ alias diagonal lift lift_fresh lift_fresh_copy view_as_real view_as_complex cat
    stack clone contiguous copy copy_ _to_copy to repeat roll flip rot90 pad constant_pad_nd reflection_pad1d
    reflection_pad2d replication_pad1d replication_pad2d gather index index_select index_put index_put_ index_add
    index_add_ scatter scatter_ scatter_add embedding one_hot tile slice_scatter select_scatter tril triu
    max_unpool2d upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle im2col col2im
    empty empty_like empty_strided new_empty new_empty_strided new_zeros new_ones new_full zeros zeros_like ones
    ones_like full full_like arange linspace eye scalar_tensor fill fill_ zero zero_ dropout native_dropout
    bernoulli bernoulli_ rand rand_like randn randn_like sym_size sym_stride sym_numel _assert_async
"""
_FREE_ONNX = """
    Reshape Flatten Squeeze Unsqueeze Identity Dropout Transpose Concat Split Slice Gather GatherElements GatherND
    ScatterElements ScatterND Expand Tile Pad Cast CastLike Shape Size Constant ConstantOfShape Range DepthToSpace
    SpaceToDepth NonZero OneHot EyeLike Trilu
"""
WITHOUT_OPERATIONS = frozenset(
    [f"aten.{name}" for name in _FREE_ATEN.split()] + [f"onnx.{name}" for name in _FREE_ONNX.split()]
)
"""Operators that move, make or rename numbers."""
