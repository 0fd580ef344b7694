"""The costs of random genotypes, measured before the search asks for its first candidate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from latency.timing.conditions import undisturbed_ms
from nas.controllers.base import SearchProblem
from nas.evaluation.base import Need, Stage
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Reading
from nas.execution.base import Executor
from nas.search.listener import SearchListener
from nas.torch_tools import torch_threads
from nas.values.records import Candidate
from search_spaces.genotype import Genotype

# Genotypes whose costs fix the reference point where nothing else does. The worst of 8 normally distributed costs and a
# tenth of their range lie 1.7 standard deviations above the mean: at most one network in twenty costs more. (16 would
# leave out one in sixty, for twice the time on the device.)
SAMPLE_SIZE = 8
_MAX_DRAWS = 20 * SAMPLE_SIZE

PROGRESS_NAME = "reference sample"

SampledCosts = dict[str, Any]
"""One genotype: its `genes`, the `metrics` measured so far, the `stages` that are done and the `failure`, if any."""


def sample_costs(
    problem: SearchProblem,
    evaluators: Sequence[Evaluator],
    executor: Executor,
    *,
    metrics: frozenset[str],
    stored: Sequence[SampledCosts],
    store: Callable[[Sequence[SampledCosts]], None],
    listener: SearchListener,
) -> list[SampledCosts]:
    """Measure random genotypes by those stages of `evaluators` that give `metrics` and need no training.

    Args:
        problem: Its space is sampled, within the bounds that cost nothing to check where that can be done.
        evaluators: Their stages; the first one's settings count.
        executor: Where devices are.
        metrics: What is asked for.
        stored: What an earlier process stored; it is not measured again.
        store: Keeps the sample as far as it got; called after each reading.
        listener: Gets messages and progress.
    """
    stages = _stages_for(metrics, [stage for part in evaluators for stage in part.stages])
    evaluator = dataclasses.replace(evaluators[0], stages=stages, required=frozenset())
    rows = [{**_unmeasured(row["genes"]), **row} for row in stored] or [_unmeasured(g.genes) for g in _draw(problem)]
    listener.on_message(f"Measuring the costs of {len(rows)} sampled networks to fix the reference point.")
    for position, row in enumerate(rows):
        listener.on_progress(PROGRESS_NAME, position, len(rows))

        def record(event: Event, row: SampledCosts = row) -> None:
            if _changes(event, row, listener):
                store(rows)

        if row["failure"] is None and not {stage.name for stage in stages} <= set(row["stages"]):
            candidate = Candidate.create(problem.space, problem.space.genotype(row["genes"]), problem.seed)
            job = Job(candidate, metrics=row["metrics"], stages_done=frozenset(row["stages"]))
            with torch_threads(1):
                executor.measure(evaluator, [job], record)
    listener.on_progress(PROGRESS_NAME, len(rows), len(rows))
    return rows


def _stages_for(metrics: frozenset[str], stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return those that give `metrics`, with all before one that reads what earlier ones gave; none that trains."""
    possible = [stage for stage in stages if Need.DATA not in stage.needs]
    wanted = [bool(stage.provides & metrics) for stage in possible]
    last_reader = max((n for n, stage in enumerate(possible) if wanted[n] and stage.reads_metrics), default=-1)
    return tuple(stage for n, stage in enumerate(possible) if wanted[n] or n < last_reader)


def _changes(event: Event, row: SampledCosts, listener: SearchListener) -> bool:
    """Add a reading or a failure to `row`; return whether the event held one."""
    if isinstance(event, Reading):
        # What disturbs a reading must not widen the hypervolume.
        costs = {o.metric: undisturbed_ms(o.value, o.conditions) for o in event.observations}
        row["metrics"] = {**row["metrics"], **costs}
        row["stages"] = sorted({*row["stages"], *(o.stage for o in event.observations)})
    elif isinstance(event, Ended) and event.failure is not None:
        row["failure"] = f"{event.failure.stage}: {event.failure.reason}"
        listener.on_message(f"A sampled network failed in {row['failure']}")
    else:
        return False
    return True


def _draw(problem: SearchProblem) -> list[Genotype]:
    """Return different genotypes; those beyond the cheap bounds, which no front holds, only for want of others."""
    rng, space = np.random.default_rng([problem.seed, 1]), problem.space
    drawn: dict[Genotype, bool] = {}
    for _ in range(_MAX_DRAWS):
        genotype = space.canonical(space.sample(rng))
        if genotype not in drawn:
            drawn[genotype] = problem.keeps_cheap_bounds(genotype)
        if sum(drawn.values()) == SAMPLE_SIZE:
            break
    return sorted(drawn, key=lambda genotype: not drawn[genotype])[:SAMPLE_SIZE]


def _unmeasured(genes: Sequence[int]) -> SampledCosts:
    return {"genes": list(genes), "metrics": {}, "stages": [], "failure": None}
