"""How busy are the workers of a cluster, generation by generation and steadily? And what does Ray cost a candidate?"""

import heapq
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import parser, report
from nas.controllers import RandomSearch, SearchProblem
from nas.errors import InputError
from nas.evaluation import Evaluator, Event, FunctionStage, Job, Subject
from nas.execution import Executor, RayExecutor
from nas.execution.base import JobQueue
from nas.search.loop import Search
from nas.search.parts import Scheduling, SearchParts
from nas.store.run_folder import RunFolder
from nas.values.objectives import Direction, Objective
from nas.values.records import Candidate
from search_spaces.spaces.integers import Integers

N_WORKERS = (8, 64, 1024)
N_EACH = 8  # candidates for each worker
MEDIAN_S, SIGMA = 60.0, 0.5  # of a candidate's log-normal duration: nine in ten take 26 to 137 s
N_RAY_CANDIDATES = 200
SPACE = Integers(n_genes=8, n_values=8)


def duration_s(candidate: Candidate) -> float:
    """Return how long a candidate takes, from its own seed: the same in every schedule."""
    return float(MEDIAN_S * np.exp(SIGMA * np.random.default_rng(candidate.seed).standard_normal()))


def gene_sum(subject: Subject) -> float:
    """Return the sum of the genes; stands for a training."""
    return float(sum(subject.genotype.genes))


class SimulatedCluster(Executor):
    """Works on `n_workers` candidates at a time, on a clock of its own that jumps from end to end.

    Attributes:
        now_s: The clock.
        busy_s: Of all workers together.
        n_done: Candidates that ended.
    """

    measures_apart = True

    def __init__(self, n_workers: int) -> None:
        self.now_s = self.busy_s = 0.0
        self.n_done = 0
        self._n_workers = n_workers

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`, each when its simulated duration is over."""
        queue = JobQueue(jobs, on_event)
        at_work: list[tuple[float, str, Job]] = []
        while True:
            while len(at_work) < self._n_workers and (job := queue.take(len(at_work))) is not None:
                seconds = duration_s(job.candidate)
                self.busy_s += seconds
                heapq.heappush(at_work, (self.now_s + seconds, job.candidate.id, job))
            if not at_work:
                return
            self.now_s, _, job = heapq.heappop(at_work)
            evaluator.run(job, on_event)
            self.n_done += 1


def simulate(n_workers: int, scheduling: Scheduling, n_waves: int) -> dict[str, float]:
    """Run a whole search, store and all, on a simulated cluster.

    Args:
        n_workers: Of the cluster.
        scheduling: The mode.
        n_waves: Candidates for each worker in one generation.
    """
    cluster = SimulatedCluster(n_workers)
    evaluator = Evaluator({SPACE.name: SPACE}, (FunctionStage("sum", gene_sum),), None, frozenset({"sum"}))
    parts = SearchParts(
        problem=SearchProblem(SPACE, (Objective("sum", Direction.MINIMIZE),), seed=0),
        constraints=(),
        controller=RandomSearch(n_candidates=N_EACH * n_workers, batch_size=n_waves * n_workers),
        measuring=Evaluator({SPACE.name: SPACE}, (), None, is_last=False),
        working=evaluator,
        executor=cluster,
        given_reference_point={"sum": 100.0},
        scheduling=scheduling,
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary, RunFolder.write(Path(temporary) / "run") as folder:
        Search(parts, folder).run()
    assert cluster.n_done == N_EACH * n_workers  # noqa: S101 - else the figure is of something else
    return {
        "utilisation": round(cluster.busy_s / (n_workers * cluster.now_s), 3),
        "hours": round(cluster.now_s / 3600, 3),
        "loop_ms_per_candidate": round((time.perf_counter() - start) / cluster.n_done * 1000, 2),
    }


def ray_overhead() -> dict[str, Any]:
    """Return what Ray costs for a candidate that costs nothing itself, on a cluster of one worker on this machine."""
    evaluator = Evaluator({SPACE.name: SPACE}, (FunctionStage("sum", gene_sum),), None, frozenset({"sum"}))
    rng = np.random.default_rng(0)
    genotypes = {SPACE.sample(rng) for _ in range(N_RAY_CANDIDATES + 1)}
    first, *jobs = (Job(Candidate.create(SPACE, genotype, 0)) for genotype in genotypes)
    try:
        with RayExecutor(address="local") as executor:
            start = time.perf_counter()
            executor.run(evaluator, [first], lambda event: None)
            started = time.perf_counter()
            executor.run(evaluator, jobs, lambda event: None)
            ended = time.perf_counter()
    except InputError as error:
        return {"not_measured": str(error)}
    in_process = time.perf_counter()
    for job in jobs:
        evaluator.run(job, lambda event: None)
    alone_s = time.perf_counter() - in_process
    return {
        "start_s": round(started - start, 2),
        "ms_per_candidate": round((ended - started - alone_s) / len(jobs) * 1000, 2),
        "n_candidates": len(jobs),
    }


def main() -> None:
    """Simulate, measure, report."""
    arguments = parser(__doc__ or "").parse_args()
    result: dict[str, Any] = {"median_s": MEDIAN_S, "sigma": SIGMA, "candidates_per_worker": N_EACH}
    for n_workers in N_WORKERS:
        result[f"workers_{n_workers}"] = {
            "generational": simulate(n_workers, Scheduling.GENERATIONAL, 1),
            "generational_4_per_worker": simulate(n_workers, Scheduling.GENERATIONAL, 4),
            "steady_state": simulate(n_workers, Scheduling.STEADY_STATE, 1),
        }
    result["ray"] = ray_overhead()
    report(result, arguments)


if __name__ == "__main__":
    main()
