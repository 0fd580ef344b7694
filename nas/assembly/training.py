"""What trainings need, made from the configuration: data, teacher, encoder, stored features."""

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nas.config import RunConfig
from nas.data.base import Dataset, Split
from nas.data.cache import cache_examples
from nas.data.training_split import training_normalization, training_split
from nas.errors import InputError
from nas.evaluation import (
    ModelSignature,
    TrainingStage,
)
from nas.evaluation.stopping_rules import interim_metric
from nas.pretrained.artifact import Artifact
from nas.pretrained.plan import Plan, make
from nas.pretrained.teacher import Teacher, TeacherOutputs, TeacherReport
from nas.search.listener import SearchListener
from nas.search.parts import Thresholds
from nas.search.retraining import RetrainingParts
from nas.store.artifacts import ArtifactCache
from nas.store.run_folder import RunFolder, weights_path
from nas.tasks.base import Task
from nas.torch_tools import resolve_device, resolve_precision
from nas.training.augmentation import Augmentation
from nas.training.batch_checks import check_batches_of_one
from nas.training.class_checks import check_classes, dataset_counts, split_counts
from nas.training.distillation import Distillation
from nas.training.setting import TrainingSetting
from nas.values.objectives import Direction
from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace
from search_spaces.references.reference_models import REFERENCE_MODELS

_N_SAMPLES = 32  # networks of the space that are looked at before any is trained


def training_setting(
    config: RunConfig, folder: RunFolder, listener: SearchListener | None = None
) -> TrainingSetting | None:
    """Return what every training of a run shares, its data decoded and checked; `None` for a run without data.

    Raises:
        DataError: If files are missing or broken, naming all.
        InputError: If the data is not what this run was started with, or cannot give the scores that it asks for.
    """
    if config.data is None:
        return None
    check_teacher_file(config)
    dataset = config.data.instance
    dataset.check()
    fingerprint = dataset.fingerprint()
    device = resolve_device(config.training.device if config.training else "cpu")
    folder.check_fact("data", fingerprint)
    folder.check_fact("training_device", device)
    setting = _setting(config, dataset, fingerprint, device, folder.artifacts)
    listener = listener or SearchListener()
    for note in dataset.notes():
        listener.on_message(note)
    check_classes(setting.task, split_counts(folder.artifacts, setting), config.metric_keys, listener.on_message)
    check_batches(config, setting)
    folder.check_fact("training_precision", str(setting.precision))
    folder.store.set_fact("signature", asdict(ModelSignature.of(dataset)))
    folder.store.set_fact("normalization", asdict(setting.normalization))
    folder.store.set_fact("class_names", list(dataset.class_names))
    return setting


def check_teacher_file(config: RunConfig) -> None:
    """Check that the teacher's file is there, if the run learns from a given one.

    Raises:
        InputError: If it is missing.
    """
    if config.teacher is not None and distillation(config) is not None:
        config.teacher.check_file()


def check_data(config: RunConfig, on_message: Callable[[str], None]) -> None:
    """Look at the files of a configuration's data as the start of a search does, and report what a person should know.

    Raises:
        DataError: Naming all that is missing, broken or does not fit.
        InputError: If the data cannot give the scores that the run asks for.
    """
    if config.data is None:
        return
    dataset = config.data.instance
    dataset.check()
    for note in dataset.notes():
        on_message(note)
    task = _task(config, dataset)
    check_classes(task, dataset_counts(dataset, task), config.metric_keys, on_message)


def check_batches(config: RunConfig, setting: TrainingSetting) -> None:
    """Check that encoder, teacher, references and networks of the space can be trained on batches as they are set.

    Raises:
        InputError: If one cannot.
    """
    check_batches_of_one(_trained_on_single_images(config, setting), setting.train.load().images.shape[1:])


def _trained_on_single_images(config: RunConfig, setting: TrainingSetting) -> Iterator[tuple[str, nn.Module]]:
    """Yield networks that are trained on batches of one image, with the section that says so."""
    sizes = {"in_channels": setting.in_channels, "n_classes": setting.n_classes}
    teacher, space = config.teacher, config.search_space.instance
    if teacher is not None and teacher.given is None and teacher.recipe.batch_size == 1:
        yield "teacher.recipe", teacher.build(**sizes)
    if isinstance(space, PretrainableSpace) and config.pretraining is not None and config.pretraining.batch_size == 1:
        yield "pretraining", space.build_for_pretraining(**sizes, seed=0)
    if config.training is None or all(stage.batch_size > 1 for stage in config.training.stages):
        return
    for kind in config.references:
        yield "training", REFERENCE_MODELS[kind](**sizes)
    if isinstance(space, ModelSpace):
        rng = np.random.default_rng(config.seed)
        for _ in range(_N_SAMPLES):
            yield "training", space.build(space.canonical(space.sample(rng)), **sizes, seed=0)


def retraining_parts(config: RunConfig, folder: RunFolder, listener: SearchListener | None = None) -> RetrainingParts:
    """Return what a full training of one of the run's candidates needs.

    Raises:
        InputError: If the run trains nothing, or its data is not there or is other data now.
    """
    setting = training_setting(config, folder)
    if setting is None or config.data is None or config.training is None:
        raise InputError(f"{folder.path}: this run trains no networks: its configuration has no data or training")
    space, cache = config.search_space.instance, folder.artifacts
    plan = training_plan(config, space, setting, cache)
    logits = list[Artifact]()
    if plan.teacher and plan.outputs:
        logits = [plan.outputs, TeacherOutputs(cache, setting, plan.teacher, setting.validation)]
    make((plan.teacher, plan.encoder, *logits), folder, listener or SearchListener())
    return RetrainingParts(
        space=plan.start(space),
        dataset=config.data.instance,
        setting=setting,
        teacher_logits=tuple(artifact.path for artifact in logits),
        recipe=config.training.recipe,
        distillation=distillation(config),
        teacher=plan.live_teacher,
    )


def make_run_teacher(config: RunConfig, folder: RunFolder, listener: SearchListener) -> tuple[Path, TeacherReport]:
    """Return the weights of a run's teacher, trained unless some run did, and how good it is.

    Raises:
        InputError: If the configuration has none, or the data or a file is missing.
        EvaluationError: If its training diverges.
    """
    setting = training_setting(config, folder)
    if config.teacher is None or setting is None:
        raise InputError(f"the configuration of {config.name!r} has no teacher section")
    teacher = Teacher(folder.artifacts, setting, config.teacher)
    teacher.make(listener)
    return teacher.path, teacher.report(listener)


def make_run_encoder(config: RunConfig, folder: RunFolder, listener: SearchListener) -> Path:
    """Return the weights of the encoder that a run's candidates start from, trained unless some run did.

    Raises:
        InputError: If the configuration has no pretraining, or the data or a file is missing.
        EvaluationError: If its training diverges.
    """
    setting = training_setting(config, folder)
    if config.pretraining is None or setting is None:
        raise InputError(f"the configuration of {config.name!r} has no pretraining section")
    encoder = training_plan(config, config.search_space.instance, setting, folder.artifacts).encoder
    assert encoder is not None  # noqa: S101 - the reader refuses pretraining for a space that shares no encoder
    make((encoder,), folder, listener)
    return encoder.path


def distillation(config: RunConfig) -> Distillation | None:
    """Return how networks learn from the teacher; `None` where there is none or the switch is off."""
    if config.teacher is None or config.distillation is None or not config.distillation.enabled:
        return None
    return config.distillation.method


def _setting(
    config: RunConfig, dataset: Dataset, fingerprint: str, device: str, cache: ArtifactCache
) -> TrainingSetting:
    assert config.task is not None  # noqa: S101 - as in _task
    train = training_split(cache, dataset, config.training.n_loader_workers if config.training else 0)
    task = _task(config, dataset)
    return TrainingSetting(
        data_fingerprint=fingerprint,
        train=train,
        validation=cache_examples(cache, dataset, Split.VALIDATION),
        normalization=training_normalization(cache, train, fingerprint),
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


def training_plan(config: RunConfig, space: SearchSpace, setting: TrainingSetting, cache: ArtifactCache) -> Plan:
    """Return what the trainings of a run share, to be made or priced."""
    training = config.training
    stores_features = training is not None and any(stage.train == "decoder" for stage in training.stages)
    return Plan.of(
        cache,
        setting,
        space=space,
        teacher=config.teacher,
        distillation=distillation(config),
        pretraining=config.pretraining,
        n_views=training.n_views if training and stores_features else 0,
    )


def candidate_training(
    config: RunConfig, space: SearchSpace, setting: TrainingSetting, folder: RunFolder, listener: SearchListener
) -> tuple[SearchSpace, TrainingStage]:
    """Return the space that candidates start from, and how they are trained, once all that both need is made."""
    assert config.training is not None  # noqa: S101 - the reader refuses trained metrics without it
    plan = training_plan(config, space, setting, folder.artifacts)
    make(plan.artifacts, folder, listener)
    if plan.features:
        listener.on_message(plan.features.place)
    stage = TrainingStage(
        setting,
        config.training.stages,
        distillation=distillation(config),
        teacher_logits=plan.outputs.path if plan.outputs else None,
        teacher=plan.live_teacher,
        features=plan.features,
        interim_score=_interim_score(config, setting.task) if config.training.stopping_rule else None,
        weights=functools.partial(weights_path, folder.path),
    )
    return plan.start(space), stage


def thresholds(config: RunConfig, setting: TrainingSetting | None, measured: Collection[str]) -> Thresholds:
    """Return the function that gives the scores which a candidate's training must reach between its stages.

    Candidates are compared by the objectives among the `measured` metrics, which are known when trainings start.
    """
    if setting is None or config.training is None or config.training.stopping_rule is None:
        return lambda costs, finished: {}
    score = _interim_score(config, setting.task)
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


def _task(config: RunConfig, dataset: Dataset) -> Task:
    assert config.task is not None  # noqa: S101 - the reader fills it in where there is data
    # Made here if the classes had no names yet when the configuration was read.
    task: Task = config.task.instance or config.task.cls(
        dataset.class_names, dataset.ignore_index, **config.task.options
    )
    return task


def _augmentation(config: RunConfig, task: Task) -> Augmentation | None:
    """Return the configured one; checked again, since classes may have had no names yet when it was read."""
    if config.augmentation is not None:
        try:
            config.augmentation.check(task)
        except ValueError as error:
            raise InputError(f"augmentation.{error}") from error
    return config.augmentation
