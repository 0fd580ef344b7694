"""The stages of an evaluation, in the order of a candidate's way: counts, device, function, training."""

import copy
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latency.complexity import count_model
from latency.devices.base import Device
from nas.data.cache import ExamplesFile, load_array
from nas.distillation import Distillation
from nas.evaluation.base import Need, Stage, Subject
from nas.files import save_weights
from nas.records import Observation
from nas.tasks.base import Task
from nas.training import Normalization, TrainingData, TrainingRecipe, score, train

COMPLEXITY_METRICS = frozenset({"n_params", "n_macs"})


class ComplexityStage(Stage):
    """Counts parameters and multiply-adds, exactly: an operator without a formula is a failure."""

    name = "complexity"
    needs = frozenset({Need.MODEL})
    provides = COMPLEXITY_METRICS

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return `n_params` and `n_macs` for one image."""
        assert subject.signature is not None  # noqa: S101 - build.py gives one to every model space
        model = subject.model.eval()
        complexity = count_model(model, subject.signature.input_shape)
        complexity.require_complete()
        return subject.observe(self.name, {"n_params": complexity.n_params, "n_macs": complexity.n_macs})


class DeviceStage(Stage):
    """Measures the untrained network on one device; weights change neither latency nor memory.

    Args:
        device_name: Its name in the configuration.
        device: What measures.
        keys: From the device's metrics that are wanted to their keys in records.
    """

    needs = frozenset({Need.MODEL, Need.EXCLUSIVE_DEVICE})

    def __init__(self, device_name: str, device: Device, keys: Mapping[str, str]) -> None:
        self.name = f"device:{device_name}"
        self.provides = frozenset(keys.values())
        self._device = device
        self._keys = dict(keys)

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the wanted ones of latency and peak memory."""
        assert subject.signature is not None  # noqa: S101 - as above
        model, shape = subject.model.eval(), subject.signature.input_shape
        observations: list[Observation] = []
        if key := self._keys.get("latency_ms"):
            stats = self._device.measure_latency(model, shape)
            spread = {"p10_ms": stats.p10_ms, "p90_ms": stats.p90_ms, "n_runs": stats.n_runs}
            observations += subject.observe(self.name, {key: stats.median_ms}, {**stats.conditions, **spread})
        if key := self._keys.get("peak_memory_bytes"):
            memory = self._device.measure_peak_memory(model, shape)
            observations += subject.observe(self.name, {key: memory.peak_bytes}, memory.conditions)
        return observations


def confirm(stage: DeviceStage, subjects: Sequence[Subject], n_rounds: int) -> dict[str, list[Observation]]:
    """Measure `subjects` again on the device of `stage`, interleaved (A B C A B C), `n_rounds` times.

    Returns:
        By candidate the median reading of each metric, whose conditions hold every round's reading.
    """
    rounds = [[stage.run(subject) for subject in subjects] for _ in range(n_rounds)]
    confirmed = {}
    for position, subject in enumerate(subjects):
        by_metric: dict[str, list[Observation]] = {}
        for readings in rounds:
            for observation in readings[position]:
                by_metric.setdefault(observation.metric, []).append(observation)
        confirmed[subject.candidate.id] = [_median_observation(observations) for observations in by_metric.values()]
    return confirmed


def _median_observation(observations: Sequence[Observation]) -> Observation:
    first = observations[0]
    values = [observation.value for observation in observations]
    conditions = {**first.conditions, "rounds": values}
    median = statistics.median(values)
    return Observation(first.candidate, first.stage, first.attempt, first.metric, median, conditions)


class FunctionStage(Stage):
    """Calls a user's Python function.

    Args:
        metric: The name of the metric that it gives.
        function: Takes a `Subject` and returns a finite number.
    """

    needs = frozenset[Need]()

    def __init__(self, metric: str, function: Callable[[Subject], float]) -> None:
        self.name = f"function:{metric}"
        self.provides = frozenset({metric})
        self._metric = metric
        self._function = function

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return what the function returns."""
        return subject.observe(self.name, {self._metric: self._function(subject)})


class TrainingStage(Stage):
    """Trains the network quickly, scores it on the validation split, and keeps its weights.

    Args:
        task: Gives loss and scores.
        train: The training split.
        validation: The validation split.
        normalization: Of the images.
        recipe: How to train.
        device: Where to train, a torch device.
        distillation: How to learn from the teacher; `None` for not at all.
        teacher_logits: A `.npy` file with the teacher's logits of the training split.
        weights: Where to keep a candidate's weights, by its id; `None` to drop them.
    """

    name = "training"

    def __init__(
        self,
        *,
        task: Task,
        train: ExamplesFile,
        validation: ExamplesFile,
        normalization: Normalization,
        recipe: TrainingRecipe,
        device: str = "cpu",
        distillation: Distillation | None = None,
        teacher_logits: Path | None = None,
        weights: Callable[[str], Path] | None = None,
    ) -> None:
        self.needs = frozenset({Need.MODEL, Need.DATA} | ({Need.TEACHER} if distillation else set()))
        self.provides = frozenset(task.metrics)
        self._task = task
        self._train_file, self._validation_file = train, validation
        self._normalization = normalization
        self._recipe = recipe
        self._device = device
        self._distillation = distillation
        self._teacher_logits = teacher_logits
        self._weights = weights

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the validation scores, and how large the distillation term was beside the task's."""
        summary = train(
            subject.model,
            self._recipe,
            task=self._task,
            data=self._data,
            seed=subject.seed,
            device=self._device,
            distillation=self._distillation,
            on_epoch=subject.on_epoch,
        )
        scores = score(
            subject.model, self._task, self._validation_file.load(), self._normalization, device=self._device
        )
        if self._weights is not None:
            save_weights(subject.model, self._weights(subject.candidate.id))
        extra = {"distillation_ratio": summary.distillation_ratio} if self._distillation else {}
        conditions = {"epochs": self._recipe.epochs, "device": self._device}
        return subject.observe(self.name, {**scores, **extra}, conditions)

    def without_weights(self) -> "TrainingStage":
        """Return the same training, of which no weights are kept."""
        stage = copy.copy(self)
        stage._weights = None
        return stage

    @functools.cached_property
    def _data(self) -> TrainingData:
        logits = load_array(self._teacher_logits) if self._teacher_logits else None
        return TrainingData(self._train_file.load(), self._normalization, logits)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded arrays out: a worker process maps the files itself."""
        return {name: value for name, value in vars(self).items() if name != "_data"}
