"""Do verdicts and front stay the same on a busy machine? The same candidates idle, idle again, and under load."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nas
from experiments.common import parser, report
from latency.timing.clocks import cpu_conditions
from nas.store.run import Run

LATENCY = "latency_ms"
CONFIG: dict[str, Any] = {
    "name": "busy_machine",
    "seed": 0,
    "data": {"kind": "synthetic_faces", "image_size": 64, "n_train": 16, "n_validation": 8},
    "search_space": {"kind": "segmentation_cell", "n_cells": 2, "n_branches": 2},
    "devices": {"cpu": {"kind": "torch_cpu", "n_threads": 1, "batch_size": 1}},
    "metrics": {"quality": {"function": "experiments.busy_machine.quality:quality"}},
    "objectives": [
        {"metric": "quality", "direction": "maximize"},
        {"metric": LATENCY, "device": "cpu", "direction": "minimize"},
    ],
    "reference_point": {"quality": 0, LATENCY: 1000},  # no sample: the candidates alone are measured
    "execution": {"kind": "serial"},
    "tensorboard": False,
}


def main() -> None:
    """Find a bound on an idle machine, then search idle, idle again and under load."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n", type=int, default=40, help="candidates")
    arguments.add_argument("--n-busy", type=int, default=4, help="processes that keep the machine busy")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def search(name: str, bound: float | None = None) -> Run:
            nas.run_search(configuration(options.n, bound), Path(folder) / name, trust_code=True)
            return nas.load_run(Path(folder) / name)

        bound = statistics.median(record.metrics[LATENCY] for record in search("unbounded").records)
        loads = {"idle": load_average()}
        idle, again = search("idle", bound), search("idle_again", bound)
        with busy_processes(options.n_busy):
            busy = search("busy", bound)
            loads["busy"] = load_average()
    result = {
        **comparison(idle, busy),
        "idle_again": comparison(idle, again),
        "bound_ms": bound,
        "n_busy": options.n_busy,
        "load_averages": loads,
    }
    report(result, options)


def configuration(n: int, bound: float | None) -> dict[str, Any]:
    """Return a search of `n` random candidates in batches of 10; those over `bound`, in ms, are infeasible."""
    controller = {"kind": "random", "n_candidates": n, "batch_size": min(n, 10)}
    limits = [{"metric": LATENCY, "device": "cpu", "max": bound}] if bound is not None else []
    return {**CONFIG, "controller": controller, "constraints": limits}


@contextlib.contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Keep `n` processes running."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def comparison(one: Run, other: Run) -> dict[str, Any]:
    """Return what differs between two runs of the same candidates, `one` the idle one."""
    pairs = [(record, other.find(record.id)) for record in one.records]
    shifts = {a.id: b.metrics[LATENCY] / a.metrics[LATENCY] - 1 for a, b in pairs}
    fronts = [{record.id for record in run.front} for run in (one, other)]
    return {
        "n": len(pairs),
        "verdicts_equal": sum(a.state is b.state for a, b in pairs),
        "front_equal": fronts[0] == fronts[1],
        "worst_shift": max(shifts.values(), key=abs),
        "median_shift": statistics.median(map(abs, shifts.values())),
        "worst_shift_on_fronts": max((shifts[name] for name in set.union(*fronts)), key=abs),
        "other_verdicts_ms": [[a.metrics[LATENCY], b.metrics[LATENCY]] for a, b in pairs if a.state is not b.state],
        "n_on_front": [len(front) for front in fronts],
        "n_on_both_fronts": len(set.intersection(*fronts)),
        "n_disturbed": [sum(bool(record.undisturbed) for record in run.records) for run in (one, other)],
    }


def load_average() -> float | None:
    """Return the machine's load average over the last minute, where it tells one."""
    average: float | None = cpu_conditions().get("load_average")
    return average


if __name__ == "__main__":
    main()
