"""What a search will cost on this machine, measured on a few sampled candidates before anything is started."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from latency.clocks import cpu_conditions
from nas import build
from nas.analysis.tables import duration
from nas.config import RunConfig
from nas.config.kinds import kind_class
from nas.data.base import Examples
from nas.distillation import Distillation
from nas.errors import InputError
from nas.evaluation import Ended, Evaluator, Event, Job
from nas.execution.worker_count import available_cores
from nas.onnx_teacher import OnnxTeacher
from nas.records import Candidate
from nas.store import RunFolder
from nas.training import TrainingRecipe, score, torch_threads, train
from nas.training_data import FeatureData, TrainingData
from nas.training_setting import TrainingSetting
from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace, StagedNetwork
from search_spaces.genotype import Genotype

_N_SAMPLES = 3
_MAX_DRAWS = 300
_N_STEPS = (2, 6)  # of two short trainings: their difference is steps alone, without what starting costs
_N_ROUNDS = 2  # of these, the faster of which counts: the first warms up, and other programs only slow them down
_N_SCORED = 256  # validation images


@dataclass(frozen=True)
class TrainingCost:
    """What a training costs.

    Attributes:
        step_s: Seconds of one step.
        n_steps: Of the whole training.
        start_s: What it costs beside its steps.
        scoring_s: Of scoring the validation split.
    """

    step_s: float
    n_steps: int
    start_s: float
    scoring_s: float

    @property
    def total_s(self) -> float:
        """Seconds of training and scoring."""
        return self.start_s + self.n_steps * self.step_s + self.scoring_s


@dataclass(frozen=True)
class CostEstimate:
    """What a search will cost here.

    Attributes:
        n_candidates: That it asks for at most.
        n_at_a_time: Trainings side by side.
        measuring_s: Seconds of each sampled candidate's counts and devices.
        training: Of each sampled candidate; empty if nothing is trained.
        made_first: Seconds of teacher and encoder, by their names.
        assumptions: What the sum rests on.
    """

    n_candidates: int
    n_at_a_time: int
    measuring_s: tuple[float, ...]
    training: tuple[TrainingCost, ...]
    made_first: dict[str, float]
    assumptions: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Seconds of the whole search, the making of teacher and encoder among them."""
        training = statistics.mean(cost.total_s for cost in self.training) if self.training else 0.0
        each = statistics.mean(self.measuring_s) + training / self.n_at_a_time
        return sum(self.made_first.values()) + self.n_candidates * each

    def lines(self) -> list[str]:
        """Return what a person reads."""
        shown = [f"candidates   {self.n_candidates} at most, {self.n_at_a_time} trained at a time"]
        shown.append(f"measuring    {_spread(self.measuring_s)} each")
        if self.training:
            step_ms = statistics.median(cost.step_s for cost in self.training) * 1000
            totals = tuple(cost.total_s for cost in self.training)
            shown.append(f"training     {_spread(totals)} each ({self.training[0].n_steps} steps of {step_ms:.3g} ms)")
        shown += [f"{name:<12} {duration(seconds)}, once" for name, seconds in self.made_first.items()]
        shown.append(f"altogether   about {duration(self.total_s)}")
        return [*shown, *(f"Assumed: {assumption}." for assumption in self.assumptions)]


def _spread(seconds: tuple[float, ...]) -> str:
    middle, low, high = (duration(f(seconds)) for f in (statistics.mean, min, max))
    return f"{middle} ({low} .. {high}, {len(seconds)} sampled)"


def estimate_costs(config: RunConfig) -> CostEstimate:
    """Measure a few sampled candidates, and return what the search would cost; nothing that is written stays.

    Raises:
        InputError: If the data or a device is not to be had, or no sampled candidate can be evaluated.
    """
    with tempfile.TemporaryDirectory() as temporary, RunFolder.write(Path(temporary) / "run") as folder:
        return _DryRun(config, folder).estimate()


class _DryRun:
    """Does the measurements of one estimate."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self._config = config
        self._executor = build.executor(config)
        self._space = build.search_space(config)
        self._devices = build.checked_devices(config, self._executor)
        inputs = build.training_inputs(config, folder)
        self._inputs = inputs
        self._signature = inputs.signature if inputs else None
        self._logits = _random_logits(config, inputs) if inputs and build.distillation(config) else None

    def estimate(self) -> CostEstimate:
        """Return the whole estimate."""
        genotypes, n_drawn = self._sampled()
        n_threads = int(self._config.execution.options.get("n_threads", 1))
        with torch_threads(n_threads):
            measuring = tuple(self._measuring_s(genotype) for genotype in genotypes)
            training = tuple(self._candidate(genotype) for genotype in genotypes) if self._trains else ()
        controller = kind_class("controller", self._config.controller.kind)(**self._config.controller.options)
        n_candidates, budget = controller.n_candidates, self._config.budget
        if budget.n_trained is not None:
            n_candidates = min(n_candidates, budget.n_trained)
        return CostEstimate(
            n_candidates=n_candidates,
            n_at_a_time=self._executor.n_at_a_time(self._inputs.setting.device if self._inputs else "cpu"),
            measuring_s=measuring,
            training=training,
            made_first=self._made_first() if training else {},
            assumptions=tuple(self._assumptions(len(genotypes), n_drawn)),
        )

    @property
    def _trains(self) -> bool:
        return self._inputs is not None and build.trains(self._config)

    def _sampled(self) -> tuple[list[Genotype], int]:
        """Return a few genotypes inside the bounds on counts, and how many were drawn for them."""
        rng = np.random.default_rng([self._config.seed, 2])
        keeps = build.search_problem(self._config, self._space, self._signature).keeps_cheap_bounds
        found: dict[Genotype, None] = {}
        n_drawn = 0
        while len(found) < _N_SAMPLES and n_drawn < _MAX_DRAWS:
            genotype = self._space.canonical(self._space.sample(rng))
            n_drawn += 1
            if keeps(genotype):
                found[genotype] = None
        if not found:
            raise InputError(
                f"constraints: none of {_MAX_DRAWS} sampled networks keeps the bounds on n_params and n_macs"
            )
        return list(found), n_drawn

    def _measuring_s(self, genotype: Genotype) -> float:
        stages = build.measuring_stages(self._config, self._space, self._signature, self._devices)
        evaluator = Evaluator({self._space.name: self._space}, stages, self._signature, is_last=False)
        job = Job(Candidate.create(self._space, genotype, self._config.seed))

        def refuse_failures(event: Event) -> None:
            if isinstance(event, Ended) and event.failure is not None:
                raise InputError(f"a sampled network failed in {event.failure.stage}: {event.failure.reason}")

        start = time.perf_counter()
        self._executor.measure(evaluator, [job], refuse_failures)
        return time.perf_counter() - start

    def _candidate(self, genotype: Genotype) -> TrainingCost:
        assert self._config.training is not None  # noqa: S101 - the reader refuses trained metrics without it
        costs = [
            self._training_cost(
                lambda: self._model(self._space, genotype),
                stage,
                build.distillation(self._config),
                on_features=stage.train == "decoder",
            )
            for stage in self._config.training.stages
        ]
        n_steps = sum(cost.n_steps for cost in costs)
        return TrainingCost(
            step_s=sum(cost.n_steps * cost.step_s for cost in costs) / n_steps,
            n_steps=n_steps,
            start_s=sum(cost.start_s for cost in costs),
            scoring_s=sum(cost.scoring_s for cost in costs),
        )

    def _model(self, space: SearchSpace, genotype: Genotype) -> nn.Module:
        assert self._signature is not None  # noqa: S101 - there is data where something is trained
        if not isinstance(space, ModelSpace):
            raise InputError(f"search_space: {space.name!r} builds no networks to train")
        signature = self._signature
        return space.build(genotype, in_channels=signature.in_channels, n_classes=signature.n_classes, seed=0)

    def _made_first(self) -> dict[str, float]:
        """Return the seconds of teacher and encoder."""
        config, signature = self._config, self._signature
        assert signature is not None  # noqa: S101 - as above
        n_threads = config.training.n_threads_alone if config.training else 1
        seconds: dict[str, float] = {}
        sizes = {"in_channels": signature.in_channels, "n_classes": signature.n_classes}
        with torch_threads(n_threads):
            teacher = config.teacher
            if teacher is not None and teacher.weights is None and build.distillation(config):
                cost = self._training_cost(lambda: teacher.build(**sizes), teacher.recipe, None)
                seconds["teacher"] = cost.total_s
            space = self._space
            if config.pretraining is not None and isinstance(space, PretrainableSpace):
                cost = self._training_cost(
                    lambda: space.build_for_pretraining(**sizes, seed=0), config.pretraining, build.distillation(config)
                )
                seconds["encoder"] = cost.total_s - cost.scoring_s
        return seconds

    def _training_cost(
        self,
        make: Callable[[], nn.Module],
        recipe: TrainingRecipe,
        distillation: Distillation | None,
        *,
        on_features: bool = False,
    ) -> TrainingCost:
        """Time short trainings on real data, and the scoring of a part of the validation split."""
        assert self._inputs is not None  # noqa: S101 - as above
        setting, n_examples = self._inputs.setting, len(self._inputs.setting.train)
        batch_size = min(recipe.batch_size, n_examples)

        def train_for(n_steps: int) -> tuple[float, nn.Module]:
            part = setting.train.first(n_steps * batch_size)
            model, short = make(), dataclasses.replace(recipe, epochs=1)
            teacher = self._live_teacher() if distillation and not on_features else None
            data: TrainingData = setting.image_data(part, None if teacher else self._logits)
            if on_features and isinstance(model, StagedNetwork):
                data = _random_features(model, setting, part, self._logits)
            start = time.perf_counter()
            train(
                model,
                short,
                task=setting.task,
                data=data,
                seed=0,
                distillation=distillation,
                teacher=teacher,
                precision=setting.precision,
            )
            return time.perf_counter() - start, model

        few, many = (min(n, n_examples // batch_size) for n in _N_STEPS)
        rounds = [(train_for(few), train_for(many)) for _ in range(_N_ROUNDS)]
        few_s, many_s = (min(round_[i][0] for round_ in rounds) for i in range(2))
        step_s = (many_s - few_s) / (many - few) if many_s > few_s and many > few else many_s / many
        return TrainingCost(
            step_s=step_s,
            n_steps=recipe.epochs * (n_examples // batch_size),
            start_s=max(0.0, few_s - few * step_s),
            scoring_s=self._scoring_s(rounds[-1][0][1]),
        )

    def _live_teacher(self) -> nn.Module | None:
        """Return what costs as much as the live teacher, if there is to be one: itself, untrained."""
        spec, method = self._config.teacher, build.distillation(self._config)
        if spec is None or self._inputs is None or method is None or method.teacher != "live":
            return None
        setting = self._inputs.setting
        model = spec.build(setting.in_channels, setting.n_classes)
        if isinstance(model, OnnxTeacher):
            model.open(setting.normalization)
        return model

    def _scoring_s(self, model: nn.Module) -> float:
        assert self._inputs is not None  # noqa: S101 - as above
        setting, examples = self._inputs.setting, self._inputs.setting.validation.load()
        n = min(_N_SCORED, len(examples))
        part = Examples(examples.images[:n], examples.targets[:n])
        start = time.perf_counter()
        score(model, setting.task, part, setting.normalization, device=setting.device)
        return (time.perf_counter() - start) * len(examples) / n

    def _assumptions(self, n_sampled: int, n_drawn: int) -> list[str]:
        config = self._config
        said = [f"{n_sampled} networks, the first inside the bounds on counts of {n_drawn} drawn, stand for all"]
        if self._trains:
            said.append("every candidate is trained; those outside their bounds cost their measuring alone")
            said.append("trainings side by side do not slow each other down; they were timed alone")
        if load := cpu_conditions().get("load_average"):
            said.append(f"the machine stays as busy as it is: load average {load:g} on {available_cores()} cores")
        if config.execution.kind == "ray":
            said.append("a cluster works on one candidate at a time; divide by the places that it has")
        if config.teacher is not None or config.pretraining is not None:
            said.append("teacher and encoder are made by this run, not found from an earlier one")
        if config.training is not None and config.training.n_loader_workers:
            said.append("images are decoded as fast as trainings read them")
        if config.metrics:
            said.append(f"the functions that give {', '.join(config.metrics)} take no time")
        if str(config.budget) != "none":
            said.append(f"the budget ({config.budget}) may end the search before")
        return said


def _random_features(
    network: StagedNetwork, setting: TrainingSetting, examples: Examples, logits: np.ndarray | None
) -> FeatureData:
    """Return what stands for the encoder's stored features: as large and of the same type."""
    size = (examples.images.shape[-2], examples.images.shape[-1])
    with torch.inference_mode():
        features = network.eval().encode(setting.normalization(examples.images[:1]))
    shapes = tuple((part.shape[1], part.shape[2], part.shape[3]) for part in features)
    values = torch.zeros(len(examples), sum(part[0].numel() for part in features), dtype=torch.float16)
    return FeatureData(
        values,
        shapes,
        examples.targets,
        logits,
        image_size=size,
        device=setting.device,
        resident_bytes=setting.resident_bytes,
    )


def _random_logits(config: RunConfig, inputs: build.TrainingInputs) -> np.ndarray:
    """Return what stands for the teacher's outputs: as large and of the same type."""
    train = inputs.setting.train
    batch_sizes = [stage.batch_size for stage in config.training.stages] if config.training else [1]
    n_images = min(len(train), max(_N_STEPS) * max(batch_sizes))
    if config.pretraining is not None:
        n_images = min(len(train), max(n_images, max(_N_STEPS) * config.pretraining.batch_size))
    shape = (n_images, inputs.signature.n_classes, *train.first(1).targets.shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).half().numpy()
