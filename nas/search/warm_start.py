"""Warm start: the best genotypes of earlier runs on the same space, to be asked for first."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.errors import InputError
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.objectives import Objective, to_losses
from nas.values.pareto import non_dominated
from nas.values.records import Record
from search_spaces.base import SearchSpace
from search_spaces.genotype import Genotype

_FACT = "warm_start"


def warm_start(
    folder: RunFolder, runs: Sequence[Path | str], space: SearchSpace, objectives: Sequence[Objective], n: int
) -> tuple[Genotype, ...]:
    """Return the best genotypes of earlier runs, and store them: a resumed run does not need the earlier runs.

    Args:
        folder: Of the new run.
        runs: The folders of the earlier ones; their task or device may be another.
        space: Of the new run.
        objectives: Of the new run. An earlier run is ranked by them if it has all these metrics, else by its own.
        n: How many to return at most, taken from the runs in turn.

    Raises:
        InputError: If there is no such run, or it searched another space or the same with other options.
    """
    stored = folder.store.fact(_FACT)
    if stored is None:
        ranked = [_best_first(Run.load(run), space, objectives) for run in runs]
        taken = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
        found = dict.fromkeys(genotype for genotype in taken if genotype is not None)
        stored = [list(genotype.genes) for genotype in itertools.islice(found, n)]
        folder.store.set_fact(_FACT, stored)
    return tuple(space.genotype(genes) for genes in stored)


def _best_first(run: Run, space: SearchSpace, objectives: Sequence[Objective]) -> list[Genotype]:
    """Return the genotypes of a run's COMPLETE records, front by front."""
    records = [record for record in run.records if record.is_complete]
    if not records:
        raise InputError(f"controller.warm_start: {run.path} holds no complete candidate to start from")
    for record in records:
        _check_space(run, record, space)
    if not all(objective.metric in record.metrics for objective in objectives for record in records):
        objectives = run.objectives
    losses = to_losses(objectives, [record.metrics for record in records])
    left, order = np.arange(len(records)), list[int]()
    while len(left):
        on_front = non_dominated(losses[left])
        order += left[on_front][_spread_out(losses[left[on_front]])].tolist()
        left = left[~on_front]
    return [records[row].candidate.genotype for row in order]


def _spread_out(losses: np.ndarray) -> list[int]:
    """Return the rows of one front, each the farthest from those before it; first the best in the first objective."""
    width = np.ptp(losses, axis=0)
    scaled = losses / np.where(width > 0, width, 1.0)
    order = [int(np.argmin(losses[:, 0]))]
    distances = np.full(len(losses), np.inf)
    while len(order) < len(losses):
        distances = np.minimum(distances, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        distances[order] = -1.0
        order.append(int(np.argmax(distances)))
    return order


def _check_space(run: Run, record: Record, space: SearchSpace) -> None:
    genotype = record.candidate.genotype
    if genotype.space != space.name or space.fingerprint(genotype) != record.candidate.fingerprint:
        raise InputError(
            f"controller.warm_start: {run.path} searched another space than this run's {space.name!r} with its options "
            f"(its candidates are of {genotype.space!r}); only runs on the same space can be started from"
        )
