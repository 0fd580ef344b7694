"""Parameters and multiply-adds of a model, counted exactly from its operators.

Convention, that of the papers which report "multiply-adds": only convolutions, matrix products and attention
count, each product with its addition as one; FLOPs are 2 x `n_macs`. Biases, normalisation (in eval mode a
convolution absorbs it), activations, pooling, resizing, sums and data movement count 0. An operator that
neither has a formula here nor is known to count 0 is never taken for 0: it is listed as uncounted.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from latency.errors import UncountedOperatorError
from latency.graph import Operator, OperatorGraph, TensorInfo


@dataclass(frozen=True)
class Complexity:
    """What a model costs on any device, for one sample.

    Attributes:
        n_params: All parameters, frozen and unused ones too, shared ones once.
        n_macs: Multiply-adds of one inference; FLOPs are twice as many.
        macs_by_operator: E.g. `{"aten.convolution": 1000}`, those above 0.
        macs_by_module: By the dotted path of the innermost module, those above 0.
        params_by_module: By the dotted path of the module that holds them (a shared one's first).
        uncounted: Operators without a formula, sorted; where there are any, `n_macs` is only a part.
    """

    n_params: int
    n_macs: int
    macs_by_operator: Mapping[str, int]
    macs_by_module: Mapping[str, int]
    params_by_module: Mapping[str, int]
    uncounted: tuple[str, ...] = ()

    def require_complete(self) -> "Complexity":
        """Return this count if it is whole.

        Raises:
            UncountedOperatorError: Naming the operators without a formula.
        """
        if self.uncounted:
            raise UncountedOperatorError(
                f"no formula for {', '.join(self.uncounted)}: n_macs would be a part of the truth. "
                "Add the formula to latency.complexity, or build the model without them",
                self.uncounted,
            )
        return self


def count(graph: OperatorGraph) -> Complexity:
    """Count the parameters and multiply-adds of a model traced with a batch of 1.

    Raises:
        ValueError: If `graph` is of another batch.
    """
    if graph.batch_size != 1:
        raise ValueError(f"graph must be traced with a batch of 1, got {graph.batch_size}")
    by_operator: Counter[str] = Counter()
    by_module: Counter[str] = Counter()
    uncounted = set()
    for operator in graph.operators:
        if formula := _FORMULAS.get(operator.name):
            n_macs = formula(operator, graph)
            by_operator[operator.name] += n_macs
            by_module[operator.module] += n_macs
        elif operator.name not in _WITHOUT_MACS:
            uncounted.add(operator.name)
    params_by_module: Counter[str] = Counter()
    for name, tensor in graph.parameters.items():
        params_by_module[name.rpartition(".")[0]] += graph.tensors[tensor].n_elements
    return Complexity(
        n_params=params_by_module.total(),
        n_macs=by_operator.total(),
        macs_by_operator=dict(by_operator),
        macs_by_module=dict(by_module),
        params_by_module=dict(params_by_module),
        uncounted=tuple(sorted(uncounted)),
    )


def count_model(model: nn.Module, input_shape: tuple[int, ...]) -> Complexity:
    """Trace `model` and count it, for one sample of `input_shape`, `(C, H, W)`.

    Raises:
        ValueError: If `model` is in train mode, or a size is not positive.
        TracingError: If the model cannot be traced.
    """
    return count(OperatorGraph.from_torch(model, input_shape))


def _input(operator: Operator, graph: OperatorGraph, position: int) -> TensorInfo:
    return graph.tensors[operator.inputs[position]]


def _convolution(operator: Operator, graph: OperatorGraph) -> int:
    # A weight is (C_out, C_in / groups, *kernel), or (C_in, C_out / groups, *kernel) transposed. Either
    # way each element of the side that its first axis stands for meets the rest of the weight once.
    weight = _input(operator, graph, 1)
    is_transposed = operator.attributes.get("transposed", False)
    side = _input(operator, graph, 0) if is_transposed else graph.tensors[operator.outputs[0]]
    return side.n_elements * weight.n_elements // weight.shape[0]


def _product(first: int, second: int) -> Callable[[Operator, OperatorGraph], int]:
    """Return the formula of `(..., m, k) @ (..., k, n)` for operands at these positions."""

    def formula(operator: Operator, graph: OperatorGraph) -> int:
        left, right = _input(operator, graph, first), _input(operator, graph, second)
        n_columns = right.shape[-1] if len(right.shape) > 1 else 1
        return left.n_elements * n_columns

    return formula


def _linear(operator: Operator, graph: OperatorGraph) -> int:
    return _input(operator, graph, 0).n_elements * _input(operator, graph, 1).shape[0]


def _attention(operator: Operator, graph: OperatorGraph) -> int:
    # query (..., heads, L, E), key (..., S, E), value (..., S, V): the scores, then their sums of values
    query, key, value = (_input(operator, graph, position) for position in range(3))
    n_rows = query.n_elements // query.shape[-1]
    return n_rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_FORMULAS: dict[str, Callable[[Operator, OperatorGraph], int]] = {
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
}

_NORMALISATION = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    _batch_norm_with_update native_layer_norm native_group_norm _fused_rms_norm
"""
_ACTIVATIONS = """
    relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel elu elu_ celu celu_ selu selu_ gelu gelu_ silu
    silu_ mish mish_ sigmoid sigmoid_ log_sigmoid_forward hardsigmoid hardsigmoid_ hardswish hardswish_
    hardtanh hardtanh_ tanh tanh_ softplus threshold threshold_ glu _softmax _safe_softmax _log_softmax
    clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ rrelu_with_noise hardshrink softshrink
"""
_POOLING_AND_RESIZING = """
    max_pool2d_with_indices max_pool3d_with_indices max_unpool2d avg_pool1d avg_pool2d avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d
    upsample_nearest2d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
    _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa grid_sampler_2d pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im
"""
_ELEMENTWISE = """
    add add_ sub sub_ rsub mul mul_ div div_ neg neg_ abs abs_ exp exp_ log log_ log1p sqrt sqrt_ rsqrt
    rsqrt_ pow pow_ square reciprocal reciprocal_ maximum minimum floor ceil round trunc sign sin cos erf
    floor_divide remainder fmod addcmul addcmul_ addcdiv addcdiv_ lerp lerp_ where masked_fill
    masked_fill_ eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or
    bitwise_not bitwise_xor isnan isinf isfinite nan_to_num tril triu
"""
_REDUCTIONS = """
    sum mean var var_mean std std_mean amax amin max min prod any all argmax argmin topk sort
    linalg_vector_norm logsumexp norm
"""
_DATA_MOVEMENT = """
    view _unsafe_view reshape _reshape_alias as_strided t transpose transpose_ permute expand squeeze
    squeeze_ unsqueeze unsqueeze_ select slice narrow split split_with_sizes unsafe_split
    unsafe_split_with_sizes chunk unbind unfold detach detach_ alias diagonal lift lift_fresh
    lift_fresh_copy view_as_real view_as_complex cat stack clone contiguous copy copy_ _to_copy to repeat
    roll flip rot90 pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
    replication_pad2d gather index index_select index_put index_put_ index_add index_add_ scatter scatter_
    scatter_add embedding one_hot tile slice_scatter select_scatter
"""
_CREATION = """
    empty empty_like empty_strided new_empty new_empty_strided new_zeros new_ones new_full zeros
    zeros_like ones ones_like full full_like arange linspace eye scalar_tensor fill fill_ zero zero_
    dropout native_dropout bernoulli bernoulli_ rand rand_like randn randn_like sym_size sym_stride
    sym_numel _assert_async
"""
_WITHOUT_MACS = frozenset(
    f"aten.{name}"
    for group in (
        _NORMALISATION,
        _ACTIVATIONS,
        _POOLING_AND_RESIZING,
        _ELEMENTWISE,
        _REDUCTIONS,
        _DATA_MOVEMENT,
        _CREATION,
    )
    for name in group.split()
)
