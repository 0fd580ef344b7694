"""Small tensors that never change, made once for each device."""

import functools

import torch


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...] | tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return `(n,)` of `values` on `device`; not to be written to.

    Copied to a GPU in every step, they would make the host wait for it, and could not be part of a captured graph.
    """
    return torch.tensor(values, dtype=dtype, device=device)
