"""The costs of random genotypes, measured before the search asks for its first candidate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas.controllers.base import SearchProblem
from nas.evaluation.base import Need
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job, Reading
from nas.execution.base import Executor
from nas.torch_tools import torch_threads
from nas.values.records import Candidate

_SAMPLE_SIZE = 16  # genotypes whose costs fix the reference point where nothing else does


def sample_costs(
    problem: SearchProblem,
    evaluators: Sequence[Evaluator],
    executor: Executor,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Measure random genotypes by all stages of `evaluators` that need no training.

    Args:
        problem: Its space is sampled.
        evaluators: Their stages; the first one's settings count.
        executor: Where devices are.
        report: Callback for messages.

    Returns:
        For each its `genes` and, by name, the `metrics` that could be measured.
    """
    rng = np.random.default_rng([problem.seed, 1])
    space = problem.space
    stages = tuple(stage for part in evaluators for stage in part.stages if Need.DATA not in stage.needs)
    evaluator = dataclasses.replace(evaluators[0], stages=stages, required=frozenset())
    genotypes = {space.canonical(space.sample(rng)): None for _ in range(_SAMPLE_SIZE)}
    report(f"Measuring the costs of {len(genotypes)} sampled networks to fix the reference point.")
    sample = []
    for genotype in genotypes:
        metrics: dict[str, float] = {}

        def collect(event: Event, metrics: dict[str, float] = metrics) -> None:
            if isinstance(event, Reading):
                metrics.update({o.metric: o.value for o in event.observations})
            elif isinstance(event, Ended) and event.failure is not None:
                report(f"A sampled network failed in {event.failure.stage}: {event.failure.reason}")

        with torch_threads(1):
            executor.measure(evaluator, [Job(Candidate.create(space, genotype, problem.seed))], collect)
        sample.append({"genes": genotype.genes, "metrics": metrics})
    return sample
