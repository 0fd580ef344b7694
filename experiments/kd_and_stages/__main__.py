"""Does the whole recipe (KD, pretrained encoder, stages) rank decoders as plain training does, in less time?"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from experiments.common import parser, report
from experiments.kd_and_stages.evaluation import METRIC, evaluate
from nas import assembly
from nas.config import load_config
from nas.evaluation import Job
from nas.files import write_json
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate
from search_spaces import Genotype, ModelSpace, SearchSpace

_N_BINS = 4  # of similar size
_TRUTH_FACTOR = 5  # how many times longer the truth is trained
_TRUTH_SEEDS = (1, 2)  # the recipes are judged with seed 0

_TEACHER = {"kind": "unet", "width": 12, "recipe": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}}
_PRETRAINING = {"epochs": 16, "batch_size": 8, "learning_rate": 0.02}
_KD = {"teacher": _TEACHER, "distillation": {"weight": 1.0, "temperature": 4.0}}
_DECODER = {"epochs": 1, "train": "decoder"}
_WHOLE = {"epochs": 1, "train": "all", "learning_rate": 0.01}


def configuration(n_train: int, training: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, as YAML would give it."""
    return {
        "name": "kd_and_stages",
        "seed": 0,
        "data": {"kind": "synthetic_faces", "image_size": 64, "n_train": n_train, "n_validation": 256},
        "task": {"kind": "segmentation", "class_weights": [1, 1, 1, 5, 5, 5, 5, 3]},
        "search_space": {"kind": "segmentation_cell", "n_cells": 2, "n_branches": 2},
        "training": {"n_threads_alone": 2, "batch_size": 8, "learning_rate": 0.02, **training},
        "objectives": [{"metric": METRIC, "direction": "maximize"}, {"metric": "n_params", "direction": "minimize"}],
        "controller": {"kind": "random"},
        **extra,
    }


def configurations(n_train: int, epochs: int) -> dict[str, dict[str, Any]]:
    """Return the recipes by name, the truth and other ways that were tried among them."""
    plain = {"epochs": epochs}
    pretrained = {**_KD, "pretraining": _PRETRAINING}
    return {
        "plain": configuration(n_train, plain, {}),
        "kd": configuration(n_train, plain, _KD),
        "pretrained": configuration(n_train, plain, pretrained),
        "stages": configuration(n_train, {"stages": [_DECODER]}, pretrained),
        "two_stages": configuration(n_train, {"stages": [_DECODER, _WHOLE]}, pretrained),
        "small_batches": configuration(
            n_train, {"stages": [{**_DECODER, "batch_size": 4, "learning_rate": 0.014}]}, pretrained
        ),
        "high_rate": configuration(n_train, {"stages": [{**_DECODER, "learning_rate": 0.04}]}, pretrained),
        "truth": configuration(n_train, {"epochs": _TRUTH_FACTOR * epochs}, {}),
    }


class Kept:
    """Results by recipe and candidate, in a file if there is one: an experiment that was stopped goes on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._results: dict[str, tuple[float, float]] = {}
        if path is not None and path.exists():
            self._results = json.loads(path.read_text(encoding="utf-8"))

    def get(self, recipe: Mapping[str, Any], candidate: Candidate) -> tuple[float, float] | None:
        """Return score and seconds, if they are known."""
        return self._results.get(self._key(recipe, candidate))

    def add(self, recipe: Mapping[str, Any], candidate: Candidate, result: tuple[float, float]) -> None:
        """Keep score and seconds."""
        self._results[self._key(recipe, candidate)] = result
        if self._path is not None:
            write_json(self._path, self._results)

    @staticmethod
    def _key(recipe: Mapping[str, Any], candidate: Candidate) -> str:
        content = json.dumps(recipe, sort_keys=True)
        return f"{hashlib.sha256(content.encode()).hexdigest()[:16]} {candidate.id}"


def train_all(
    tasks: Sequence[tuple[str, Candidate]], recipes: Mapping[str, dict[str, Any]], kept: Kept, n_workers: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return score and seconds by recipe and candidate; trains what was not kept, `n_workers` at a time."""
    results = {(name, one.id): known for name, one in tasks if (known := kept.get(recipes[name], one))}
    missing = [(name, one) for name, one in tasks if (name, one.id) not in results]
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as open_folders:
        evaluators = {}
        for name in dict.fromkeys(name for name, _ in missing):
            folder = open_folders.enter_context(RunFolder.write(Path(temporary) / name))
            working = assembly.search_parts(load_config(recipes[name]), folder).working
            evaluators[name] = dataclasses.replace(working, required=frozenset())  # costs are not measured here
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(n_workers, mp_context=context) as pool:
            futures = {pool.submit(evaluate, evaluators[name], Job(one)): (name, one) for name, one in missing}
            try:
                for future in concurrent.futures.as_completed(futures):
                    name, one = futures[future]
                    results[name, one.id] = future.result()
                    kept.add(recipes[name], one, future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return results


def n_params(space: SearchSpace, genotype: Genotype) -> int:
    """Return the size of the network."""
    assert isinstance(space, ModelSpace)  # noqa: S101 - the experiment's own space
    model = space.build(genotype, in_channels=3, n_classes=8, seed=0)
    return sum(parameter.numel() for parameter in model.parameters())


def tau(scores: Sequence[float], truth: Sequence[float]) -> float:
    """Return Kendall's tau-b."""
    return float(kendalltau(scores, truth).statistic)


def tau_interval(scores: Sequence[float], truth: Sequence[float], n_resamples: int = 2000) -> list[float]:
    """Return the 95 % percentile interval of tau over resampled candidates."""
    rng = np.random.default_rng(0)
    pairs = np.array([scores, truth])
    resampled = (pairs[:, rng.integers(len(scores), size=len(scores))] for _ in range(n_resamples))
    return [float(value) for value in np.percentile([tau(*pair) for pair in resampled], [2.5, 97.5])]


def difference_interval(
    scores: Sequence[float], others: Sequence[float], truth: Sequence[float], n_resamples: int = 2000
) -> list[float]:
    """Return the 95 % percentile interval of the difference of two taus over resampled candidates, paired."""
    rng = np.random.default_rng(0)
    triples = np.array([scores, others, truth])
    resampled = (triples[:, rng.integers(len(truth), size=len(truth))] for _ in range(n_resamples))
    return [float(value) for value in np.percentile([tau(a, t) - tau(b, t) for a, b, t in resampled], [2.5, 97.5])]


def tau_given_size(scores: Sequence[float], truth: Sequence[float], sizes: Sequence[float]) -> float:
    """Return tau over the pairs of candidates of similar size: (concordant - discordant) / all within bins."""
    agreement = n_pairs = 0
    for members in np.array_split(np.argsort(sizes), _N_BINS):
        for position, i in enumerate(members):
            for j in members[:position]:
                agreement += int(np.sign(scores[i] - scores[j]) * np.sign(truth[i] - truth[j]))
                n_pairs += 1
    return agreement / n_pairs


def main() -> None:
    """Train the candidates by each recipe, and compare the orders."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-candidates", type=int, default=64 if torch.cuda.is_available() else 32)
    arguments.add_argument("--n-train", type=int, default=1024, help="training images")
    arguments.add_argument("--epochs", type=int, default=4, help="of plain short training")
    arguments.add_argument("--n-workers", type=int, default=2)
    usual = ["plain", "kd", "pretrained", "stages", "two_stages", "truth"]
    other = ["small_batches", "high_rate"]
    arguments.add_argument("--recipes", nargs="*", choices=[*usual, *other], default=usual)
    arguments.add_argument(
        "--keep", type=Path, metavar="FILE", help="keep each score here, and take those that are there"
    )
    options = arguments.parse_args()
    recipes = configurations(options.n_train, options.epochs)
    recipes = {name: recipes[name] for name in options.recipes}
    space = load_config(next(iter(recipes.values()))).search_space.instance
    rng = np.random.default_rng(0)
    sampled = dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(2 * options.n_candidates))
    genotypes = list(sampled)[: options.n_candidates]
    # All recipes of a candidate, then the next one: whatever disturbs the machine meets all recipes alike.
    tasks = [
        (name, Candidate.create(space, genotype, seed))
        for genotype in genotypes
        for name in recipes
        for seed in (_TRUTH_SEEDS if name == "truth" else (0,))
    ]
    results = train_all(tasks, recipes, Kept(options.keep), options.n_workers)
    sizes = [n_params(space, genotype) for genotype in genotypes]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for name, candidate in tasks:
        seed = next(s for s in (0, *_TRUTH_SEEDS) if Candidate.create(space, candidate.genotype, s) == candidate)
        found.setdefault((name, seed), []).append(results[name, candidate.id])
    report(compare(found, sizes, options), options)


def compare(
    found: Mapping[tuple[str, int], list[tuple[float, float]]], sizes: list[int], options: Any
) -> dict[str, Any]:
    """Return the experiment's result; `found` holds score and seconds of all candidates by recipe and seed."""
    scores = {key: [score for score, _ in results] for key, results in found.items()}
    truths = [scores["truth", seed] for seed in _TRUTH_SEEDS] if ("truth", 1) in scores else []
    truth = list(np.mean(truths, axis=0)) if truths else []
    recipes = {}
    for (name, seed), results in found.items():
        if name == "truth":
            continue
        own: dict[str, Any] = {
            "seconds_per_candidate": statistics.mean(seconds for _, seconds in results),
            "mean_score": statistics.mean(scores[name, seed]),
        }
        if truth:
            own |= {
                "kendall_tau": tau(scores[name, seed], truth),
                "kendall_tau_interval": tau_interval(scores[name, seed], truth),
                "kendall_tau_given_n_params": tau_given_size(scores[name, seed], truth, sizes),
            }
            if ("plain", 0) in scores and name != "plain":
                interval = difference_interval(scores[name, seed], scores["plain", 0], truth)
                own["kendall_tau_minus_plain_interval"] = interval
        recipes[name] = own
    result: dict[str, Any] = {"n_candidates": len(sizes), "recipes": recipes}
    if truth:
        result = {
            "ceiling": tau(*truths),
            **result,
            "truth": {
                "seconds_per_candidate": statistics.mean(s for seed in _TRUTH_SEEDS for _, s in found["truth", seed]),
                "mean_score": statistics.mean(truth),
                "kendall_tau_of_n_params": tau(sizes, truth),
            },
        }
    return result | {
        "n_train": options.n_train,
        "epochs": options.epochs,
        "n_params": sizes,
        "scores": {f"{name}, seed {seed}": values for (name, seed), values in scores.items()},
    }


if __name__ == "__main__":
    main()
