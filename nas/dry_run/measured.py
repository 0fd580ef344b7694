"""Measures a few sampled candidates, and prices the artifacts they share, for the estimate of a whole search."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from latency.timing.clocks import cpu_conditions
from nas import assembly
from nas.config import RunConfig
from nas.dry_run.estimate import CostEstimate, NetworkCost, TrainingCost, guessed_front_size
from nas.dry_run.timing import Stopwatch
from nas.errors import InputError
from nas.evaluation import Ended, Evaluator, Event, Job, ModelSignature, Need, Stage
from nas.execution.worker_count import available_cores
from nas.pretrained.plan import Plan
from nas.pretrained.teacher import Teacher
from nas.search.listener import SearchListener
from nas.search.reference_point import without_reference
from nas.search.sampling import SAMPLE_SIZE
from nas.store.artifacts import ArtifactCache
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.torch_tools import torch_threads
from nas.values.budgets import Usage
from nas.values.records import Candidate, RecordState
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.genotype import Genotype
from search_spaces.references.reference_models import ReferenceModel

_N_SAMPLES = 3
_MAX_DRAWS = 300


def estimate_costs(config: RunConfig, beside: Path | None = None, run: Run | None = None) -> CostEstimate:
    """Measure a few sampled candidates, and return what the search would cost; nothing that is written stays.

    Args:
        config: Of the run.
        beside: The folder of the runs, whose artifacts need not be made again; by default `runs`.
        run: What an earlier process of the run did; `None` for a new run.

    Raises:
        InputError: If the data or a device is not to be had, or no sampled candidate can be evaluated.
    """
    with tempfile.TemporaryDirectory() as temporary:
        cache = ArtifactCache(Path(temporary) / "artifacts", read_only=(beside or Path("runs")) / "artifacts")
        with RunFolder.write(Path(temporary) / "run", artifacts=cache) as folder:
            dry_run = _DryRun(config, folder, run)
            with dry_run.executor:
                return dry_run.estimate()


class _DryRun:
    """Does the measurements of one estimate.

    Attributes:
        executor: Takes them; to be closed.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, run: Run | None) -> None:
        self._config = config
        self._run = run
        self.executor = config.execution.instance
        self._space = config.search_space.instance
        self._devices = assembly.checked_devices(config, self.executor)
        self._setting = setting = assembly.training_setting(config, folder)
        self._decoding_s = folder.artifacts.seconds
        self._signature = ModelSignature.of(config.data.instance) if config.data else None
        self._plan = Plan()
        self._stopwatch = None
        if setting and assembly.trained_metrics(config):
            assert config.training is not None  # noqa: S101 - the reader refuses trained metrics without it
            recipes = [*config.training.stages, *([config.pretraining] if config.pretraining else [])]
            self._plan = assembly.training_plan(config, self._space, setting, folder.artifacts)
            teacher = self._plan.live_teacher
            self._stopwatch = Stopwatch(
                setting,
                has_teacher=self._plan.teacher is not None,
                live_teacher=teacher.stand_in() if teacher else None,
                batch_size=max(recipe.batch_size for recipe in recipes),
            )

    def estimate(self) -> CostEstimate:
        """Return the whole estimate."""
        config = self._config
        n_left, n_done = self._n_left()
        genotypes, n_drawn = self._sampled()
        known = self._run.references if self._run else ()
        ended = {record.candidate.description for record in known if record.state is not RecordState.ASKED}
        references = {kind: ReferenceModel(kind) for kind in config.references if kind not in ended}
        n_threads = int(config.execution.options.get("n_threads", 1))
        with torch_threads(n_threads):
            sampled = tuple(self._network_cost(self._space, genotype) for genotype in genotypes)
            reference_costs = {kind: self._network_cost(m, m.genotype(())) for kind, m in references.items()}
        artifacts, found = self._artifacts()
        n_on_front = len(self._run.front) if self._run else 0
        trains = self._stopwatch is not None
        return CostEstimate(
            n_candidates=n_left,
            n_done=n_done,
            n_at_a_time=self.executor.n_at_a_time(self._device),
            sampled=sampled,
            n_seeds=config.seeds_per_candidate if trains else 1,
            references=reference_costs,
            artifacts=artifacts,
            found=found,
            n_reference_sample=self._n_reference_sample(),
            n_front=max(guessed_front_size(n_done + n_left), n_on_front),
            n_front_seeds=config.front_seeds if trains else 0,
            measures_front=any(Need.EXCLUSIVE_DEVICE in stage.needs for stage in self._measuring_stages(self._space)),
            budget="" if str(config.budget) == "none" else str(config.budget),
            budget_s=self._budget_s(),
            assumptions=tuple(self._assumptions(len(genotypes), n_drawn)),
        )

    @property
    def _device(self) -> str:
        return self._setting.device if self._setting else "cpu"

    def _n_left(self) -> tuple[int, int]:
        """Return how many candidates are still to end, and how many have."""
        controller = self._config.controller.instance
        records = self._run.records if self._run else ()
        n_done = sum(record.state is not RecordState.ASKED for record in records)
        n_left = controller.n_candidates - n_done
        if self._config.budget.n_trained is not None:
            n_trained = self._run.usage.n_trained if self._run else 0
            n_left = min(n_left, self._config.budget.n_trained - n_trained)
        return max(0, n_left), n_done

    def _n_reference_sample(self) -> int:
        """Return how many networks are measured for the reference point; 0 where it is known without."""
        if self._run and self._run.reference_point is not None:
            return 0
        config = self._config
        given = {metric: value for metric, value in config.reference_point.items() if value is not None}
        chance_levels = assembly.chance_levels(config, self._setting.task if self._setting else None)
        unknown = without_reference(config.objective_values(), config.constraint_values(), given, chance_levels)
        measured = {metric for stage in self._measuring_stages(self._space) for metric in stage.provides}
        return SAMPLE_SIZE if any(objective.metric in measured for objective in unknown) else 0

    def _budget_s(self) -> float | None:
        """Return how long the budget's hours last; `None` where it limits none."""
        usage = self._run.usage if self._run else Usage()
        return self._config.budget.seconds_left(usage, self.executor.n_gpus(self._device))

    def _sampled(self) -> tuple[list[Genotype], int]:
        """Return a few genotypes inside the bounds on counts, and how many were drawn for them."""
        rng = np.random.default_rng([self._config.seed, 2])
        problem = assembly.search_problem(self._config, self._space, self._signature, self.executor)
        found: dict[Genotype, None] = {}
        n_drawn = 0
        while len(found) < _N_SAMPLES and n_drawn < _MAX_DRAWS:
            genotype = self._space.canonical(self._space.sample(rng))
            n_drawn += 1
            if problem.keeps_cheap_bounds(genotype):
                found[genotype] = None
        if not found:
            raise InputError(
                f"constraints: none of {_MAX_DRAWS} sampled networks keeps the bounds on n_params and n_macs"
            )
        return list(found), n_drawn

    def _network_cost(self, space: SearchSpace, genotype: Genotype) -> NetworkCost:
        return NetworkCost(
            self._measuring_s(space, genotype),
            self._training(self._stopwatch, space, genotype) if self._stopwatch else None,
        )

    def _measuring_s(self, space: SearchSpace, genotype: Genotype) -> float:
        evaluator = Evaluator({space.name: space}, self._measuring_stages(space), self._signature, is_last=False)
        job = Job(Candidate.create(space, genotype, self._config.seed))

        def refuse_failures(event: Event) -> None:
            if isinstance(event, Ended) and event.failure is not None:
                raise InputError(f"a sampled network failed in {event.failure.stage}: {event.failure.reason}")

        start = time.perf_counter()
        self.executor.measure(evaluator, [job], refuse_failures)
        return time.perf_counter() - start

    def _measuring_stages(self, space: SearchSpace) -> tuple[Stage, ...]:
        return assembly.measuring_stages(self._config, space, self._signature, self._devices)

    def _training(self, stopwatch: Stopwatch, space: SearchSpace, genotype: Genotype) -> TrainingCost:
        """Return what one training of a network costs, through all of its stages."""
        training = self._config.training
        assert training is not None  # noqa: S101 - the reader refuses trained metrics without it
        make = self._maker(space, genotype)
        method = assembly.distillation(self._config)
        costs = [
            stopwatch.training_cost(make, stage, method, on_features=stage.train == "decoder")
            for stage in training.stages
        ]
        n_steps = sum(cost.n_steps for cost in costs)
        # Without a rule that stops candidates between stages, only the last stage's network is scored.
        scored = costs if training.stopping_rule else costs[-1:]
        return TrainingCost(
            step_s=sum(cost.n_steps * cost.step_s for cost in costs) / n_steps,
            n_steps=n_steps,
            start_s=sum(cost.start_s for cost in costs),
            scoring_s=sum(cost.scoring_s for cost in scored),
        )

    def _maker(self, space: SearchSpace, genotype: Genotype) -> Callable[[], nn.Module]:
        signature = self._signature
        assert signature is not None  # noqa: S101 - there is data where something is trained
        if not isinstance(space, ModelSpace):
            raise InputError(f"search_space: {space.name!r} builds no networks to train")
        return lambda: space.build(
            genotype, in_channels=signature.in_channels, n_classes=signature.n_classes, seed=self._config.seed
        )

    def _artifacts(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return by name the seconds of the artifacts that are missing, and the names of those that are there."""
        missing = {"decoding": self._decoding_s} if self._decoding_s else {}
        found = []
        if self._setting is None or self._stopwatch is None:
            return missing, ()
        with torch_threads(self._setting.n_threads):
            for artifact in self._plan.artifacts:
                if isinstance(artifact, Teacher) and artifact.spec.given is not None:
                    artifact.report(SearchListener())  # one that does not fit would end the search, too
                elif artifact.is_made:
                    found.append(artifact.name)
                else:
                    missing[artifact.name] = artifact.seconds(self._stopwatch)
        return missing, tuple(found)

    def _assumptions(self, n_sampled: int, n_drawn: int) -> list[str]:
        config = self._config
        texts = [f"{n_sampled} networks, the first inside the bounds on counts of {n_drawn} drawn, stand for all"]
        if self._stopwatch:
            texts.append("every candidate is trained to its end; those outside their bounds cost their measuring alone")
            texts.append("trainings side by side do not slow each other down; they were timed alone")
        if load := cpu_conditions().get("load_average"):
            texts.append(f"the machine stays as busy as it is: load average {load:g} on {available_cores()} cores")
        if config.training is not None and config.training.n_loader_workers:
            texts.append("images are decoded as fast as trainings read them")
        if config.execution.kind == "ray":
            texts.append("the cluster keeps its nodes, and they are as fast as this machine")
        if config.metrics:
            texts.append(f"the functions that give {', '.join(config.metrics)} take no time")
        return texts
