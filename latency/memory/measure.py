"""Peak memory as the allocators saw it.

Peak memory of one inference = parameters + buffers + input + the largest sum of everything else that was
allocated at once: activations, the output, and what operators allocate to work in.
"""

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch._C._profiler import _ExtraFields_Allocation
from torch.autograd.profiler import profile


@dataclass(frozen=True)
class AllocationPeak:
    """The most bytes allocated at once, on the CPU.

    Attributes:
        n_bytes: All of them.
        without_scratch_bytes: The same peak if operators took no memory for themselves: what an operator allocates
            and frees before it returns is left out.
        scratch_bytes: The most that such memory came to at once.
    """

    n_bytes: int
    without_scratch_bytes: int
    scratch_bytes: int


def peak_allocated_cpu(call: Callable[[], object]) -> int:
    """Return the most bytes that `call` had allocated at once on the CPU.

    The profiler's allocation events tell, so this knows nothing of operators. Memory that was there before
    counts neither when it is used nor when it is freed. Make one call before: the first one also allocates
    what libraries keep.
    """
    return peak_of((event.address, event.n_bytes) for event in _cpu_allocations(call))


def allocation_peak_cpu(call: Callable[[], object], operators: Collection[str]) -> AllocationPeak:
    """Return the peak of `call` on the CPU with and without its operators' scratch.

    Args:
        call: As for `peak_allocated_cpu`.
        operators: The names whose inner workings are scratch, such as `"aten.convolution"`: those of a graph's
            operators. What composite operators hold between these is no scratch.
    """
    events = _cpu_allocations(call, frozenset(operators))
    scratch = _scratch_of(events)
    return AllocationPeak(
        peak_of((event.address, event.n_bytes) for event in events),
        peak_of((event.address, event.n_bytes) for at, event in enumerate(events) if at not in scratch),
        peak_of((event.address, event.n_bytes) for at, event in enumerate(events) if at in scratch),
    )


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


class _Allocation(NamedTuple):
    """An event of the allocator.

    Attributes:
        time_ns: When it happened.
        address: Of the memory.
        n_bytes: Negative where it was freed.
        operator: Identifies the call of an operator within which it happened; `None` outside of all.
    """

    time_ns: int
    address: int
    n_bytes: int
    operator: int | None


def _cpu_allocations(call: Callable[[], object], operators: Collection[str] = ()) -> list[_Allocation]:
    # The profiler's tracing library announces each start and stop on stderr unless told otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(use_kineto=False, profile_memory=True) as profiler:
        result = call()
    del result
    results = profiler.kineto_results
    assert results is not None  # noqa: S101 - the profiler has stopped
    allocations = []
    waiting: list[tuple[Any, int | None]] = [(event, None) for event in results.experimental_event_tree()]
    while waiting:
        event, operator = waiting.pop()
        if operator is None and event.name.replace("::", ".") in operators:
            operator = event.id
        waiting.extend((child, operator) for child in event.children)
        fields = event.extra_fields
        if isinstance(fields, _ExtraFields_Allocation) and fields.device.type == "cpu":
            allocations.append(_Allocation(event.start_time_ns, fields.ptr, fields.alloc_size, operator))
    allocations.sort(key=lambda allocation: allocation.time_ns)
    return allocations


def _scratch_of(events: list[_Allocation]) -> set[int]:
    """Return the positions of the events of memory that came and went within one call of an operator."""
    scratch: set[int] = set()
    allocated_at: dict[int, int] = {}
    for at, event in enumerate(events):
        if event.n_bytes > 0:
            allocated_at[event.address] = at
            continue
        start = allocated_at.pop(event.address, None)
        if start is not None and event.operator is not None and event.operator == events[start].operator:
            scratch |= {start, at}
    return scratch


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
