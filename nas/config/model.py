"""The configuration of a run: what the YAML file says, with every default filled in and every component made."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import to_jsonable_python
from torch import nn

from latency.devices.base import Device
from nas.config.kinds import Component, KindOf, Section, options_model, trusts_code
from nas.config.yaml_source import KeyPath, key_text, to_yaml_text
from nas.controllers.base import Controller
from nas.data.base import Dataset
from nas.data.files import absolute_root
from nas.evaluation.training_config import TrainingConfig
from nas.execution.base import Executor
from nas.execution.serial import SerialExecutor
from nas.pretrained.teacher import TeacherSpec
from nas.pretrained.teacher_form import ChannelOrder, OutputForm, TeacherForm
from nas.registry import find_object
from nas.search.parts import Scheduling
from nas.tasks.base import Task
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.values.budgets import Budget
from nas.values.metrics import COSTS, MetricInfo, MetricSource, metric_key, split_key, table_metric
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.recipes import TrainingRecipe
from search_spaces.base import SearchSpace
from search_spaces.spaces.tabular import Tabular


def _importable(name: str, info: ValidationInfo) -> str:
    if not callable(find_object(name, trusts_code(info))):
        raise ValueError(f"{name!r} must be a function")
    return name


def _must_be(words: str, **pattern: Any) -> Any:
    """Return the annotation of a value that faults describe by `words`."""
    return Field(json_schema_extra={"must_be": words}, **pattern)


_RUN_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
_A_LIST = _must_be("a list")


@dataclasses.dataclass(frozen=True)
class _TeacherRecipe(TrainingRecipe):
    epochs: Annotated[int, Ge(1), Le(10**6)] = TeacherSpec.recipe.epochs


class _TeacherKeys(Section):
    """Keys of a teacher's section beside its options.

    Attributes:
        weights: A safetensors file with trained weights of a reference model, or of a class or function of your own.
        recipe: How to train it, where it is not given trained.
        mean: Of a given teacher: what images, scaled to 0 .. 1, were reduced by when it was trained, in the order of
            its channels, e.g. `[0.485, 0.456, 0.406]`. By default a file of weights takes images as this run's networks
            do, and an ONNX file takes 0 .. 1.
        std: What they were divided by then.
        channel_order: Of the images that a given teacher takes.
        output: What a given teacher gives: `logits`, a channel for each class; or of two classes one channel, the
            second's logit before a sigmoid (`one_logit`), or its probability (`sigmoid`).
    """

    weights: Path | None = None
    recipe: _TeacherRecipe | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: ChannelOrder = ChannelOrder.RGB
    output: OutputForm = OutputForm.LOGITS


@dataclasses.dataclass(frozen=True)
class ControllerConfig(Component[Controller]):
    """The controller.

    Attributes:
        warm_start: Folders of earlier runs on the same space, whose best genotypes are asked for first.
    """

    warm_start: tuple[Path, ...] | None = None


_COMPONENT_KEYS = frozenset(field.name for field in dataclasses.fields(Component))
_ControllerKeys = options_model(ControllerConfig, supplied=_COMPONENT_KEYS)


def _task(kind: str, options: dict[str, Any], cls: type[Task]) -> Component[Task | None]:
    """Return the task without its object, which is made once the data's classes are known."""
    return Component(kind, options, cls, None)


def _data(kind: str, options: dict[str, Any], cls: type[Dataset]) -> Component[Dataset]:
    """Return the data; its root means the same folder from wherever a run's configuration is read again."""
    if isinstance(root := options.get("root"), Path):
        options["root"] = absolute_root(root)
    return Component.of(kind, options, cls)


def _teacher(
    kind: str, options: dict[str, Any], cls: Any, weights: Path | None, recipe: _TeacherRecipe | None, **form: Any
) -> TeacherSpec:
    with torch.device("meta"):  # shapes only: no memory, no initial weights
        model = cls(3, 2, **options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"kind: {kind!r} must return a torch.nn.Module, it returns {type(model).__name__}")
    full_recipe = TrainingRecipe(**vars(recipe or TeacherSpec.recipe))
    return TeacherSpec(kind, options, full_recipe, weights, TeacherForm(**form))


@dataclasses.dataclass(frozen=True)
class DistillationConfig(Distillation):
    """How candidates learn from the teacher.

    Attributes:
        enabled: The one switch; off, the teacher is not made.
    """

    enabled: bool = True

    @property
    def method(self) -> Distillation:
        """The other keys of the section."""
        return Distillation(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Distillation)})


class FunctionMetricConfig(Section):
    """A metric that a user's Python function gives.

    Attributes:
        function: `package.module:function`; called with a `nas.evaluation.base.Subject`, returns a number.
        chance_level: What a candidate reaches that is no good at all; fixes the reference point.
        unit: As people read it: `ms`, `bytes` and `count` are written in the usual way.
    """

    function: Annotated[str, AfterValidator(_importable)]
    chance_level: float | None = None
    unit: str = ""


class ObjectiveConfig(Section):
    """A metric to optimise.

    Attributes:
        metric: Its name.
        device: Where it is measured, for a metric of a device that more than one measures.
        direction: Which way it is better; where the metric says so, it may be left out.
    """

    metric: str
    device: str | None = None
    direction: Direction | None = None


class ConstraintConfig(Section):
    """Bounds that a metric must keep, both inclusive; at least one is given.

    Attributes:
        metric: Its name.
        device: Where it is measured, for a metric of a device that more than one measures.
        min: The lower bound.
        max: The upper bound.
    """

    metric: str
    device: str | None = None
    min: float | None = None
    max: float | None = None


class RunConfig(Section):
    """Everything that a run depends on. Made by `load_config`, which checks it as a whole.

    Attributes:
        name: Of the run and its folder.
        seed: All randomness comes from it.
        task: What the networks are for; by default what the data's targets are made for.
        data: The images; `None` if no metric needs them.
        teacher: What candidates learn from; `None` for no teacher.
        search_space: What can be built.
        training: How each candidate is trained; `None` if no metric needs it.
        pretraining: How the encoder that all candidates share is trained first; `None` for not at all.
        augmentation: How the images of every training are varied; `None` for not at all.
        distillation: How it learns from the teacher; on by default where there is a teacher.
        devices: By the user's names; one on this machine's CPU if a metric needs a device and none is given.
        metrics: Metrics given by functions, by the user's names.
        objectives: One or more.
        constraints: Any number.
        reference_point: Of the hypervolume, by the objectives' keys; `None` or missing: the run fixes it.
        controller: Chooses what to evaluate.
        scheduling: `generational`: a batch at a time; `steady_state`: a new candidate for each that ended.
        budget: At which the search stops asking; by default at none.
        execution: Where candidates are evaluated; by default one after the other.
        seeds_per_candidate: Trainings of each candidate, each under a seed of its own; their mean score is what counts.
        front_seeds: Trainings of each member of the final front under seeds that played no part in its selection; their
            mean takes the place of its score.
        references: Reference models trained and measured to compare with.
        tensorboard: Whether events are written for TensorBoard.
    """

    name: Annotated[str, _must_be("letters, digits, '.', '_' and '-', the first a letter or digit", pattern=_RUN_NAME)]
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0  # what every library that is seeded takes
    task: Annotated[Component[Task | None], KindOf("task", _task)] | None = None
    data: Annotated[Component[Dataset], KindOf("data", _data)] | None = None
    teacher: Annotated[TeacherSpec, KindOf("teacher", _teacher, _TeacherKeys)] | None = None
    search_space: Annotated[Component[SearchSpace], KindOf("search_space")]
    training: TrainingConfig | None = None
    pretraining: TrainingRecipe | None = None
    augmentation: Augmentation | None = None
    distillation: DistillationConfig | None = None
    devices: Annotated[
        dict[str, Annotated[Component[Device], KindOf("devices")]],
        _must_be("a mapping such as {cpu: {kind: torch_cpu}}"),
    ] = {}
    metrics: Annotated[dict[str, FunctionMetricConfig], _must_be("a mapping of names to functions")] = {}
    objectives: Annotated[tuple[ObjectiveConfig, ...], _A_LIST]
    constraints: Annotated[tuple[ConstraintConfig, ...], _A_LIST] = ()
    reference_point: Annotated[dict[str, float | None], _must_be("a mapping of objectives to numbers")] = {}
    controller: Annotated[ControllerConfig, KindOf("controller", ControllerConfig.of, _ControllerKeys)]
    scheduling: Scheduling = Scheduling.GENERATIONAL
    budget: Budget = Budget()
    execution: Annotated[Component[Executor], KindOf("execution")] = Field(
        default_factory=lambda: Component.of("serial", dict(options_model(SerialExecutor)()), SerialExecutor)
    )
    seeds_per_candidate: Annotated[int, Ge(1), Le(1000)] = 1
    front_seeds: Annotated[int, Ge(0), Le(1000)] = 0
    references: tuple[str, ...] = ()
    tensorboard: bool = True

    def metric_info(self, metric: str) -> MetricInfo | None:
        """Return what this run knows of a metric, `iou[CLASS]` included; `None` if nothing gives it.

        Args:
            metric: Its name, without the device that measures it.
        """
        name, class_name = split_key(metric)
        if metric in self.metrics:
            return MetricInfo(MetricSource.FUNCTION, None, self.metrics[metric].unit)
        if self.search_space and isinstance(self.search_space.instance, Tabular):
            return table_metric(metric)
        scores = self.task.cls.scores if self.task and class_name is None else {}
        if self.task and class_name is not None:
            scores = self.task.cls.class_scores
        return scores.get(name) or COSTS.get(metric)

    def metric_key(self, metric: str, device: str | None = None) -> str:
        """Return the name under which this run's records keep `metric` as measured on `device`."""
        measuring = [name for name, config in self.devices.items() if metric in config.instance.metrics]
        return metric_key(metric, device, measuring)

    def objective_values(self) -> tuple[Objective, ...]:
        """Return the objectives by the keys of records."""
        units = {o.metric: info.unit for o in self.objectives if (info := self.metric_info(o.metric))}
        return tuple(
            Objective(self.metric_key(o.metric, o.device), o.direction, units.get(o.metric, ""))
            for o in self.objectives
            if o.direction
        )

    @property
    def metric_keys(self) -> tuple[str, ...]:
        """The metrics of objectives and constraints by the keys of records, each once."""
        keys = [o.metric for o in self.objective_values()] + [c.metric for c in self.constraint_values()]
        return tuple(dict.fromkeys(keys))

    def constraint_values(self) -> tuple[Constraint, ...]:
        """Return the constraints by the keys of records."""
        return tuple(Constraint(self.metric_key(c.metric, c.device), c.min, c.max) for c in self.constraints)

    def to_mapping(self) -> dict[str, Any]:
        """Return the configuration in the shape of the YAML file, as plain values; `load_config` takes it."""
        plain = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {name: value for name, value in plain.items() if value is not None}

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads to an equal one."""
        return to_yaml_text(self.to_mapping())


def _plain(value: Any) -> Any:
    """Return a part of the configuration as YAML writes it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, TrainingConfig):
        return value.to_mapping()
    if isinstance(value, Section):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Component | TeacherSpec):
        keys: dict[str, Any] = {"warm_start": value.warm_start} if isinstance(value, ControllerConfig) else {}
        if isinstance(value, TeacherSpec):
            given = {"weights": value.weights, **dataclasses.asdict(value.form)}
            keys = given if value.given is not None else {"recipe": value.recipe}
        value = {"kind": value.kind, **keys, **value.options}
    return to_jsonable_python(value)


ABSENT = "(absent)"
"""Stands in a `Difference` for a key that only the other configuration has."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One key, e.g. `"controller.n_generations"`, whose plain value differs between two configurations."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(old: RunConfig, new: RunConfig) -> list[Difference]:
    """Return the keys whose values differ, in the order of the file. Asked before a run is resumed."""
    before, after = (dict(_leaves(config.to_mapping(), ())) for config in (old, new))
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key, ABSENT) != after.get(key, ABSENT)]
    return [Difference(key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys]


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[str, Any]]:
    if not value or not isinstance(value, dict | list):
        yield key_text(path), value
        return
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(child, (*path, key))
