"""Do scores depend on the processor's instruction set? The quickstart's candidates under three, beside another seed."""

import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from experiments.common import machine, parser, report
from experiments.instruction_sets.training import scores

# What oneDNN, torch's own kernels and MKL may use.
_SSE41 = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


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


def difference(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Return how far two scores of a candidate lie apart: the mean over candidates, and the largest."""
    apart = [abs(one - other) for one, other in zip(first, second, strict=True)]
    return {"mean": statistics.mean(apart), "largest": max(apart)}


def main() -> None:
    """Train the candidates under each instruction set, and under another seed, and compare."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    arguments.add_argument("--n-candidates", type=int, default=8)
    options = arguments.parse_args()
    what = (options.config, (0,), options.n_candidates)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        both_seeds = (options.config, (0, 1), options.n_candidates)
        own, other_seed = scores_under({}, root / "shared" / "own", *both_seeds)  # makes teacher and encoder for all
        (sse41,) = scores_under(_SSE41, root / "shared" / "sse41", *what)
        (avx2,) = scores_under(_AVX2, root / "shared" / "avx2", *what)
        (avx2_throughout,) = scores_under(_AVX2, root / "avx2" / "avx2", *what)
        seed_throughout = (options.config, (1,), options.n_candidates, 1)
        (other_seed_throughout,) = scores_under({}, root / "seed" / "own", *seed_throughout)
    result = {
        "config": str(options.config),
        "scores": {
            "own": own,
            "AVX2": avx2,
            "SSE41": sse41,
            "AVX2, teacher and encoder too": avx2_throughout,
            "own, another seed": other_seed,
            "own, another seed, teacher and encoder too": other_seed_throughout,
        },
        "differences": {
            "own, AVX2": difference(own, avx2),
            "own, SSE41": difference(own, sse41),
            "AVX2, SSE41": difference(avx2, sse41),
            "own, another seed": difference(own, other_seed),
            "own, AVX2; teacher and encoder too": difference(own, avx2_throughout),
            "own, another seed; teacher and encoder too": difference(own, other_seed_throughout),
        },
        "machine": machine(),
    }
    report(result, options)


if __name__ == "__main__":
    main()
