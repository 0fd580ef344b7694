"""Does a search by predicted latency find what one by measured latency finds? On a table, where both are known."""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from experiments.tabular_search.__main__ import controller_losses
from experiments.tabular_search.benchmark import Benchmark
from latency.predictors import Blend, TableEncoder, measured_in_rounds
from latency.predictors.blend import default_members

N_POOL = 4_000  # rows that measurements may be of
FIRST = 10


def foretold(table: Path, column: str, n: int, seed: int) -> np.ndarray:
    """Return the latencies of all rows of a table, foretold from `n` of them, chosen by the method."""
    with np.load(table, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file}
    encodings = TableEncoder.of(arrays).encode(arrays["ops"])
    truth = arrays[column].astype(np.float64)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(truth))[:N_POOL]
    pool = encodings.take(rows)
    sizes = sorted({min(FIRST << doublings, n) for doublings in range(20)})
    *_, (measured, readings) = measured_in_rounds(pool, sizes, lambda chosen: truth[rows[chosen]], rng)
    blend = Blend(default_members(pool))
    blend.fit(pool.take(measured), readings)
    said = blend.predict(encodings).mean_ms
    said[rows[measured]] = readings
    return said


def main() -> None:
    """Run both searches under each seed."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--table", type=Path, required=True, metavar="FILE")
    arguments.add_argument("--error", default="acc200_cifar10_valid", metavar="COLUMN", help="an accuracy in percent")
    arguments.add_argument("--latency", required=True, metavar="COLUMN")
    arguments.add_argument("--usable", type=float, default=5.0, metavar="POINTS", help="above the best error")
    arguments.add_argument("--measurements", type=int, default=100, metavar="N")
    arguments.add_argument("--trainings", type=int, default=100, metavar="N")
    arguments.add_argument("--seeds", type=int, default=20, metavar="N")
    options = arguments.parse_args()
    benchmark = Benchmark.load(options.table, options.error, [options.latency], options.usable)
    shares: dict[str, list[float]] = {"measured": [], "predicted": []}
    for seed in range(options.seeds):
        told = benchmark.losses.copy()
        told[:, 1] = foretold(options.table, options.latency, options.measurements, seed)
        for name, problem in (("measured", benchmark), ("predicted", dataclasses.replace(benchmark, told=told))):
            losses, _ = controller_losses("surrogate_nsga2", problem, seed, options.trainings)
            shares[name].append(benchmark.truth.hypervolume_share(losses))
    medians = {name: statistics.median(values) for name, values in shares.items()}
    result: dict[str, Any] = {
        "hypervolume": medians,
        "hypervolume_quartiles": {name: np.quantile(values, (0.25, 0.75)).tolist() for name, values in shares.items()},
        "lost_share": 1 - medians["predicted"] / medians["measured"],
        "latency": options.latency,
        "measurements": options.measurements,
        "trainings": options.trainings,
        "seeds": options.seeds,
    }
    report(result, options)


if __name__ == "__main__":
    main()
