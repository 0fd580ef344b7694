"""What trainings need, made from the configuration: data, teacher, encoder, stored features."""

import functools
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.assembly.class_checks import check_classes, split_counts
from nas.assembly.run_checks import check_batches, check_files
from nas.config import RunConfig, resolve_device, resolve_precision
from nas.config.model import TrainingConfig
from nas.data.base import Dataset, IndexedDataset, Split
from nas.data.cache import ExamplesFile, cache_examples, load_array
from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.errors import InputError
from nas.evaluation import (
    ModelSignature,
    TrainingStage,
)
from nas.evaluation.stopping_rules import interim_metric
from nas.files import file_hash
from nas.pretrained.encoder import PretrainedSpace, pretrain
from nas.pretrained.features import StoredFeatures, store_features, store_views
from nas.pretrained.teacher import LiveTeacher, Teacher, TeacherSpec, make_teacher, teacher_logits, weights_hash
from nas.registry import kind_class
from nas.search.listener import SearchListener
from nas.search.parts import Thresholds
from nas.search.retraining import RetrainingParts
from nas.store.artifacts import ArtifactCache
from nas.store.run_folder import RunFolder, weights_path
from nas.tasks.base import Task
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.training.setting import TrainingSetting
from nas.values.objectives import Direction
from nas.values.recipes import TrainingRecipe
from search_spaces.base import PretrainableSpace, SearchSpace

_N_AT_A_TIME = 256  # decoded images in memory


def search_space(config: RunConfig) -> SearchSpace:
    """Return the run's search space."""
    section = config.search_space
    space: SearchSpace = kind_class("search_space", section.kind)(**section.options)
    return space


@dataclass(frozen=True)
class TrainingInputs:
    """What every training of a run shares, made before the first candidate.

    Attributes:
        dataset: Gives the splits.
        setting: The decoded splits, the task, and where to train.
    """

    dataset: Dataset
    setting: TrainingSetting

    @property
    def signature(self) -> ModelSignature:
        """What the networks of this run map to what."""
        return ModelSignature(self.setting.in_channels, self.dataset.image_size, self.setting.n_classes)


def training_inputs(
    config: RunConfig, folder: RunFolder, listener: SearchListener | None = None
) -> TrainingInputs | None:
    """Return data and task of a run, decoded and checked; `None` for a run without data.

    Raises:
        DataError: If files are missing or broken, naming all.
        InputError: If the data is not what this run was started with, or cannot give the scores that it asks for.
    """
    if config.data is None:
        return None
    check_files(config)
    dataset: Dataset = kind_class("data", config.data.kind)(**config.data.options)
    dataset.check()
    fingerprint = dataset.fingerprint()
    device = resolve_device(config.training.device if config.training else "cpu")
    _check_stored(folder, "data", fingerprint)
    _check_stored(folder, "training_device", device)
    inputs = TrainingInputs(dataset, _setting(config, dataset, fingerprint, device, artifact_cache(folder)))
    listener = listener or SearchListener()
    for note in dataset.notes():
        listener.on_message(note)
    counts = split_counts(artifact_cache(folder), inputs.setting)
    check_classes(config, inputs.setting.task, counts, listener.on_message, is_dense=dataset.is_dense)
    check_batches(config, search_space(config), inputs.setting)
    _check_stored(folder, "training_precision", str(inputs.setting.precision))
    folder.store.set_fact("signature", asdict(inputs.signature))
    folder.store.set_fact("normalization", asdict(inputs.setting.normalization))
    folder.store.set_fact("class_names", list(dataset.class_names))
    return inputs


def retraining_parts(config: RunConfig, folder: RunFolder, listener: SearchListener | None = None) -> RetrainingParts:
    """Return what a full training of one of the run's candidates needs.

    Raises:
        InputError: If the run trains nothing, or its data is not there or is other data now.
    """
    listener = listener or SearchListener()
    inputs = training_inputs(config, folder)
    if inputs is None or config.training is None:
        raise InputError(f"{folder.path}: this run trains no networks: its configuration has no data or training")
    setting = inputs.setting
    teacher = _made_teacher(config, setting, folder, listener)
    encoder = _encoder(config, setting, folder, listener, teacher)
    space = search_space(config)
    return RetrainingParts(
        space=space if encoder is None else PretrainedSpace(encoder.space, encoder.weights),
        dataset=inputs.dataset,
        setting=setting,
        teacher_logits=teacher.all_logits() if teacher else (),
        recipe=config.training.recipe,
        distillation=distillation(config),
        teacher=teacher.live if teacher else None,
    )


def make_run_teacher(config: RunConfig, folder: RunFolder, listener: SearchListener) -> Teacher:
    """Return the teacher of a run, trained now if nobody did before.

    Raises:
        InputError: If the configuration has none, or the data or a file is not to be had.
        EvaluationError: If its training diverges.
    """
    inputs = training_inputs(config, folder)
    if config.teacher is None or inputs is None:
        raise InputError(f"the configuration of {config.name!r} has no teacher section")
    return _teacher(config.teacher, inputs.setting, folder, listener)


def make_run_encoder(config: RunConfig, folder: RunFolder, listener: SearchListener) -> Path:
    """Return the weights of the encoder that a run's candidates start from, trained now if nobody did before.

    Raises:
        InputError: If the configuration has no pretraining, or the data or a file is not to be had.
        EvaluationError: If its training diverges.
    """
    inputs = training_inputs(config, folder)
    if config.pretraining is None or inputs is None:
        raise InputError(f"the configuration of {config.name!r} has no pretraining section")
    teacher = _made_teacher(config, inputs.setting, folder, listener)
    encoder = _encoder(config, inputs.setting, folder, listener, teacher)
    assert encoder is not None  # noqa: S101 - the reader refuses pretraining for a space that shares no encoder
    return encoder.weights


def distillation(config: RunConfig) -> Distillation | None:
    """Return how networks learn from the teacher; `None` where there is none or the switch is off."""
    if config.teacher is None or config.distillation is None or not config.distillation.enabled:
        return None
    return config.distillation.method


def _setting(
    config: RunConfig, dataset: Dataset, fingerprint: str, device: str, cache: ArtifactCache
) -> TrainingSetting:
    assert config.task is not None  # noqa: S101 - as in _task
    train = _training_split(config, dataset, cache)
    task = _task(config, dataset)
    return TrainingSetting(
        data_fingerprint=fingerprint,
        train=train,
        validation=cache_examples(cache, dataset, Split.VALIDATION),
        normalization=_normalization(train, fingerprint, cache),
        task=task,
        task_options=config.task.options,
        augmentation=_augmentation(config, task),
        in_channels=dataset.in_channels,
        n_classes=len(dataset.class_names),
        seed=config.seed,
        device=device,
        n_threads=config.training.n_threads_alone if config.training else 1,
        precision=resolve_precision(config.training.precision, device) if config.training else torch.float32,
        resident_bytes=int(config.training.resident_gib * 2**30) if config.training else 0,
    )


def _training_split(config: RunConfig, dataset: Dataset, cache: ArtifactCache) -> ExamplesFile | StreamedExamples:
    n_workers = config.training.n_loader_workers if config.training else 0
    if not n_workers:
        return cache_examples(cache, dataset, Split.TRAIN)
    assert isinstance(dataset, IndexedDataset)  # noqa: S101 - the reader refuses others
    return StreamedExamples(dataset, n_workers)


def _normalization(train: ExamplesFile | StreamedExamples, fingerprint: str, cache: ArtifactCache) -> Normalization:
    if isinstance(train, ExamplesFile):
        return Normalization.of(train.load().images)

    def write(path: Path) -> None:  # all images are decoded for it, hence once
        found = Normalization.of_parts(part.images for part in train.dataset.parts(Split.TRAIN, _N_AT_A_TIME)[1])
        np.save(path, np.array([found.mean, found.std]))

    mean, std = load_array(cache.get("normalization", {"data": fingerprint}, ".npy", write)[0]).tolist()
    return Normalization(tuple(mean), tuple(std))


@dataclass(frozen=True)
class _MadeTeacher:
    """The run's teacher, ready to be asked, and whether that is to be in the trainings."""

    spec: TeacherSpec
    teacher: Teacher
    setting: TrainingSetting
    cache: ArtifactCache
    is_live: bool

    def logits(self, examples: ExamplesFile) -> Path:
        """Return the file of what it says of `examples`."""
        return teacher_logits(self.spec, self.teacher, self.setting, examples, self.cache)

    def training_logits(self) -> Path | None:
        """Return the file of what it says of the training split; `None` for a live teacher."""
        train = self.setting.train
        return self.logits(train) if not self.is_live and isinstance(train, ExamplesFile) else None

    def all_logits(self) -> tuple[Path, ...]:
        """Return the files of what it says of training and validation split; none for a live teacher."""
        train = self.training_logits()
        return () if train is None else (train, self.logits(self.setting.validation))

    @property
    def live(self) -> LiveTeacher | None:
        """What trainings ask; `None` where they read what it said."""
        return LiveTeacher(self.spec, self.teacher.weights, self.setting) if self.is_live else None


@dataclass(frozen=True)
class _Encoder:
    """The pretrained encoder that the networks of a space share."""

    space: PretrainableSpace
    weights: Path


def candidate_training(
    config: RunConfig, setting: TrainingSetting, folder: RunFolder, listener: SearchListener
) -> tuple[SearchSpace, TrainingStage]:
    """Return the space that candidates start from, and how they are trained; makes what they need first."""
    assert config.training is not None  # noqa: S101 - the reader refuses trained metrics without it
    teacher = _made_teacher(config, setting, folder, listener)
    encoder = _encoder(config, setting, folder, listener, teacher)
    stages = config.training.stages
    features = None
    if encoder and any(stage.train == "decoder" for stage in stages):
        features = _features(config.training, encoder, teacher, setting, artifact_cache(folder), listener)
    stage = TrainingStage(
        setting,
        stages,
        distillation=distillation(config),
        teacher_logits=teacher.training_logits() if teacher else None,
        teacher=teacher.live if teacher else None,
        features=features,
        interim_score=_interim_score(config, setting.task) if config.training.stopping_rule else None,
        weights=functools.partial(weights_path, folder.path),
    )
    return PretrainedSpace(encoder.space, encoder.weights) if encoder else search_space(config), stage


def _encoder(
    config: RunConfig,
    setting: TrainingSetting,
    folder: RunFolder,
    listener: SearchListener,
    teacher: _MadeTeacher | None,
) -> _Encoder | None:
    """Return the encoder that candidates start from, if there is to be one; pretrained now if no run did before."""
    space = search_space(config)
    if config.pretraining is None or not isinstance(space, PretrainableSpace):
        return None
    what = f"the encoder that all candidates start from ({_epochs(config.pretraining)})"
    weights = pretrain(
        space,
        config.pretraining,
        setting,
        artifact_cache(folder),
        distillation=distillation(config),
        teacher_logits=teacher.training_logits() if teacher else None,
        teacher=teacher.live if teacher else None,
        **_told(listener, "encoder", what),
    )
    _check_stored(folder, "encoder", file_hash(weights))
    return _Encoder(space, weights)


def _features(
    training: TrainingConfig,
    encoder: _Encoder,
    teacher: _MadeTeacher | None,
    setting: TrainingSetting,
    cache: ArtifactCache,
    listener: SearchListener,
) -> StoredFeatures:
    """Return the encoder's features of views of the training images, and say where trainings find them."""
    views, n_views = store_views(setting, training.n_views, cache)
    path, shapes = store_features(encoder.space, encoder.weights, views, setting, cache)
    features = StoredFeatures(path, shapes, views, n_views, teacher.logits(views) if teacher else None)
    if setting.device == "cpu":
        place = "memory-mapped, as always on a CPU"
    elif features.n_bytes <= setting.resident_bytes:
        place = f"kept on {setting.device} while a process trains"
    else:
        place = f"memory-mapped as far as they exceed training.resident_gib ({training.resident_gib:g})"
    amount = f"{n_views} view{'s' if n_views > 1 else ''} of each training image, {features.n_bytes / 2**20:,.0f} MiB"
    listener.on_message(f"The encoder's features of {amount}: {place}.")
    return features


def thresholds(config: RunConfig, inputs: TrainingInputs | None, measured: Collection[str]) -> Thresholds:
    """Return what tells the scores that a candidate's training must reach between its stages.

    Candidates are compared by the objectives among the `measured` metrics, which are known when trainings start.
    """
    if inputs is None or config.training is None or config.training.stopping_rule is None:
        return lambda costs, finished: {}
    score = _interim_score(config, inputs.setting.task)
    between = tuple(interim_metric(score, number) for number in range(1, len(config.training.stages)))
    costs = [
        objective.metric
        for objective in config.objective_values()
        if objective.metric in measured and objective.direction is Direction.MINIMIZE
    ]
    return functools.partial(
        config.training.stopping_rule.thresholds, cost_metrics=tuple(costs) or ("n_params",), interim_metrics=between
    )


def _interim_score(config: RunConfig, task: Task) -> str:
    """Return the score that candidates are compared by between stages: the first that the run maximises."""
    maximised = (value.metric for value in config.objective_values() if value.direction is Direction.MAXIMIZE)
    return next((metric for metric in maximised if metric in task.metrics), task.main_metric)


def _made_teacher(
    config: RunConfig, setting: TrainingSetting, folder: RunFolder, listener: SearchListener
) -> _MadeTeacher | None:
    """Return the teacher, trained now if no run did before; `None` for a run that learns from none."""
    spec, method = config.teacher, distillation(config)
    if spec is None or method is None:
        return None
    cache = artifact_cache(folder)
    teacher = _teacher(spec, setting, folder, listener)
    _check_stored(folder, "teacher_weights", weights_hash(spec, teacher.weights))
    folder.store.set_fact("teacher", {"kind": spec.kind, "n_params": teacher.n_params, "scores": dict(teacher.scores)})
    return _MadeTeacher(spec, teacher, setting, cache, method.teacher == "live")


def _teacher(spec: TeacherSpec, setting: TrainingSetting, folder: RunFolder, listener: SearchListener) -> Teacher:
    """Return the teacher, trained now if need be."""
    told = _told(listener, "teacher", f"the teacher ({spec.kind}, {_epochs(spec.recipe)})")
    return make_teacher(spec, setting, artifact_cache(folder), on_message=listener.on_message, **told)


def _epochs(recipe: TrainingRecipe) -> str:
    return "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"


def _told(listener: SearchListener, name: str, what: str) -> dict[str, Any]:
    """Return the callbacks by which `listener` is told that a network is made first, once for all runs beside."""
    return {
        "on_start": lambda: listener.on_message(f"Training {what}; kept for later runs."),
        "on_epoch": lambda epoch: listener.on_epoch(name, epoch),
    }


def _task(config: RunConfig, dataset: Dataset) -> Task:
    assert config.task is not None  # noqa: S101 - the reader fills it in where there is data
    task: Task = kind_class("task", config.task.kind)(dataset.class_names, dataset.ignore_index, **config.task.options)
    return task


def _augmentation(config: RunConfig, task: Task) -> Augmentation | None:
    """Return the configured one; checked again, since classes may have had no names yet when it was read."""
    if config.augmentation is not None:
        try:
            config.augmentation.check(task)
        except ValueError as error:
            raise InputError(f"augmentation.{error}") from error
    return config.augmentation


def artifact_cache(folder: RunFolder) -> ArtifactCache:
    """Return the cache that all runs beside `folder` share."""
    return folder.artifacts


def _check_stored(folder: RunFolder, key: str, value: str) -> None:
    """Check what every training rests on against what was stored at first; mixed, records could not be compared."""
    stored = folder.store.fact(key)
    if stored is None:
        folder.store.set_fact(key, value)
    elif stored != value:
        raise InputError(
            f"{folder.path}: {key.replace('_', ' ')} is not what this run was started with "
            f"({stored[:12]} then, {value[:12]} now); restore it, or start another run"
        )
