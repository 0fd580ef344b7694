"""How many candidates an hour does the engine train, beside the usual loop, at which scores?"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from experiments.common import parser, report
from experiments.evaluation_throughput.usual_loop import train_and_score
from nas import assembly
from nas.config import RunConfig, load_config
from nas.data.cache import load_array
from nas.evaluation import Event, Job, Reading
from nas.search.listener import SearchListener
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate

_GROUP = 4  # candidates that each way trains before the next way has its turn

CONFIGS = {
    "synthetic_faces": ("configs/quickstart.yaml", ()),
    "fashion_mnist": ("configs/fashion_mnist.yaml", ("data.n_train=8192", "data.n_validation=2048")),
    "camvid": (
        "configs/camvid.yaml",
        (
            "data.image_size=[60, 80]",
            "teacher.recipe.epochs=2",
            "pretraining.epochs=2",
            "training.stages=null",
            "training.drop_rule=null",
            "training.epochs=2",
            "execution={kind: process_pool, n_workers: 2, n_threads: 1}",
        ),
    ),
}
"""By data set the configuration, and what a CPU changes of it to be done in minutes."""


class Comparison:
    """Trains the same candidates in three ways.

    Args:
        config: Data, teacher, space and recipe.
        folder: Of a run that is thrown away.
    """

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        listener = SearchListener()
        setting = assembly.training_setting(config, folder)
        if setting is None or config.training is None or config.teacher is None:
            raise ValueError("config must have data, training and a teacher")
        self._setting, self._recipe = setting, config.training.recipe
        self._distillation = assembly.distillation(config)
        plan = assembly.training_plan(config, config.search_space.instance, self._setting, folder.artifacts)
        assert plan.teacher and plan.outputs  # noqa: S101 - the configurations distil, from stored outputs
        plan.teacher.make(listener)
        self._teacher = plan.teacher.load().to(self._setting.device)
        start = time.perf_counter()
        plan.outputs.make(listener)
        self.seconds_once = time.perf_counter() - start
        self._logits = torch.from_numpy(load_array(plan.outputs.path))
        parts = assembly.search_parts(config, folder, listener)
        self.metric = self._setting.task.main_metric
        self._executor = parts.executor
        self._evaluator = replace(parts.working, required=frozenset({self.metric}))
        self._problem = parts.problem

    def __enter__(self) -> "Comparison":
        self._executor.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.__exit__(*exception)

    def candidates(self, n: int) -> list[Candidate]:
        """Return `n` random candidates inside the cheap bounds."""
        space, rng = self._problem.space, np.random.default_rng(self._problem.seed)
        found: dict[Candidate, None] = {}
        while len(found) < n:
            genotype = space.canonical(space.sample(rng))
            if self._problem.keeps_cheap_bounds(genotype):
                found[Candidate.create(space, genotype, self._problem.seed)] = None
        return list(found)

    def under_another_seed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the same networks, to be trained from other weights in another order of images."""
        seed = self._problem.seed + 1
        return [Candidate.create(self._problem.space, candidate.genotype, seed) for candidate in candidates]

    def usual(self, candidates: Sequence[Candidate], *, has_stored_logits: bool = False) -> list[float]:
        """Return the scores of the usual loop, one candidate at a time on all cores."""
        return [self._usual(candidate, has_stored_logits) for candidate in candidates]

    def _usual(self, candidate: Candidate, has_stored_logits: bool) -> float:
        scores = train_and_score(
            self._evaluator.subject(Job(candidate)).model,
            self._recipe,
            self._setting,
            seed=candidate.seed,
            distillation=self._distillation,
            teacher=None if has_stored_logits else self._teacher,
            stored_logits=self._logits if has_stored_logits else None,
        )
        return scores[self.metric]

    def engine(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the scores of the engine, with the configuration's executor."""
        found: dict[str, float] = {}

        def take(event: Event) -> None:
            if isinstance(event, Reading):
                found.update({o.candidate: o.value for o in event.observations if o.metric == self.metric})

        self._executor.run(self._evaluator, [Job(candidate) for candidate in candidates], take)
        return [found[candidate.id] for candidate in candidates]


def main() -> None:
    """Train and compare."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", choices=CONFIGS, default="synthetic_faces")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--n-candidates", type=int, default=24)
    arguments.add_argument("--set", action="append", default=[], help="change the configuration, as nas search does")
    options = arguments.parse_args()
    file, cut = CONFIGS[options.data]
    overrides = [*(cut if options.device == "cpu" else ()), f"training.device={options.device}", *options.set]
    with (
        tempfile.TemporaryDirectory() as temporary,
        RunFolder.write(Path(temporary) / "run") as folder,
        Comparison(load_config(file, overrides), folder) as comparison,
    ):
        result = compare(comparison, options.n_candidates)
    report({"data": options.data, "device": options.device, "overrides": overrides, **result}, options)


def compare(comparison: Comparison, n_candidates: int) -> dict[str, Any]:
    """Return seconds and scores of the three ways, which take turns."""
    candidates = comparison.candidates(n_candidates)
    ways: dict[str, Callable[[Sequence[Candidate]], list[float]]] = {
        "usual": comparison.usual,
        "cached_teacher": lambda part: comparison.usual(part, has_stored_logits=True),
        "engine": comparison.engine,
    }
    comparison.engine(candidates[:2])  # starts the worker processes
    seconds, scores = dict.fromkeys(ways, 0.0), {name: list[float]() for name in ways}
    for start in range(0, n_candidates, _GROUP):
        group = candidates[start : start + _GROUP]
        for name, train in ways.items():
            started = time.perf_counter()
            scores[name] += train(group)
            seconds[name] += time.perf_counter() - started
    again = comparison.engine(comparison.under_another_seed(candidates))
    return {
        **{f"seconds_per_candidate_{name}": total / n_candidates for name, total in seconds.items()},
        "ratio": seconds["usual"] / seconds["engine"],
        "ratio_of_cached_teacher": seconds["cached_teacher"] / seconds["engine"],
        **{f"mean_score_{name}": statistics.mean(values) for name, values in scores.items()},
        "kendall_tau": float(kendalltau(scores["usual"], scores["engine"]).statistic),
        "kendall_tau_of_two_seeds": float(kendalltau(again, scores["engine"]).statistic),  # noise allows no more
        "seconds_of_teacher_outputs_once": comparison.seconds_once,
        "n_candidates": n_candidates,
        "scores": scores,
    }


if __name__ == "__main__":
    main()
