"""Do scores depend on the processor's instruction set? The quickstart's candidates under three, beside another seed."""

import multiprocessing
import os
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from experiments.common import machine, parser, report
from experiments.instruction_sets.training import scores
from nas.config import load_config

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
