"""Which verdict a candidate gets, and when it gets none: every rule stands here.

The evaluator asks after each stage and at the end, executors after an attempt that ended without a verdict.
"""

import dataclasses
from collections.abc import Collection

from nas.errors import InputError, MachineError
from nas.evaluation.base import PrunedError
from nas.evaluation.events import Ended, Event, Job
from nas.faults import is_machine_fault, is_out_of_memory, machine_error, reason_of, traceback_of
from nas.values.objectives import violations
from nas.values.records import Failure, RecordState

MAX_ATTEMPTS = 2
"""How often a candidate is tried whose process dies, hangs, or runs out of memory; `--retry-failed` begins anew."""


def after_readings(job: Job, *, repeats_follow: bool = False) -> Ended | None:
    """Return INFEASIBLE if what is known so far breaks a bound of the job; else `None`.

    A disturbed reading breaks a bound only by its undisturbed part, and none as long as it will be repeated.

    Args:
        job: With all readings so far.
        repeats_follow: Whether disturbed readings will be repeated.
    """
    metrics = job.metrics
    if repeats_follow:
        metrics = {metric: value for metric, value in metrics.items() if metric not in job.undisturbed}
    broken = violations(job.constraints, metrics, job.undisturbed)
    return Ended(job.candidate.id, RecordState.INFEASIBLE, job.attempt, violations=broken) if broken else None


def after_error(job: Job, stage: str, error: Exception) -> Ended:
    """Return the verdict on a candidate in whose stage `error` was raised. Called while the error is handled.

    Raises:
        InputError: `error` itself, if it is one: a fault of the user's that every candidate would meet.
        MachineError: If `error` tells of a disk, a file system or a GPU that fails.
    """
    if isinstance(error, InputError | MachineError):
        raise error
    if is_machine_fault(error):
        raise machine_error(f"stage {stage!r} of candidate {job.candidate.id}", error) from error
    if isinstance(error, PrunedError):
        return Ended(job.candidate.id, RecordState.PRUNED, job.attempt, pruning=error.pruning)
    failure = Failure(stage, reason_of(error), traceback_of(error))
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
    if job.n_lost + 1 < MAX_ATTEMPTS:
        return dataclasses.replace(job, attempt=job.attempt + 1, n_lost=job.n_lost + 1)
    text = f"given up after {job.attempt} attempts; in the last one {reason}"
    return Ended(job.candidate.id, RecordState.FAILED, job.attempt, failure=Failure("execution", text, ""))


def memory_fault(event: Event) -> str | None:
    """Return why the attempt is lost if it ran out of memory; such an end is no verdict yet."""
    if not isinstance(event, Ended) or event.failure is None:
        return None
    reason = event.failure.reason
    return f"it ran out of memory: {reason}" if is_out_of_memory(reason) else None
