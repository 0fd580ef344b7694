"""The trainings of this experiment, in a module that a process of its own can import."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas import assembly
from nas.config import load_config
from nas.evaluation import Event, Job, Reading
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate

_METRIC = "mean_iou"


def scores(
    folder: Path, config_file: Path, seeds: Sequence[int], n_candidates: int, run_seed: int = 0
) -> list[list[float]]:
    """Return for each seed the scores of the same candidates after their quick training.

    Args:
        folder: Of a new run. Runs beside it share their teacher and their encoder with it.
        config_file: Of a segmentation.
        seeds: Of the candidates' trainings.
        n_candidates: How many to draw, inside the limits of the configuration.
        run_seed: Of the trainings of teacher and encoder.
    """
    config = load_config(config_file, [f"seed={run_seed}"])
    with RunFolder.write(folder) as run:
        parts = assembly.search_parts(config, run)
        rng = np.random.default_rng(0)  # the same candidates whatever the seed
        space = config.search_space.instance
        drawn = dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(4 * n_candidates))
        genotypes = [genotype for genotype in drawn if parts.problem.keeps_cheap_bounds(genotype)][:n_candidates]
        candidates = [[Candidate.create(space, genotype, seed) for genotype in genotypes] for seed in seeds]
        found: dict[str, float] = {}

        def take(event: Event) -> None:
            if isinstance(event, Reading):
                found.update({o.candidate: o.value for o in event.observations if o.metric == _METRIC})

        with parts.executor:
            parts.executor.run(parts.working, [Job(candidate) for candidate in itertools.chain(*candidates)], take)
    return [[found[candidate.id] for candidate in of_seed] for of_seed in candidates]
