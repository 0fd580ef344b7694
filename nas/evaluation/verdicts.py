"""Which verdict a candidate gets, and when it gets none: every rule stands here.

The evaluator asks after each stage and at the end, executors after an attempt that ended without a verdict.
"""

import dataclasses
import traceback
from collections.abc import Collection, Mapping

from nas.errors import InputError
from nas.evaluation.base import PrunedError
from nas.evaluation.events import Ended, Event, Job
from nas.values.objectives import violations
from nas.values.records import Failure, RecordState

MAX_ATTEMPTS = 2
"""How often a candidate is tried whose process dies, hangs, or runs out of memory."""

_MEMORY_ERRORS = ("MemoryError:", "OutOfMemoryError:")  # begin a reason: Python's, torch's of its CUDA allocator
_MEMORY_TEXTS = (  # stand anywhere in one: RuntimeErrors of torch and of the libraries that it calls
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",  # cuDNN 9
    "DEVICE_ALLOCATION_FAILED",
    "std::bad_alloc",
)


def after_readings(job: Job, metrics: Mapping[str, float]) -> Ended | None:
    """Return INFEASIBLE if `metrics`, all that is known so far, break a bound of the job; else `None`."""
    broken = violations(job.constraints, metrics)
    return Ended(job.candidate.id, RecordState.INFEASIBLE, job.attempt, violations=broken) if broken else None


def after_error(job: Job, stage: str, error: Exception) -> Ended:
    """Return the verdict on a candidate in whose stage `error` was raised. Called while the error is handled.

    Raises:
        InputError: `error` itself, if it is one: a fault of the user's that every candidate would meet.
    """
    if isinstance(error, InputError):
        raise error
    if isinstance(error, PrunedError):
        return Ended(job.candidate.id, RecordState.PRUNED, job.attempt, pruning=error.pruning)
    failure = Failure(stage, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Ended(job.candidate.id, RecordState.FAILED, job.attempt, failure=failure)


def after_all_stages(job: Job, metrics: Collection[str], required: frozenset[str]) -> Ended:
    """Return COMPLETE, or FAILED if a required metric is missing."""
    if missing := required.difference(metrics):
        failure = Failure("metrics", f"no stage gave {', '.join(sorted(missing))}", "")
        return Ended(job.candidate.id, RecordState.FAILED, job.attempt, failure=failure)
    return Ended(job.candidate.id, RecordState.COMPLETE, job.attempt)


def after_lost_attempt(job: Job, reason: str) -> Job | Ended:
    """Return the job of the next attempt, or FAILED after the last.

    Args:
        job: An attempt of it ended without a verdict.
        reason: Why; continues "in the last one ...".
    """
    if job.attempt < MAX_ATTEMPTS:
        return dataclasses.replace(job, attempt=job.attempt + 1)
    text = f"given up after {job.attempt} attempts; in the last one {reason}"
    return Ended(job.candidate.id, RecordState.FAILED, job.attempt, failure=Failure("execution", text, ""))


def memory_fault(event: Event) -> str | None:
    """Return why the attempt is lost if it ran out of memory; such an end is no verdict yet."""
    if not isinstance(event, Ended) or event.failure is None:
        return None
    reason = event.failure.reason
    is_out_of_memory = reason.startswith(_MEMORY_ERRORS) or any(text in reason for text in _MEMORY_TEXTS)
    return f"it ran out of memory: {reason}" if is_out_of_memory else None
