"""Does a search survive thousands of evaluations of which every sixth does harm, and lose, repeat or leak nothing?"""

import argparse
import json
import operator
import os
import sqlite3
import statistics
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nas
from experiments.common import machine, parser
from experiments.soak.faults import FAULTS, MARK, fault_of
from nas.values.records import RecordState

RESULTS = Path(__file__).with_name("results.json")
_SUMS = ("n", "lost", "duplicated", "misjudged", "orphans")
_WORST = ("memory_growth", "rate_change")
_SAMPLE_EVERY_S = 1.0


def configuration(n: int, seed: int, timeout_s: float) -> dict[str, Any]:
    """Return a search of `n` random candidates in two worker processes."""
    return {
        "name": "soak",
        "seed": seed,
        "search_space": {"kind": "integers", "n_genes": 12, "n_values": 8},
        "metrics": {"score": {"function": "experiments.soak.faults:score"}},
        "objectives": [{"metric": "score", "direction": "maximize"}],
        "reference_point": {"score": 0},
        "controller": {"kind": "random", "n_candidates": n, "batch_size": 20},
        "scheduling": "steady_state",
        "execution": {"kind": "process_pool", "n_workers": 2, "candidate_timeout_s": timeout_s},
        "tensorboard": False,
    }


class MemoryWatch(threading.Thread):
    """Reads every second how much memory this process and all below it hold."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.readings: list[int] = []
        self._ended = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        while not self._ended.wait(_SAMPLE_EVERY_S):
            self.readings.append(resident_bytes(os.getpid()))

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of all its descendants; 0 for one that has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))


def orphans(mark: str) -> int:
    """Return how many children that a killed worker left behind still live."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            continue
    return found


def judged(store: Path, n: int, share: float) -> dict[str, int]:
    """Count what is lost, duplicated and misjudged, straight from the file that a search has left."""
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        asked = dict(connection.execute("SELECT candidate, seed FROM asks WHERE role = 'candidate'"))
        verdicts = connection.execute("SELECT candidate, state FROM verdicts").fetchall()
        readings = connection.execute("SELECT candidate FROM observations WHERE metric = 'score'").fetchall()
    finally:
        connection.close()
    states = dict(verdicts)
    with_reading = [candidate for (candidate,) in readings]
    complete = {candidate for candidate, state in states.items() if state == RecordState.COMPLETE}
    lost = (n - len(asked)) + len(asked.keys() - states.keys()) + len(complete - set(with_reading))
    repeated = (len(verdicts) - len(states)) + (len(with_reading) - len(set(with_reading)))
    misjudged = sum(
        states.get(candidate, deserved) != deserved
        for candidate, seed in asked.items()
        for deserved in [_deserved(seed, share)]
    )
    return {"n": len(asked), "lost": lost, "duplicated": repeated, "misjudged": misjudged}


def _deserved(seed: int, share: float) -> str:
    kind = fault_of(seed, share)
    return str(FAULTS[kind][1] if kind else RecordState.COMPLETE)


def ending_times(store: Path) -> list[float]:
    """Return when each candidate ended, in order."""
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return [time for (time,) in connection.execute("SELECT ended_at FROM verdicts ORDER BY ended_at")]
    finally:
        connection.close()


def change(first: float, last: float) -> float:
    """Return the relative change."""
    return last / first - 1


def quarters(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the first and the last quarter."""
    size = max(2, len(values) // 4)
    return values[:size], values[-size:]


def soak(n: int, seed: int, share: float, timeout_s: float) -> dict[str, Any]:
    """Run one search of `n` candidates and return its counts."""
    os.environ["SOAK_SHARE"] = str(share)
    watch = MemoryWatch()
    watch.start()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run = Path(folder) / "run"
        nas.run_search(configuration(n, seed, timeout_s), run, trust_code=True)
        watch.stop()
        counts = judged(run / "store.sqlite", n, share)
        times = ending_times(run / "store.sqlite")
    gaps = [statistics.median(map(operator.sub, part[1:], part)) for part in quarters(times)]
    memory = [statistics.median(part) for part in quarters(watch.readings)]
    return {
        **counts,
        "orphans": orphans(str(os.getpid())),
        "memory_growth": change(*memory),
        "rate_change": change(1 / gaps[0], 1 / gaps[1]),
    }


def added(totals: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return the sums of the counts, and of the two changes the worse one."""
    if not totals:
        return result
    sums = {name: totals[name] + result[name] for name in _SUMS}
    return {**sums, **{name: max(totals[name], result[name], key=abs) for name in _WORST}}


def main() -> None:
    """Evaluate, add to earlier results if asked to, and print."""
    options = _parser().parse_args()
    stored: dict[str, Any] = {}
    if options.append and RESULTS.exists():
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    totals = {name: stored[name] for name in (*_SUMS, *_WORST)} if stored else {}
    totals = added(totals, soak(options.n, options.seed + totals.get("n", 0), options.share, options.timeout_s))
    kept = json.dumps({**totals, "machine": machine()}, indent=2) + "\n"
    for path in ([RESULTS] if options.append else []) + ([options.save] if options.save else []):
        path.write_text(kept, encoding="utf-8")
    print(json.dumps(totals, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in totals.items()))


def _parser() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n", type=int, default=5000, help="candidates of this search")
    arguments.add_argument("--share", type=float, default=0.02, help="of each of the eight faults; at most 0.125")
    arguments.add_argument("--timeout-s", type=float, default=5.0, help="of a candidate: what hangs costs as much")
    arguments.add_argument("--append", action="store_true", help=f"add to {RESULTS.name}")
    arguments.add_argument("--seed", type=int, default=0)
    return arguments


if __name__ == "__main__":
    main()
