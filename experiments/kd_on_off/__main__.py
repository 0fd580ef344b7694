"""Does knowledge distillation raise the quickstart's scores? The same candidates, with and without, paired by seed."""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from nas import assembly
from nas.config import load_config
from nas.evaluation import Event, Job, Reading
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate

_MAIN_METRIC = "mean_iou"


def scores(config_file: Path, overrides: list[str], folder: Path, n_candidates: int) -> dict[str, float]:
    """Return by candidate the score of its quick training, as the search would give it."""
    config = load_config(config_file, overrides)
    with RunFolder.write(folder) as run:
        parts = assembly.search_parts(config, run)
        rng = np.random.default_rng(config.seed)
        space = config.search_space.instance
        genotypes = dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(4 * n_candidates))
        kept = [genotype for genotype in genotypes if parts.problem.keeps_cheap_bounds(genotype)]
        jobs = [Job(Candidate.create(space, genotype, config.seed)) for genotype in kept[:n_candidates]]
        found: dict[str, float] = {}

        def take(event: Event) -> None:
            if isinstance(event, Reading):
                found.update({o.candidate: o.value for o in event.observations if o.metric == _MAIN_METRIC})

        with parts.executor:
            parts.executor.run(parts.working, jobs, take)
    return {job.candidate.id: found[job.candidate.id] for job in jobs}


def bootstrap_interval(differences: list[float], n_resamples: int = 10_000) -> list[float]:
    """Return the 95 % percentile interval of the mean of `differences`."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, size=(n_resamples, len(differences))).mean(axis=1)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def main() -> None:
    """Train the candidates both ways and compare."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    arguments.add_argument("--n-candidates", type=int, default=24)
    arguments.add_argument("--set", action="append", default=[], help="change the configuration, as nas search does")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with_kd = scores(options.config, options.set, root / "with", options.n_candidates)
        off = [*options.set, "distillation.enabled=false"]
        without = scores(options.config, off, root / "without", options.n_candidates)
    differences = [with_kd[candidate] - without[candidate] for candidate in without]
    result: dict[str, Any] = {
        "config": str(options.config),
        "overrides": options.set,
        "n_candidates": len(differences),
        "mean_score_with": statistics.mean(with_kd.values()),
        "mean_score_without": statistics.mean(without.values()),
        "mean_difference": statistics.mean(differences),
        "mean_difference_interval_95": bootstrap_interval(differences),
        "n_better_with": sum(difference > 0 for difference in differences),
        "scores": {candidate: [with_kd[candidate], without[candidate]] for candidate in without},
    }
    report(result, options)


if __name__ == "__main__":
    main()
