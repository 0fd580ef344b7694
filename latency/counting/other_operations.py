"""What an operator computes beside multiply-adds of products: literal tables from its name to a formula.

One operation is an addition, a multiplication, a comparison or one evaluation of a function, on one number.
These are conventions, not measurements: a kernel may fuse, reorder or vectorise them. Sorting counts as one pass.
"""

import math
from collections.abc import Mapping
from enum import StrEnum

from latency.counting.formulas import Formula
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


def _sum_of_inputs(operator: Operator, graph: OperatorGraph) -> int:
    """One addition for each argument but the first, at each output."""
    return (len(operator.inputs) - 1) * graph.tensors[operator.outputs[0]].n_elements


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


def _onnx_resize(operator: Operator, graph: OperatorGraph) -> int | None:
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
            relu relu_ relu6 relu6_ leaky_relu leaky_relu_ prelu _prelu_kernel elu elu_ celu celu_ selu selu_ gelu
            gelu_ silu silu_ mish mish_ sigmoid sigmoid_ log_sigmoid_forward hardsigmoid hardsigmoid_ hardswish
            hardswish_ hardtanh hardtanh_ tanh tanh_ softplus threshold threshold_ glu clamp clamp_ clamp_min clamp_min_
            clamp_max clamp_max_ rrelu_with_noise hardshrink softshrink logit
        """,
        # largest, difference, exponential, sum, division
        (OperationKind.SOFTMAX, _per_output(5)): "_softmax _safe_softmax _log_softmax",
        (OperationKind.POOLING, _pooling): """
            max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d
        """,
        (OperationKind.POOLING, _per_input(1)): """
            adaptive_avg_pool2d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
        """,
        (OperationKind.RESIZE, _interpolation(2)): "upsample_linear1d",
        (OperationKind.RESIZE, _interpolation(4)): "upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d",
        (OperationKind.RESIZE, _interpolation(8)): "upsample_trilinear3d grid_sampler_3d",
        (OperationKind.RESIZE, _interpolation(16)): "upsample_bicubic2d _upsample_bicubic2d_aa",
        (OperationKind.ELEMENTWISE, _per_output(1)): """
            add add_ sub sub_ rsub mul mul_ div div_ neg neg_ abs abs_ exp exp_ exp2 expm1 log log_ log1p log2 log10
            sqrt sqrt_ rsqrt rsqrt_ pow pow_ square square_ reciprocal reciprocal_ maximum minimum fmax fmin floor
            floor_ ceil round round_ trunc frac sign sgn sin cos sin_ cos_ tan asin acos atan atan2 sinh cosh asinh
            acosh atanh erf erfc erfinv sinc hypot xlogy logaddexp lgamma digamma special_i0 copysign heaviside
            floor_divide remainder fmod where masked_fill masked_fill_ eq ne lt le gt ge logical_and logical_or
            logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor bitwise_left_shift
            bitwise_right_shift __and__ __or__ __xor__ __lshift__ __rshift__ isnan isinf isfinite isposinf isneginf
            nan_to_num angle complex polar bucketize searchsorted
        """,
        (OperationKind.ELEMENTWISE, _per_output(2)): "addcmul addcmul_ addcdiv addcdiv_ addr",
        (OperationKind.ELEMENTWISE, _per_output(3)): "lerp lerp_",
        (OperationKind.REDUCTION, _per_input(1)): """
            sum nansum mean amax amin aminmax max min prod any all argmax argmin topk sort argsort median nanmedian
            mode kthvalue count_nonzero histc bincount cumsum cumsum_ cumprod cummax cummin trace
        """,
        (OperationKind.REDUCTION, _per_input(2)): "linalg_vector_norm norm",  # power and sum
        (OperationKind.REDUCTION, _per_input(4)): "var var_mean std std_mean logsumexp logcumsumexp",
    },
)

_ONNX = _table(
    "onnx",
    {
        (OperationKind.NORMALISATION, _per_output(2)): "BatchNormalization",
        (OperationKind.NORMALISATION, _per_output(7)): """
            LayerNormalization GroupNormalization InstanceNormalization MeanVarianceNormalization LRN
        """,
        (OperationKind.NORMALISATION, _per_output(4)): "RMSNormalization LpNormalization SimplifiedLayerNormalization",
        (OperationKind.ACTIVATION, _per_output(1)): """
            Relu LeakyRelu PRelu Elu Celu Selu Gelu Swish Mish Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign
            ThresholdedRelu Clip Shrink
        """,
        (OperationKind.SOFTMAX, _per_output(5)): "Softmax LogSoftmax Hardmax",
        (OperationKind.POOLING, _pooling): "MaxPool AveragePool LpPool",
        (OperationKind.POOLING, _per_input(1)): "GlobalAveragePool GlobalMaxPool GlobalLpPool",
        (OperationKind.RESIZE, _onnx_resize): "Resize Upsample",
        (OperationKind.RESIZE, _interpolation(4)): "GridSample",
        (OperationKind.ELEMENTWISE, _per_output(1)): """
            Add Sub Mul Div Neg Abs Exp Log Sqrt Pow Reciprocal Max Min Floor Ceil Round Sign Sin Cos Tan Asin Acos Atan
            Sinh Cosh Asinh Acosh Atanh Erf Mod Where Equal Less LessOrEqual Greater GreaterOrEqual And Or Not Xor
            BitwiseAnd BitwiseOr BitwiseNot BitwiseXor BitShift IsNaN IsInf
        """,
        (OperationKind.ELEMENTWISE, _per_output(2)): "QuantizeLinear DequantizeLinear",  # scale and shift
        (OperationKind.ELEMENTWISE, _per_input(4)): "DynamicQuantizeLinear",  # both extremes, scale and shift
        (OperationKind.ELEMENTWISE, _sum_of_inputs): "Sum Mean",
        (OperationKind.REDUCTION, _per_input(1)): """
            ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ArgMax ArgMin TopK CumSum CumProd
        """,
        (OperationKind.REDUCTION, _per_input(2)): "ReduceL2 ReduceSumSquare ReduceLogSum",
        (OperationKind.REDUCTION, _per_input(4)): "ReduceLogSumExp",
    },
)

_ONNXRUNTIME = _table(
    "com.microsoft",
    {
        (OperationKind.NORMALISATION, _per_output(8)): "SkipLayerNormalization",  # the sum before
        (OperationKind.NORMALISATION, _per_output(5)): "SkipSimplifiedLayerNormalization",
        (OperationKind.ACTIVATION, _per_output(1)): "Gelu FastGelu QuickGelu QLinearSigmoid QLinearLeakyRelu",
        (OperationKind.ACTIVATION, _per_output(2)): "BiasGelu",
        (OperationKind.SOFTMAX, _per_output(5)): "QLinearSoftmax",
        (OperationKind.SOFTMAX, _per_output(6)): "BiasSoftmax",
        (OperationKind.POOLING, _per_input(1)): "QLinearGlobalAveragePool",
        (OperationKind.POOLING, _pooling): "QLinearAveragePool",
        (OperationKind.ELEMENTWISE, _per_output(1)): "BiasAdd QLinearAdd QLinearMul",
        (OperationKind.ELEMENTWISE, _per_output(2)): "QuantizeLinear DequantizeLinear",
    },
)

OTHER_OPERATIONS: dict[str, tuple[OperationKind, Formula]] = {**_ATEN, **_ONNX, **_ONNXRUNTIME}
"""From an operator's name to what its operations belong to and how many they are."""

_FREE_ATEN = """
    view _unsafe_view reshape _reshape_alias _reshape_copy as_strided as_strided_ t t_ transpose transpose_ permute
    movedim expand squeeze squeeze_ unsqueeze unsqueeze_ select slice narrow split split_with_sizes unsafe_split
    unsafe_split_with_sizes chunk unbind unfold detach detach_ alias diagonal diag_embed lift lift_fresh
    lift_fresh_copy view_as_real view_as_complex real imag conj _conj _conj_physical resolve_conj cat stack clone
    contiguous copy copy_ _to_copy to repeat repeat_interleave roll flip rot90 pad constant_pad_nd reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d gather index
    _unsafe_index index_select index_put index_put_ _unsafe_index_put index_copy index_copy_ index_fill index_fill_
    index_add index_add_ scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ masked_scatter
    embedding one_hot tile slice_scatter select_scatter diagonal_scatter tril tril_ triu triu_ tril_indices
    triu_indices max_unpool2d max_unpool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle im2col col2im
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_zeros new_ones new_full zeros
    zeros_like ones ones_like full full_like arange linspace logspace eye scalar_tensor fill fill_ zero zero_ resize_
    set_ dropout native_dropout bernoulli bernoulli_ rand rand_like randn randn_like randint randint_like randperm
    normal normal_ uniform_ exponential_ multinomial sym_size sym_stride sym_numel sym_storage_offset
    _assert_async _assert_scalar _assert_tensor_metadata
"""
_FREE_ONNX = """
    Reshape Flatten Squeeze Unsqueeze Identity Dropout Transpose Concat Split Slice Gather GatherElements GatherND
    ScatterElements ScatterND Expand Tile Pad Cast CastLike Shape Size Constant ConstantOfShape Range DepthToSpace
    SpaceToDepth NonZero OneHot EyeLike Trilu BitCast CenterCropPad Col2Im Compress ReverseSequence Scatter
    TensorScatter MaxUnpool RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Optional
    OptionalGetElement OptionalHasElement SequenceConstruct SequenceAt SequenceLength SequenceEmpty SequenceInsert
    SequenceErase SplitToSequence ConcatFromSequence BlackmanWindow HammingWindow HannWindow
"""
WITHOUT_OPERATIONS = frozenset(
    [f"aten.{name}" for name in _FREE_ATEN.split()]
    + [f"onnx.{name}" for name in _FREE_ONNX.split()]
    + ["com.microsoft.QLinearConcat"]
)
"""Operators that move, make or rename numbers."""
