"""What the devices that run torch models share: a model in place, an input, a call, errors that help."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from latency.errors import LatencyError, MeasurementError


def pci_bus_id(index: int) -> str:
    """Return where a CUDA device of torch's is plugged in, as the driver writes it: `00000000:3B:00.0`.

    The same device for everybody, whereas numbers depend on who counts, and on `CUDA_VISIBLE_DEVICES`.
    """
    found: Any = torch.cuda.get_device_properties(index)  # torch's types leave these attributes out
    return f"{found.pci_domain_id:08X}:{found.pci_bus_id:02X}:{found.pci_device_id:02X}.0"


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Run the block with this many of torch's intra-operator threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def placed(model: nn.Module, device: torch.device, dtype: torch.dtype, *, channels_last: bool) -> nn.Module:
    """Return `model` itself if it lies as wanted, else a copy that does; `model` is never changed."""
    tensors = [*model.parameters(), *model.buffers()]
    if not channels_last and all(
        tensor.device == device and (tensor.dtype == dtype or not tensor.is_floating_point()) for tensor in tensors
    ):
        return model
    moved = copy.deepcopy(model).to(device=device, dtype=dtype)
    if channels_last:
        moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def example_input(
    shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, *, channels_last: bool = False
) -> torch.Tensor:
    """Return normally distributed numbers, equal at each call; global generators are not used."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return numbers.contiguous(memory_format=torch.channels_last) if channels_last else numbers


def weights_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared memory counted once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*model.parameters(), *model.buffers())
    }
    return sum(storages.values())


@contextmanager
def failures_explained(where: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what a model raises in the block into a `MeasurementError` that says what to check."""
    try:
        yield
    except LatencyError:
        raise
    except Exception as fault:
        # torch on the CPU raises a plain RuntimeError.
        is_too_large = isinstance(fault, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(fault)
        hint = (
            "It needs more memory than there is: use a smaller batch_size or input"
            if is_too_large
            else "Check that the model takes such an input and runs there"
        )
        raise MeasurementError(
            f"the model failed on {where} with an input of shape {shape}: {fault}. {hint}"
        ) from fault


@contextmanager
def interrupted_after(
    time_limit_s: float, model: nn.Module, clock: Callable[[], float] = time.perf_counter
) -> Iterator[None]:
    """Stop `model` at the first of its modules that starts after the time limit.

    For the first call of a measurement, where nobody knows yet how long the model takes; the calls that
    are timed run without it. What happens within one module, a long loop say, is not stopped.

    Raises:
        MeasurementError: From within the block, when the time is up.
    """
    modules, deadline = set(model.modules()), clock() + time_limit_s

    def look_at_clock(module: nn.Module, args: Any) -> None:
        if module in modules and clock() > deadline:
            raise MeasurementError(
                f"one inference takes over {time_limit_s:g} s and was stopped at a {type(module).__name__}. "
                "Give more time (time_limit_s), a smaller input or a smaller batch_size"
            )

    hook = register_module_forward_pre_hook(look_at_clock)
    try:
        yield
    finally:
        hook.remove()
