"""The stages of an evaluation, in the order of a candidate's way: counts, device, function, training."""

import copy
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from latency.counting.complexity import count_model
from latency.devices.base import Device
from latency.errors import DeviceUnavailableError
from latency.timing.conditions import is_disturbed, undisturbed_ms
from nas.data.base import Examples
from nas.evaluation.base import Need, PrunedError, Stage, Subject
from nas.evaluation.stopping_rules import interim_metric
from nas.faults import blaming_machine, machine_error
from nas.pretrained.features import Features
from nas.pretrained.teacher import Teacher
from nas.torch_tools import save_weights
from nas.training.batches import TrainingData
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.recipes import EpochSummary, StageRecipe
from nas.values.records import Observation, Pruning, epoch_loss
from search_spaces.base import StagedNetwork

_LOADED = ("_image_data", "_feature_data", "_validation", "_live_teacher")  # by a training stage, once in a process
COMPLEXITY_METRICS = frozenset({"n_params", "n_macs"})


class ComplexityStage(Stage):
    """Counts parameters and multiply-adds, exactly: an operator without a formula is a failure."""

    name = "complexity"
    needs = frozenset({Need.MODEL})
    provides = COMPLEXITY_METRICS

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return `n_params` and `n_macs` for one image."""
        assert subject.signature is not None  # noqa: S101 - nas.assembly gives one to every model space
        model = subject.model.eval()
        complexity = count_model(model, subject.signature.input_shape)
        complexity.require_complete()
        return subject.observe(self.name, {"n_params": complexity.n_params, "n_macs": complexity.n_macs})


class DeviceStage(Stage):
    """Measures the untrained network on one device; weights change neither latency nor memory.

    Args:
        device_name: Its name in the configuration.
        device: Measures.
        keys: From the device's metrics that are wanted to their keys in records.
    """

    needs = frozenset({Need.MODEL, Need.EXCLUSIVE_DEVICE})

    def __init__(self, device_name: str, device: Device, keys: Mapping[str, str]) -> None:
        self.name = self.name_of(device_name)
        self.provides = frozenset(keys.values())
        self._device = device
        self._keys = dict(keys)

    @staticmethod
    def name_of(device_name: str) -> str:
        """Return the name of the stage of a device; on a cluster its node carries a resource of the same name."""
        return f"device:{device_name}"

    def confirming(self) -> "DeviceStage":
        """Return the stage that gives final figures."""
        return DeviceStage(self.name.removeprefix(self.name_of("")), self._device.confirming(), self._keys)

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the wanted ones of latency and peak memory."""
        assert subject.signature is not None  # noqa: S101 - as above
        model, shape = subject.model.eval(), subject.signature.input_shape
        try:
            return self._measured(subject, model, shape)
        except DeviceUnavailableError as error:  # it was here when the search began
            raise machine_error(f"{self.name} cannot measure", error) from error

    def _measured(self, subject: Subject, model: nn.Module, shape: tuple[int, int, int]) -> list[Observation]:
        observations: list[Observation] = []
        if key := self._keys.get("latency_ms"):
            stats = self._device.measure_latency(model, shape)
            spread = {"p10_ms": stats.p10_ms, "p90_ms": stats.p90_ms, "n_runs": stats.n_runs}
            observations += subject.observe(self.name, {key: stats.median_ms}, {**stats.conditions, **spread})
        if key := self._keys.get("peak_memory_bytes"):
            memory = self._device.measure_peak_memory(model, shape)
            observations += subject.observe(self.name, {key: memory.peak_bytes}, memory.conditions)
        if key := self._keys.get("energy_mj"):
            energy = self._device.measure_energy(model, shape)
            observations += subject.observe(self.name, {key: energy.energy_mj}, energy.conditions)
        return observations


def _names(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files)) or "the training split"


def confirm(stage: DeviceStage, subjects: Sequence[Subject], n_rounds: int) -> dict[str, list[Observation]]:
    """Measure `subjects` again on the device of `stage`, interleaved (A B C A B C), `n_rounds` times.

    Returns:
        By candidate the median reading of each metric, whose conditions hold the reading of each round that nothing
        disturbed; of all rounds where something disturbed each.
    """
    stage = stage.confirming()
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
    kept = [o for o in observations if not is_disturbed(o.conditions)] or observations
    first = kept[0]
    values = [observation.value for observation in kept]
    conditions = {**first.conditions, "rounds": values}
    if is_disturbed(first.conditions):
        conditions["undisturbed_ms"] = statistics.median(undisturbed_ms(o.value, o.conditions) for o in kept)
    if len(kept) < len(observations):
        conditions["n_disturbed_rounds"] = len(observations) - len(kept)
    median = statistics.median(values)
    return Observation(first.candidate, first.stage, first.attempt, first.metric, median, conditions)


class FunctionStage(Stage):
    """Calls a user's Python function.

    Args:
        metric: The name of the metric that it gives.
        function: Takes a `Subject` and returns a finite number.
    """

    needs = frozenset[Need]()
    reads_metrics = True

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

    A training of several stages can be stopped after each: a candidate below its threshold there is PRUNED.

    Args:
        setting: Data, task, device and precision.
        stages: How to train, one after the other.
        distillation: How to learn from the teacher; `None` for not at all.
        teacher_logits: A `.npy` file with the teacher's logits of the training split.
        teacher: Computes the logits of each batch instead.
        features: Of the shared encoder, for stages that train the decoder alone.
        interim_score: The metric by which candidates are stopped after each stage but the last; `None` for never.
        weights: Where to keep a candidate's weights, by its id; `None` to drop them.
    """

    name = "training"

    def __init__(
        self,
        setting: TrainingSetting,
        stages: Sequence[StageRecipe],
        *,
        distillation: Distillation | None = None,
        teacher_logits: Path | None = None,
        teacher: Teacher | None = None,
        features: Features | None = None,
        interim_score: str | None = None,
        weights: Callable[[str], Path] | None = None,
    ) -> None:
        self.needs = frozenset({Need.MODEL, Need.DATA} | ({Need.TEACHER} if distillation else set()))
        self.provides = frozenset(setting.task.metrics)
        self._setting = setting
        self._stages = tuple(stages)
        self._distillation = distillation
        self._teacher_logits = teacher_logits
        self._teacher = teacher
        self._features = features
        self._interim_score = interim_score
        self._weights = weights

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that it reads: the splits, the teacher's logits or the teacher, stored features."""
        splits = (*self._setting.train.files, *self._setting.validation.files)
        logits = (self._teacher_logits,) if self._teacher_logits else ()
        teacher = self._teacher.files if self._teacher else ()
        features = self._features.files if self._features else ()
        return (*splits, *logits, *teacher, *features)

    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the validation scores, the ratio of the distillation loss to the task's, and each epoch's loss.

        Raises:
            PrunedError: If an interim score is below its threshold.
        """
        model, task = subject.model, self._setting.task
        n_epochs = sum(stage.epochs for stage in self._stages)
        n_done = 0
        # Under stages' names of their own, so that a run that is killed on the way trains the candidate again.
        on_the_way: list[Observation] = []

        def on_epoch(epoch: EpochSummary) -> None:
            nonlocal n_done
            n_done += 1
            on_the_way.extend(subject.observe(f"{self.name}@epochs", {epoch_loss(n_done): epoch.task_loss}))
            subject.on_epoch(replace(epoch, epoch=n_done, n_epochs=n_epochs))

        for number, stage in enumerate(self._stages, start=1):
            # A reference network has no encoder of the space's: it is trained as a whole from the start.
            is_decoder_alone = stage.train == "decoder" and isinstance(model, StagedNetwork)
            summary = train(
                model,
                stage,
                task=task,
                data=self._feature_data if is_decoder_alone else self._image_data,
                seed=subject.seed + number - 1,
                distillation=self._distillation,
                teacher=None if is_decoder_alone else self._live_teacher,
                precision=self._setting.precision,
                on_epoch=on_epoch,
            )
            if self._interim_score is not None and number < len(self._stages):
                value = self._scores(model)[self._interim_score]
                metric = interim_metric(self._interim_score, number)
                on_the_way += subject.observe(f"{self.name}@{number}", {metric: value}, {"epochs": n_done})
                self._end_if_behind(subject, on_the_way)
        scores = self._scores(model)
        if self._weights is not None:
            path = self._weights(subject.candidate.id)
            with blaming_machine(f"{path} cannot be written"):
                save_weights(model, path, with_checksum=True)
        extra = {"distillation_ratio": summary.distillation_ratio} if self._distillation else {}
        conditions = {"epochs": n_epochs, "device": self._setting.device}
        return [*on_the_way, *subject.observe(self.name, {**scores, **extra}, conditions)]

    def _end_if_behind(self, subject: Subject, found: Sequence[Observation]) -> None:
        """Stop a candidate whose score, the last of `found`, is below its threshold."""
        score = found[-1]
        threshold = subject.thresholds.get(score.metric)
        if threshold is not None and score.value < threshold:
            raise PrunedError(Pruning(self.name, score.metric, score.value), found)

    def _scores(self, model: nn.Module) -> dict[str, float]:
        setting = self._setting
        return score(model, setting.task, self._validation, setting.normalization, device=setting.device)

    def without_weights(self) -> "TrainingStage":
        """Return the same training, of which no weights are kept."""
        stage = copy.copy(self)
        stage._weights = None
        return stage

    @functools.cached_property
    def _image_data(self) -> TrainingData:
        with blaming_machine(f"{_names(self.files)} cannot be read"):
            return self._setting_now.training_data(self._teacher_logits)

    @functools.cached_property
    def _feature_data(self) -> TrainingData:
        assert self._features is not None  # noqa: S101 - nas.assembly gives them where a stage trains the decoder alone
        with blaming_machine(f"{_names(self._features.files)} cannot be read"):
            return self._features.load(self._setting.device, self._setting_now.resident_bytes)

    @functools.cached_property
    def _validation(self) -> Examples:
        with blaming_machine(f"{_names(self._setting.validation.files)} cannot be read"):
            return self._setting_now.validation_examples()

    @property
    def _setting_now(self) -> TrainingSetting:
        """The setting, with the accelerator's memory for examples reduced by those loaded already."""
        left = self._setting.resident_bytes
        for name in ("_image_data", "_feature_data"):
            left -= getattr(vars(self).get(name), "n_resident_bytes", 0)
        validation = vars(self).get("_validation")
        if validation is not None and validation.images.device.type != "cpu":
            left -= validation.n_bytes
        return replace(self._setting, resident_bytes=left)

    @functools.cached_property
    def _live_teacher(self) -> nn.Module | None:
        if self._teacher is None:
            return None
        with blaming_machine(f"the teacher ({_names(self._teacher.files)}) cannot be read"):
            return self._teacher.load()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out loaded data: a worker process maps the files itself."""
        return {name: value for name, value in vars(self).items() if name not in _LOADED}
