"""Peak memory as the allocators saw it.

Peak memory of one inference = parameters + buffers + input + the largest sum of everything else that was
allocated at once: activations, the output, and what operators allocate to work in.
"""

import os
from collections.abc import Callable, Iterable

import torch
from torch._C._profiler import _ExtraFields_Allocation
from torch.autograd.profiler import profile


def peak_allocated_cpu(call: Callable[[], object]) -> int:
    """Return the most bytes that `call` had allocated at once on the CPU.

    The profiler's allocation events tell, so this knows nothing of operators. Memory that was there before
    counts neither when it is used nor when it is freed. Make one call before: the first one also allocates
    what libraries keep.
    """
    # The profiler's tracing library announces each start and stop on stderr unless told otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(use_kineto=False, profile_memory=True) as profiler:
        result = call()
    del result
    return peak_of(_cpu_allocations(profiler))


def peak_of(allocations: Iterable[tuple[int, int]]) -> int:
    """Return the largest sum alive at once.

    Args:
        allocations: Address and bytes in order of time, bytes negative where it was freed; addresses that
            were not allocated before are left out.
    """
    alive: dict[int, int] = {}
    total = peak = 0
    for address, n_bytes in allocations:
        if n_bytes > 0:
            alive[address] = n_bytes
            total += n_bytes
            peak = max(peak, total)
        else:
            total -= alive.pop(address, 0)
    return peak


def _cpu_allocations(profiler: profile) -> list[tuple[int, int]]:
    allocations = []
    results = profiler.kineto_results
    assert results is not None  # noqa: S101 - the profiler has stopped
    waiting = list(results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        fields = event.extra_fields
        if isinstance(fields, _ExtraFields_Allocation) and fields.device.type == "cpu":
            allocations.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    allocations.sort(key=lambda allocation: allocation[0])
    return [(address, n_bytes) for _, address, n_bytes in allocations]


def peak_allocated_cuda(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that `call` had allocated at once through torch's allocator on `device`.

    Blocks count as allocated, rounded to 512 bytes, not as reserved from the driver. Make one call before:
    the first one also allocates the libraries' workspaces, which stay.
    """
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before
