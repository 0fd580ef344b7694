"""How networks lie in memory while they are trained, and the guard that keeps their gradients right in that layout.

oneDNN, torch's library for convolutions on CPUs, writes past its workspace when it computes the weight gradient of a
strided 1x1 convolution of few channels in channels_last memory: fewer than 8 on a processor with AVX2, fewer than 16 on
one with AVX-512 if images are large enough. The process crashes, hangs or goes on with a wrong gradient
(https://github.com/uxlfoundation/oneDNN/issues/6035).
`python -m nas.training.convolution_scan` shows which convolutions fail on a machine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_N_SAFE_CHANNELS = 16  # oneDNN's block of channels under AVX-512; under AVX2 it is 8
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


def lay_out(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Move `network` in place to `device`, in the memory layout that networks are trained and scored in."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class RightGradients(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context for a backward pass: weight gradients on a CPU are right, whatever instructions the processor has.

    The gradient of an unsafe convolution is computed from the pixels that its stride visits, which is the same sum.
    Convolutions are recognised where torch computes their gradients: it does not matter whether a network calls
    them by modules or functions, in scripted, exported or recomputed code. Has no effect on other devices.

    Attributes:
        n_unsafe: Unsafe convolutions met so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_unsafe = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operator."""
        if func is _CONVOLUTION_BACKWARD and _needs_care(args):
            self.n_unsafe += 1
            return _gradients_of_visited_pixels(*args)
        return func(*args, **(kwargs or {}))


class GradientGuard:
    """Keeps the gradients of one training right, at no cost for networks without unsafe convolutions.

    `RightGradients` costs some microseconds for each operator of a backward pass. It is left out after the first pass
    if that met no unsafe convolution, and no module could be one that this pass left out by chance.

    Args:
        modules: All modules that are trained.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = tuple(modules)
        self._on_cpu = any(p.device.type == "cpu" for module in modules for p in module.parameters(recurse=False))
        self._holds_unsafe = any(_may_be_unsafe(module) for module in modules)
        self._is_first_pass = True

    @contextmanager
    def backward_pass(self) -> Iterator[None]:
        """Guard one backward pass."""
        if not (self._on_cpu and (self._is_first_pass or self._holds_unsafe)):
            yield
            return
        with RightGradients() as mode:
            yield
        self._holds_unsafe = self._holds_unsafe or mode.n_unsafe > 0
        self._is_first_pass = False


def _needs_care(arguments: Sequence[Any]) -> bool:
    """Return whether the weight gradient of an unsafe convolution on a CPU is asked for."""
    weight, stride, padding, output_mask = arguments[2], arguments[4], arguments[5], arguments[10]
    return output_mask[1] and weight.device.type == "cpu" and _is_unsafe(weight.shape, stride, padding)


def _is_unsafe(weight_shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Return whether oneDNN may get the weight gradient of a convolution wrong.

    Args:
        weight_shape: `(out, in / groups, *kernel)`, or `(in, out / groups, *kernel)` of a transposed convolution, whose
            weight gradient is that of a convolution from its outputs to its inputs.
        stride: For each dimension of the kernel, or one for all.
        padding: Likewise.
    """
    return weight_shape[1] < _N_SAFE_CHANNELS and max(weight_shape[2:]) == 1 and max(stride) > 1 and max(padding) == 0


def _gradients_of_visited_pixels(
    gradient: torch.Tensor,
    read: torch.Tensor,
    weight: torch.Tensor,
    bias_shape: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
    """Return what torch's `convolution_backward` does, for a 1x1 convolution without padding.

    Args:
        gradient: Of the output, `(B, out, *image)`.
        read: The input, `(B, in, *image)`.
        weight: `(out, in / groups, *kernel)`; of a transposed convolution `(in, out / groups, *kernel)`.
        bias_shape: `(out,)`.
        stride: For each dimension of the image, or one for all, as are `padding`, `dilation` and `output_padding`.
        padding: Zeros.
        dilation: Without effect.
        transposed: Whether the convolution is.
        output_padding: Of a transposed convolution.
        groups: Of channels.
        output_mask: Whether the gradients of input, weight and bias are asked for; the weight's is.
    """
    for_read, _, for_bias = output_mask
    strides = stride if len(stride) == weight.ndim - 2 else [*stride] * (weight.ndim - 2)
    visited: Any = (..., *(slice(None, None, step) for step in strides))
    pixels = (gradient[visited], read) if transposed else (gradient, read[visited])
    ones, zeros = [1] * len(strides), [0] * len(strides)
    options = (padding, dilation, transposed)
    of_weight = _CONVOLUTION_BACKWARD(*pixels, weight, None, ones, *options, zeros, groups, [False, True, False])[1]
    of_read = of_bias = None
    if for_read:
        places = (*options, output_padding, groups)
        of_read = _CONVOLUTION_BACKWARD(gradient, read, weight, None, stride, *places, [True, False, False])[0]
    if for_bias:  # torch would compute the weight's gradient along with it
        of_bias = gradient.sum(dim=[0, *range(2, gradient.ndim)])
    return of_read, of_weight, of_bias


def _may_be_unsafe(module: nn.Module) -> bool:
    """Return whether `module` is an unsafe convolution, or could use a parameter of its own as the weight of one."""
    if isinstance(module, nn.modules.conv._ConvNd):
        padding = (0,) if isinstance(module.padding, str) else module.padding
        return _is_unsafe(module.weight.shape, module.stride, padding)
    return any(p.ndim > 2 and _is_unsafe(p.shape, (2,), (0,)) for p in module.parameters(recurse=False))
