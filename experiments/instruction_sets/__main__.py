"""Do scores depend on the processor's instruction set? The quickstart's candidates under three, beside another seed."""

import itertools
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import machine, parser, report
from nas import build
from nas.config import load_config
from nas.evaluation import Event, Job, Reading
from nas.records import Candidate
from nas.store import RunFolder

_METRIC = "mean_iou"
_OWN = "own"
# What oneDNN, torch's own kernels and MKL may use.
_LIMITS: dict[str, Mapping[str, str]] = {
    "SSE41": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    _OWN: {},
}


def scores(config_file: Path, seeds: Sequence[int], n_candidates: int) -> list[list[float]]:
    """Return for each seed the candidates' scores after their quick training, teacher and encoder trained before."""
    config = load_config(config_file)
    with tempfile.TemporaryDirectory() as temporary, RunFolder.write(Path(temporary) / "run") as run:
        parts = build.search_parts(config, run)
        rng = np.random.default_rng(config.seed)
        space = build.search_space(config)
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


def scores_under(limits: Mapping[str, str], *arguments: Any) -> list[list[float]]:
    """Return `scores(*arguments)` from a process in whose environment `limits` stand before it imports torch."""
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(scores, *arguments).result()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main() -> None:
    """Train the candidates under each instruction set, and under another seed, and compare."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    arguments.add_argument("--n-candidates", type=int, default=8)
    options = arguments.parse_args()
    seed = load_config(options.config).seed
    found = {}
    for name, limits in _LIMITS.items():
        seeds = (seed, seed + 1) if name == _OWN else (seed,)
        found[name], *other_seed = scores_under(limits, options.config, seeds, options.n_candidates)
    spreads = [max(values) - min(values) for values in zip(*found.values(), strict=True)]
    of_seeds = [abs(ours - other) for ours, other in zip(found[_OWN], other_seed[0], strict=True)]
    result = {
        "config": str(options.config),
        "scores": {**found, "own, another seed": other_seed[0]},
        "between_instruction_sets": {"mean": statistics.mean(spreads), "largest": max(spreads)},
        "between_seeds": {"mean": statistics.mean(of_seeds), "largest": max(of_seeds)},
        "machine": machine(),
    }
    report(result, options)


if __name__ == "__main__":
    main()
