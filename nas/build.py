"""Makes the parts of a run from its configuration: the only file that knows both."""

import functools
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latency.complexity import count_model
from latency.devices.base import Device
from latency.errors import DeviceUnavailableError, LatencyError
from nas.artifacts import ArtifactCache
from nas.config import ConstraintConfig, ObjectiveConfig, RunConfig, resolve_device
from nas.config.kinds import imported, kind_class
from nas.controllers import SearchProblem
from nas.data.base import Dataset, Split
from nas.data.cache import ExamplesFile, cache_examples
from nas.distillation import Distillation
from nas.errors import InputError
from nas.evaluation import (
    ComplexityStage,
    DeviceStage,
    Evaluator,
    FunctionStage,
    ModelSignature,
    Stage,
    Subject,
    TrainingStage,
)
from nas.evaluation.stages import COMPLEXITY_METRICS
from nas.files import file_hash
from nas.metrics import metric_info
from nas.objectives import violations
from nas.pretraining import PretrainedSpace, pretrain
from nas.records import Candidate
from nas.retraining import RetrainingParts
from nas.search import SearchListener, SearchParts
from nas.store import RunFolder, weights_path
from nas.tasks.base import Task
from nas.teacher import TrainingSetting, make_teacher, teacher_logits
from nas.training import Normalization
from nas.version import VERSION
from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace
from search_spaces.genotype import Genotype
from search_spaces.reference_models import ReferenceModel


@dataclass(frozen=True)
class TrainingInputs:
    """What every training of a run shares: data, task, teacher. Made before the first candidate.

    Attributes:
        dataset: Gives the splits.
        fingerprint: Of the data set.
        train: The training split.
        validation: The validation split.
        normalization: From the training split.
        task: Loss and scores.
        device: A torch device.
    """

    dataset: Dataset
    fingerprint: str
    train: ExamplesFile
    validation: ExamplesFile
    normalization: Normalization
    task: Task
    device: str

    @property
    def signature(self) -> ModelSignature:
        """What the networks of this run map to what."""
        dataset = self.dataset
        return ModelSignature(dataset.in_channels, dataset.image_size, len(dataset.class_names))


def search_space(config: RunConfig) -> SearchSpace:
    """Return the run's search space."""
    section = config.search_space
    space: SearchSpace = kind_class("search_space", section.kind)(**section.options)
    return space


def prepare_folder(config: RunConfig, folder: RunFolder) -> None:
    """Store what a reader needs to show the run without its configuration's classes."""
    store = folder.store
    store.set_fact("name", config.name)
    store.set_fact("objectives", [asdict(objective) for objective in config.objective_values()])
    store.set_fact("constraints", [asdict(constraint) for constraint in config.constraint_values()])
    packages = ("torch", "numpy", "pymoo", "moocore", "onnxruntime")
    own = {"pareto-nas": VERSION, "python": platform.python_version()}
    store.set_fact("versions", {**own, **{package: version(package) for package in packages}})


def training_inputs(config: RunConfig, folder: RunFolder) -> TrainingInputs | None:
    """Return data and task of a run, decoded and checked; `None` for a run without data.

    Raises:
        DataError: If files are missing or broken, naming all.
        InputError: If the data is not what this run was started with.
    """
    if config.data is None:
        return None
    dataset: Dataset = kind_class("data", config.data.kind)(**config.data.options)
    dataset.check()
    fingerprint = dataset.fingerprint()
    device = resolve_device(config.training.device if config.training else "cpu")
    _check_stored(folder, "data", fingerprint)
    _check_stored(folder, "training_device", device)
    cache = artifact_cache(folder)
    train = cache_examples(cache, dataset, Split.TRAIN)
    validation = cache_examples(cache, dataset, Split.VALIDATION)
    inputs = TrainingInputs(
        dataset=dataset,
        fingerprint=fingerprint,
        train=train,
        validation=validation,
        normalization=Normalization.of(train.load().images),
        task=_task(config, dataset),
        device=device,
    )
    folder.store.set_fact("signature", asdict(inputs.signature))
    folder.store.set_fact("normalization", asdict(inputs.normalization))
    folder.store.set_fact("class_names", list(dataset.class_names))
    return inputs


def search_parts(config: RunConfig, folder: RunFolder, listener: SearchListener | None = None) -> SearchParts:
    """Return everything that a search joins. Reads data and trains the teacher if nobody did before.

    Raises:
        InputError: If a device, the data or the teacher is not to be had.
    """
    listener = listener or SearchListener()
    space = search_space(config)
    devices = {
        name: _device(name, kind_class("devices", section.kind)(**section.options))
        for name, section in config.devices.items()
    }
    inputs = training_inputs(config, folder)
    signature = inputs.signature if inputs else None
    measuring = (*_complexity_stages(space, signature), *_device_stages(config, devices))
    working: tuple[Stage, ...] = tuple(_function_stages(config))
    start = space
    if inputs and _trains(config):
        logits = _teacher_logits(config, inputs, folder, listener, (Split.TRAIN,))
        start = _starting_space(config, inputs, folder, listener, logits)
        working += (_training_stage(config, inputs, folder, logits),)
    references = [ReferenceModel(kind) for kind in config.references]
    spaces: dict[str, SearchSpace] = {known.name: known for known in (start, *references)}
    objectives, constraints = config.objective_values(), config.constraint_values()
    required = frozenset(o.metric for o in objectives) | frozenset(c.metric for c in constraints)
    chance_levels = {
        name: metric.chance_level for name, metric in config.metrics.items() if metric.chance_level is not None
    }
    if inputs:
        chance_levels |= {metric: inputs.task.chance_level(metric) for metric in inputs.task.metrics}
    return SearchParts(
        problem=SearchProblem(space, objectives, config.seed, _cheap_bounds(config, space, signature)),
        constraints=constraints,
        controller=kind_class("controller", config.controller.kind)(**config.controller.options),
        measuring=Evaluator(spaces, measuring, signature, required, is_last=not working),
        working=Evaluator(spaces, working, signature, required),
        executor=kind_class("execution", config.execution.kind)(**config.execution.options),
        given_reference_point={k: v for k, v in config.reference_point.items() if v is not None},
        chance_levels=chance_levels,
        references=tuple(Candidate.create(reference, reference.genotype(()), config.seed) for reference in references),
    )


def retraining_parts(config: RunConfig, folder: RunFolder, listener: SearchListener | None = None) -> RetrainingParts:
    """Return what a full training of one of the run's candidates needs.

    Raises:
        InputError: If the run trains nothing, or its data is not there or is other data now.
    """
    listener = listener or SearchListener()
    inputs = training_inputs(config, folder)
    if inputs is None or config.training is None:
        raise InputError(f"{folder.path}: this run trains no networks: its configuration has no data or training")
    logits = _teacher_logits(config, inputs, folder, listener, (Split.TRAIN, Split.VALIDATION))
    return RetrainingParts(
        space=_starting_space(config, inputs, folder, listener, logits[:1]),
        dataset=inputs.dataset,
        splits=(inputs.train, inputs.validation),
        teacher_logits=logits,
        normalization=inputs.normalization,
        task=inputs.task,
        recipe=config.training.recipe,
        distillation=_distillation(config),
        device=inputs.device,
        n_threads=config.training.n_threads_alone,
    )


def stored_subject(config: RunConfig, folder: RunFolder, candidate: Candidate) -> Subject:
    """Return a candidate of a run as stages are given it, from the run's folder alone."""
    stored = folder.store.fact("signature")
    if stored is None:
        raise InputError(f"{folder.path}: this run builds no networks")
    signature = ModelSignature(stored["in_channels"], tuple(stored["image_size"]), stored["n_classes"])
    name = candidate.genotype.space
    kind = name.removeprefix(ReferenceModel.prefix)
    space = search_space(config) if kind == name else ReferenceModel(kind)
    return Subject(candidate, space, signature)


def stored_normalization(folder: RunFolder) -> Normalization:
    """Return the normalisation that a run's networks were trained with."""
    stored = folder.store.fact("normalization")
    return Normalization(tuple(stored["mean"]), tuple(stored["std"]))


def artifact_cache(folder: RunFolder) -> ArtifactCache:
    """Return the cache that all runs beside `folder` share."""
    return ArtifactCache(folder.path.parent / "artifacts")


def _task(config: RunConfig, dataset: Dataset) -> Task:
    assert config.task is not None  # noqa: S101 - the reader fills it in where there is data
    task: Task = kind_class("task", config.task.kind)(dataset.class_names, dataset.ignore_index, **config.task.options)
    return task


def _device(name: str, device: Device) -> Device:
    try:
        device.check()
    except DeviceUnavailableError as error:
        raise InputError(f"devices.{name}: {error}") from error
    return device


def _complexity_stages(space: SearchSpace, signature: ModelSignature | None) -> tuple[Stage, ...]:
    return (ComplexityStage(),) if isinstance(space, ModelSpace) and signature else ()


def _device_stages(config: RunConfig, devices: Mapping[str, Device]) -> list[Stage]:
    """Return a stage for each device that some objective or constraint asks."""
    wanted: dict[str, dict[str, str]] = {}
    sections: list[ObjectiveConfig | ConstraintConfig] = [*config.objectives, *config.constraints]
    for section in sections:
        if section.device is not None:
            key = config.metric_key(section.metric, section.device)
            wanted.setdefault(section.device, {})[section.metric] = key
    return [DeviceStage(name, devices[name], keys) for name, keys in wanted.items()]


def _function_stages(config: RunConfig) -> list[Stage]:
    return [FunctionStage(name, imported(metric.function)) for name, metric in config.metrics.items()]


def _trains(config: RunConfig) -> bool:
    """Return whether some objective or constraint needs trained networks."""
    keys = [o.metric for o in config.objective_values()] + [c.metric for c in config.constraint_values()]
    return any((info := metric_info(key)) is not None and info.needs_training for key in keys)


def _distillation(config: RunConfig) -> Distillation | None:
    """Return how networks learn from the teacher; `None` where there is none or the switch is off."""
    if config.teacher is None or config.distillation is None or not config.distillation.enabled:
        return None
    return config.distillation.method


def _training_stage(
    config: RunConfig, inputs: TrainingInputs, folder: RunFolder, logits: tuple[Path, ...]
) -> TrainingStage:
    assert config.training is not None  # noqa: S101 - the reader refuses trained metrics without it
    return TrainingStage(
        task=inputs.task,
        train=inputs.train,
        validation=inputs.validation,
        normalization=inputs.normalization,
        recipe=config.training.recipe,
        device=inputs.device,
        distillation=_distillation(config),
        teacher_logits=logits[0] if logits else None,
        weights=functools.partial(weights_path, folder.path),
    )


def _setting(config: RunConfig, inputs: TrainingInputs) -> TrainingSetting:
    """Return what teacher and encoder are trained on and where."""
    assert config.task is not None  # noqa: S101 - as in _task
    return TrainingSetting(
        data_fingerprint=inputs.fingerprint,
        train=inputs.train,
        validation=inputs.validation,
        normalization=inputs.normalization,
        task=inputs.task,
        task_options=config.task.options,
        in_channels=inputs.signature.in_channels,
        n_classes=inputs.signature.n_classes,
        seed=config.seed,
        device=inputs.device,
        n_threads=config.training.n_threads_alone if config.training else 1,
    )


def _starting_space(
    config: RunConfig,
    inputs: TrainingInputs,
    folder: RunFolder,
    listener: SearchListener,
    logits: tuple[Path, ...],
) -> SearchSpace:
    """Return the run's search space, its networks starting from the pretrained encoder if there is to be one."""
    space = search_space(config)
    if config.pretraining is None or not isinstance(space, PretrainableSpace):
        return space
    what = f"the encoder that all candidates start from ({config.pretraining.epochs} epochs)"
    weights = pretrain(
        space,
        config.pretraining,
        _setting(config, inputs),
        artifact_cache(folder),
        distillation=_distillation(config),
        teacher_logits=logits[0] if logits else None,
        **_told(listener, "encoder", what),
    )
    _check_stored(folder, "encoder", file_hash(weights))
    return PretrainedSpace(space, weights)


def _teacher_logits(
    config: RunConfig,
    inputs: TrainingInputs,
    folder: RunFolder,
    listener: SearchListener,
    splits: tuple[Split, ...],
) -> tuple[Path, ...]:
    """Return the files of the teacher's logits, by split; none for a run without a teacher."""
    spec = config.teacher
    if spec is None or _distillation(config) is None:
        return ()
    setting, cache = _setting(config, inputs), artifact_cache(folder)
    told = _told(listener, "teacher", f"the teacher ({spec.kind}, {spec.recipe.epochs} epochs)")
    teacher = make_teacher(spec, setting, cache, **told)
    _check_stored(folder, "teacher_weights", file_hash(teacher.weights))
    folder.store.set_fact("teacher", {"kind": spec.kind, "n_params": teacher.n_params, "scores": dict(teacher.scores)})
    return tuple(teacher_logits(spec, teacher, setting, split, cache) for split in splits)


def _told(listener: SearchListener, name: str, what: str) -> dict[str, Any]:
    """Return the callbacks by which `listener` is told that a network is made first, once for all runs beside."""
    return {
        "on_start": lambda: listener.on_message(f"Training {what}; kept for later runs."),
        "on_epoch": lambda epoch: listener.on_epoch(name, epoch),
    }


def _cheap_bounds(
    config: RunConfig, space: SearchSpace, signature: ModelSignature | None
) -> Callable[[Genotype], bool]:
    """Return whether a genotype's counts keep their bounds; counted once for each genotype."""
    bounds = tuple(c for c in config.constraint_values() if c.metric in COMPLEXITY_METRICS)
    if not bounds or signature is None or not isinstance(space, ModelSpace):
        return lambda genotype: True

    @functools.cache
    def keeps(genotype: Genotype) -> bool:
        model = space.build(genotype, in_channels=signature.in_channels, n_classes=signature.n_classes, seed=0)
        try:
            counts = count_model(model.eval(), signature.input_shape)
        except LatencyError:
            return True  # the evaluation will say what is wrong with it
        return not violations(bounds, {"n_params": counts.n_params, "n_macs": counts.n_macs})

    return keeps


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
