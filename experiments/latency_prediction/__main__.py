"""How well is a device's latency foretold from a few readings, with and without other devices that are known?"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from latency.predictors import (
    Blend,
    BoostedTrees,
    Encodings,
    GaussianProcess,
    KnownDevices,
    LatencyPredictor,
    Ridge,
    SequencePredictor,
    TableEncoder,
    measured_in_rounds,
)
from latency.predictors.blend import default_members
from latency.predictors.quality import scores

N_SCORED = 1_000  # rows, at most a third of the table
N_POOL = 4_000  # rows that readings may be of
N_OF_SOURCE = 900  # readings of each known device, of rows that are not scored
PREFIX = "lat_ms_"
METHODS: dict[str, Callable[[Encodings], LatencyPredictor]] = {
    "blend": lambda reference: Blend(default_members(reference)),
    "gaussian_process": GaussianProcess,
    "ridge": lambda reference: Ridge(),
    "boosted_trees": lambda reference: BoostedTrees(),
    "lstm": lambda reference: SequencePredictor("lstm"),
    "attention": lambda reference: SequencePredictor("attention"),
}


class Trial:
    """One split of a table: rows that are scored, and rows that readings may be of.

    Args:
        encodings: Of all rows.
        latencies: Of all rows, by device.
        seed: Of the split.
    """

    def __init__(self, encodings: Encodings, latencies: Mapping[str, np.ndarray], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        order = self._rng.permutation(len(encodings))
        n = min(N_SCORED, len(order) // 3)
        order = order[: n + N_POOL]
        self._encodings = encodings.take(order)
        self._latencies = {name: values[order] for name, values in latencies.items()}
        self._scored, self._rest = np.arange(n), np.arange(n, len(order))

    def known(self, sources: list[str]) -> "Trial":
        """Add what the devices `sources` say, from readings of rows that are not scored."""
        rows = self._rest[:N_OF_SOURCE]
        shown = self._encodings.take(rows)
        fitted = {}
        for name in sources:
            fitted[name] = GaussianProcess(shown)
            fitted[name].fit(shown, self._latencies[name][rows])
        self._encodings = KnownDevices(fitted, shown).extended(self._encodings)
        return self

    def run(self, target: str, sizes: list[int], method: str) -> dict[int, dict[str, float]]:
        """Return the scores by number of readings; each larger set holds the smaller ones."""
        latencies = self._latencies[target]
        pool = self._encodings.take(self._rest)
        sizes = sorted({min(size, len(self._rest)) for size in sizes})
        found = {}
        for measured, readings in measured_in_rounds(pool, sizes, lambda rows: latencies[self._rest[rows]], self._rng):
            predictor = METHODS[method](pool)
            predictor.fit(pool.take(measured), readings)
            said = predictor.predict(self._encodings.take(self._scored))
            found[len(measured)] = scores(said.mean_ms, said.low_ms, said.high_ms, latencies[self._scored])
        return found


def experiment(
    table: Path, targets: list[str], sources: list[str], sizes: list[int], seeds: int, method: str
) -> dict[str, Any]:
    """Return medians over seeds by target and number of readings, and their means over targets."""
    with np.load(table, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file}
    names = [name for name in arrays if name.startswith(PREFIX)]
    targets = names if targets == ["all"] else [_column(name, names) for name in targets]
    known = [] if sources == ["none"] else names if sources == ["all"] else [_column(name, names) for name in sources]
    latencies = {name: arrays[name].astype(np.float64) for name in names}
    encodings = TableEncoder.of(arrays).encode(arrays["ops"])
    result: dict[str, dict[str, dict[str, float]]] = {}
    for target in targets:
        usable = np.flatnonzero(np.isfinite(latencies[target]) & (latencies[target] > 0))
        rows = encodings.take(usable)
        readings = {name: values[usable] for name, values in latencies.items()}
        runs = []
        for seed in range(seeds):
            trial = Trial(rows, readings, seed)
            others = [name for name in known if name != target]
            runs.append((trial.known(others) if others else trial).run(target, sizes, method))
        result[target] = {
            str(size): {key: round(statistics.median(run[size][key] for run in runs), 4) for key in run_keys(runs[0])}
            for size in runs[0]
        }
    mean = {
        size: {key: round(statistics.fmean(found[size][key] for found in result.values()), 4) for key in first}
        for size, first in next(iter(result.values())).items()
    }
    return {"targets": result, "mean": mean}


def run_keys(run: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Return the names of the scores."""
    return list(next(iter(run.values())))


def _column(name: str, names: list[str]) -> str:
    found = name if name.startswith(PREFIX) else PREFIX + name
    if found not in names:
        raise SystemExit(f"the table has no column {found!r}; it has {', '.join(names)}")
    return found


def main() -> None:
    """Run the experiment from the command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--table", type=Path, required=True, metavar="FILE", help="npz with `ops` and `lat_ms_*`")
    arguments.add_argument("--targets", default="all", help="columns, with or without lat_ms_, separated by commas")
    arguments.add_argument("--sources", default="none", help="columns of known devices, `all`, or `none`")
    arguments.add_argument("--samples", default="10,20,50,100,900", help="numbers of readings")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--method", choices=list(METHODS), default="blend")
    options = arguments.parse_args()
    start = time.perf_counter()
    result = experiment(
        options.table,
        options.targets.split(","),
        options.sources.split(","),
        sorted(int(size) for size in options.samples.split(",")),
        options.seeds,
        options.method,
    )
    report({**result, "seconds": round(time.perf_counter() - start, 1)}, options)


if __name__ == "__main__":
    main()
