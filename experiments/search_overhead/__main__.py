"""What does the search itself cost, beside the evaluations? 1,500 near-free ones in 30 generations of 50."""

import statistics
import tempfile
import time
from pathlib import Path

from experiments.common import parser, report
from experiments.search_overhead.functions import N_VALUES, squared_distance, squared_distance_to_top
from nas.controllers import Nsga2, SearchProblem
from nas.evaluation import Evaluator, FunctionStage
from nas.execution import SerialExecutor
from nas.listeners.live import PlotListener, TensorBoardListener
from nas.search.listener import SearchListener, SearchView
from nas.search.loop import Search
from nas.search.parts import SearchParts
from nas.store.run_folder import RunFolder
from nas.values.objectives import Direction, Objective
from search_spaces.spaces.integers import Integers

N_GENES = 20


class GenerationClock(SearchListener):
    """Notes when each generation ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_start(self, search: SearchView) -> None:
        """Note when the first one starts."""
        self.times.append(time.perf_counter())

    def on_batch(self, search: SearchView) -> None:
        """Note when one ends."""
        self.times.append(time.perf_counter())


def main() -> None:
    """Run the search and report its times."""
    arguments = parser(__doc__ or "").parse_args()
    space = Integers(n_genes=N_GENES, n_values=N_VALUES)
    functions = {"near_zero": squared_distance, "near_top": squared_distance_to_top}
    stages = tuple(FunctionStage(name, function) for name, function in functions.items())
    objectives = tuple(Objective(name, Direction.MINIMIZE) for name in functions)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        with RunFolder.write(Path(temporary) / "run") as folder:
            folder.store.set_fact("objectives", [{"metric": o.metric, "direction": o.direction} for o in objectives])
            parts = SearchParts(
                problem=SearchProblem(space, objectives, seed=0),
                constraints=(),
                controller=Nsga2(population_size=50, n_generations=30),
                measuring=Evaluator({space.name: space}, (), None),
                working=Evaluator({space.name: space}, stages, None, frozenset(functions)),
                executor=SerialExecutor(),
            )
            clock = GenerationClock()
            Search(parts, folder, [PlotListener(), TensorBoardListener(), clock]).run()
            n_evaluations = len(folder.store.records())
        total_s = time.perf_counter() - start
    generations = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    report(
        {
            "total_s": total_s,
            "early_generation_s": statistics.median(generations[1:6]),
            "late_generation_s": statistics.median(generations[-5:]),
            "n_evaluations": n_evaluations,
        },
        arguments,
    )


if __name__ == "__main__":
    main()
