"""Which kernel computes attention: fused, without the scores in memory, or product by product."""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

_ATTENTION = frozenset(
    {
        functional.scaled_dot_product_attention,
        torch.ops.aten.scaled_dot_product_attention,
        torch.ops.aten.scaled_dot_product_attention.default,
    }
)
# What the native path of an encoder layer computes in place.
_IN_PLACE: dict[Any, Any] = {functional.relu: torch.relu_, functional.gelu: torch.ops.aten.gelu_}


class CpuAttention(TorchFunctionMode):
    """Sends attention on meta tensors to the operators that the CPU would take, which is asked each time.

    Meta tensors alone always take the plain products, whose scores (`L x S` for each head) the CPU's fused kernel never
    holds. `torch.nn.attention.sdpa_kernel` around the trace is followed, as it is when the model runs; so is the native
    path of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`, which holds scores and hidden features once.
    """

    def __init__(self, current_module: Callable[[], nn.Module | None]) -> None:
        """Prepare.

        Args:
            current_module: Returns the module whose code is running.
        """
        super().__init__()
        self._current_module = current_module

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ATTENTION:
            return _attention(*args, **kwargs)
        if func is functional.multi_head_attention_forward:  # calls attention from within, unseen by this mode
            module = self._current_module()
            if isinstance(module, nn.MultiheadAttention) and _is_native(module, args[0], args[1], args[2], kwargs):
                return _native(module, args[0], kwargs.get("need_weights", True), kwargs["average_attn_weights"])
            return _multi_head_attention(*args, **kwargs)
        if func in _IN_PLACE and _is_native_layer(self._current_module()):
            return _IN_PLACE[func](args[0])
        return func(*args, **kwargs)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    if not _is_fused(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None and attn_mask.dtype is torch.bool:  # as the CPU does before its kernel
        zero, minus_infinity = (torch.full((), fill, dtype=query.dtype, device="meta") for fill in (0.0, float("-inf")))
        attn_mask = torch.where(attn_mask, zero, minus_infinity)
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return result


# The same function with another attention: nothing is changed for other threads.
_multi_head_attention = types.FunctionType(
    functional.multi_head_attention_forward.__code__,
    {
        **functional.multi_head_attention_forward.__globals__,
        "scaled_dot_product_attention": _attention,
        "has_torch_function": lambda tensors: False,
    },
    "multi_head_attention_forward",
    functional.multi_head_attention_forward.__defaults__,
)


def _is_fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> bool:
    """Ask torch which kernel it would run on the CPU for tensors of such sizes."""
    if not query.is_meta:
        return False
    with _disable_current_modes():  # the question is none of the model's operators
        twins = [_on_cpu(tensor) for tensor in (query, key, value)]
        mask_twin = None if mask is None else _on_cpu(mask)
        chosen = torch._fused_sdp_choice(
            twins[0], twins[1], twins[2], mask_twin, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return bool(chosen == SDPBackend.FLASH_ATTENTION.value)


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU of the same sizes, whose rows all lie in the memory of one."""
    strides = [0] * tensor.dim()
    if strides:
        strides[-1] = tensor.stride()[-1]
    twin = torch.empty_strided(tensor.size(), strides, dtype=tensor.dtype, device="cpu")
    return twin.requires_grad_(tensor.requires_grad and torch.is_grad_enabled())


def _is_native_layer(module: nn.Module | None) -> bool:
    return (
        isinstance(module, nn.TransformerEncoderLayer)
        and bool(module.activation_relu_or_gelu)
        and module.norm1.eps == module.norm2.eps
        and _has_native_path(module.self_attn)
    )


def _is_native(
    module: nn.MultiheadAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
) -> bool:
    """Return whether `nn.MultiheadAttention` would leave its Python code on the CPU; its conditions, in short."""
    return (
        _has_native_path(module)
        and query.is_meta
        and query is key
        and key is value
        and query.dim() == 3
        and options.get("attn_mask") is None
        and options.get("key_padding_mask") is None
    )


def _has_native_path(module: nn.MultiheadAttention) -> bool:
    has_usual_weights = (
        module.in_proj_weight is not None
        and module.in_proj_bias is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )
    return (
        has_usual_weights
        and module.batch_first
        and module.num_heads % 2 == 0
        and not module.training
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled()
        and torch.backends.mha.get_fastpath_enabled()
    )


def _native(
    module: nn.MultiheadAttention, query: torch.Tensor, need_weights: bool, average_weights: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute what `torch._native_multi_head_attention` does, in its steps and with its memory.

    Args:
        module: Whose weights to take.
        query: `(L, N, E)`; key and value are the same.
        need_weights: Whether to return the scores.
        average_weights: Whether to return their mean over the heads.
    """
    n_steps, n_samples, width = query.shape
    n_heads = module.num_heads
    rows = query.transpose(0, 1).reshape(n_samples * n_steps, width)
    projected = torch.mm(rows, module.in_proj_weight.t()).add_(module.in_proj_bias)
    heads = projected.view(n_samples, n_steps, 3, n_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
    del projected
    q, k, v = heads.view(3, n_samples * n_heads, n_steps, -1).unbind()
    q.mul_((width // n_heads) ** -0.5)
    scores = torch.bmm(q, k.transpose(1, 2))
    torch.ops.aten._softmax.out(scores, -1, False, out=scores)
    torch.ops.aten.bmm.out(scores, v, out=q)
    weights = scores.view(n_samples, n_heads, n_steps, n_steps) if need_weights else None
    del scores
    together = q.view(n_samples, n_heads, n_steps, -1).transpose(1, 2).reshape(n_samples * n_steps, width)
    result = torch.addmm(module.out_proj.bias, together, module.out_proj.weight.t())
    del together
    if weights is not None and average_weights:
        weights = weights.sum(1).div_(n_heads)
    return result.view(n_samples, n_steps, width).transpose(0, 1), weights
