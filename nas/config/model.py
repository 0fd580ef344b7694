"""The configuration of a run as frozen values: what the YAML file says, with every default filled in."""

import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from nas.config.yaml_source import key_text, to_yaml_text
from nas.evaluation.stopping_rules import DropRule, StoppingRule, SuccessiveHalving
from nas.pretrained.teacher import TeacherSpec
from nas.search.parts import Scheduling
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.values.budgets import Budget
from nas.values.metrics import metric_key
from nas.values.objectives import Constraint, Direction, Objective
from nas.values.recipes import StageRecipe, TrainingRecipe


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComponentConfig(_Section):
    """A section with a kind.

    Attributes:
        kind: A name in the section's registry, or a user's own class as `package.module:ClassName`.
        options: The other arguments of its class's constructor, all of them.
    """

    kind: str
    options: Mapping[str, Any] = {}


class ControllerConfig(ComponentConfig):
    """The controller.

    Attributes:
        warm_start: Folders of earlier runs on the same space, whose best genotypes are asked for first.
    """

    warm_start: tuple[Path, ...] = ()


class DeviceConfig(ComponentConfig):
    """A device.

    Attributes:
        metrics: What its class measures; not written to YAML.
    """

    metrics: frozenset[str]


class TrainingConfig(_Section):
    """How and where candidates are trained.

    Attributes:
        device: `auto` (CUDA where it is there), `cpu`, `cuda` or `cuda:N`.
        n_threads_alone: CPU threads of trainings that have the machine to themselves: teacher, pretraining,
            retraining. A candidate's are `execution.n_threads`.
        precision: Of convolutions and the like: `auto` takes bfloat16 on a GPU that computes in it, float16 on one that
            has matrix units for that alone, float32 elsewhere. Weights, losses and scores are float32 always.
        resident_gib: How much of a GPU's memory each process that trains may keep filled with examples: images of all
            its stages, stored features, the teacher's outputs and the validation split together, in the order in which
            they are needed; what does not fit stays memory-mapped on the host. Networks and activations come on top.
        n_loader_workers: Processes that decode the training images from their files, batch by batch and in every epoch
            anew, for each process that trains: for data sets that fit neither memory nor disk when decoded. 0: images
            are decoded once, to disk.
        n_views: Of each training image, varied by the augmentation, whose encoder features are stored for stages that
            train the decoder alone.
        drop_rule: Which candidates are stopped between two stages, by peers of like cost; `None` for none.
        successive_halving: The same, by the share that goes on; at most one of the two is given.
        recipe: The other keys of the section: of stages that don't say otherwise, and of retrainings.
        stages: What candidates go through; one that trains everything by the recipe where none are given.
    """

    device: str = "auto"
    n_threads_alone: int = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    resident_gib: float = 4.0
    n_loader_workers: int = 0
    n_views: int = 4
    drop_rule: DropRule | None = None
    successive_halving: SuccessiveHalving | None = None
    recipe: TrainingRecipe = TrainingRecipe()
    stages: tuple[StageRecipe, ...] = (StageRecipe(),)

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """What ends candidates between two stages; `None` if nothing does."""
        return self.drop_rule or self.successive_halving

    @property
    def has_stages(self) -> bool:
        """Whether a training is more than the recipe alone."""
        return self.stages != (StageRecipe(**dataclasses.asdict(self.recipe)),)


class DistillationConfig(_Section):
    """How candidates learn from the teacher.

    Attributes:
        enabled: The one switch; off, the teacher is not made.
        method: The other keys of the section.
    """

    enabled: bool = True
    method: Distillation = Distillation()


class FunctionMetricConfig(_Section):
    """A metric that a user's Python function gives.

    Attributes:
        function: `package.module:function`; called with a `nas.evaluation.base.Subject`, returns a number.
        chance_level: What a candidate reaches that is no good at all; fixes the reference point.
    """

    function: str
    chance_level: float | None = None


class ObjectiveConfig(_Section):
    """A metric to optimise.

    Attributes:
        metric: Its name.
        device: Where it is measured, for a metric of a device.
        direction: Which way it is better.
    """

    metric: str
    device: str | None = None
    direction: Direction


class ConstraintConfig(_Section):
    """Bounds that a metric must keep, both inclusive; at least one is given.

    Attributes:
        metric: Its name.
        device: Where it is measured, for a metric of a device.
        min: The lower bound.
        max: The upper bound.
    """

    metric: str
    device: str | None = None
    min: float | None = None
    max: float | None = None


class RunConfig(_Section):
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

    name: str
    seed: int = 0
    task: ComponentConfig | None = None
    data: ComponentConfig | None = None
    teacher: TeacherSpec | None = None
    search_space: ComponentConfig
    training: TrainingConfig | None = None
    pretraining: TrainingRecipe | None = None
    augmentation: Augmentation | None = None
    distillation: DistillationConfig | None = None
    devices: Mapping[str, DeviceConfig] = {}
    metrics: Mapping[str, FunctionMetricConfig] = {}
    objectives: tuple[ObjectiveConfig, ...]
    constraints: tuple[ConstraintConfig, ...] = ()
    reference_point: Mapping[str, float | None] = {}
    controller: ControllerConfig
    scheduling: Scheduling = Scheduling.GENERATIONAL
    budget: Budget = Budget()
    execution: ComponentConfig
    seeds_per_candidate: int = 1
    front_seeds: int = 0
    references: tuple[str, ...] = ()
    tensorboard: bool = True

    def metric_key(self, metric: str, device: str | None = None) -> str:
        """Return the name under which this run's records keep `metric` as measured on `device`."""
        measuring = [name for name, config in self.devices.items() if metric in config.metrics]
        return metric_key(metric, device, measuring)

    def objective_values(self) -> tuple[Objective, ...]:
        """Return the objectives by the keys of records."""
        return tuple(Objective(self.metric_key(o.metric, o.device), o.direction) for o in self.objectives)

    def constraint_values(self) -> tuple[Constraint, ...]:
        """Return the constraints by the keys of records."""
        return tuple(Constraint(self.metric_key(c.metric, c.device), c.min, c.max) for c in self.constraints)

    def to_mapping(self) -> dict[str, Any]:
        """Return the configuration in the shape of the YAML file, as plain values; `load_config` takes it."""
        mapping: dict[str, Any] = {}
        for name in type(self).model_fields:
            plain = _plain(getattr(self, name))
            if plain is not None:
                mapping[name] = plain
        return mapping

    def to_yaml(self) -> str:
        """Return the whole configuration, defaults included, as YAML that loads to an equal one."""
        return to_yaml_text(self.to_mapping())


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    """Return `value` as YAML writes it."""
    match value:
        case ComponentConfig():
            own = {"warm_start": _plain(value.warm_start)} if isinstance(value, ControllerConfig) else {}
            return {"kind": value.kind, **own, **_plain(value.options)}
        case TeacherSpec():
            trained = {"recipe": _plain(value.recipe)} if value.given is None else {}
            own = {"kind": value.kind, "weights": _plain(value.weights)} | trained
            return own | _plain(value.options)
        case TrainingConfig():
            own = {name: _plain(getattr(value, name)) for name in TrainingConfig.model_fields}
            recipe = own.pop("recipe")
            if value.has_stages:
                del recipe["epochs"]  # stages have their own
            else:
                del own["stages"]
            return {name: plain for name, plain in (own | recipe).items() if plain is not None}
        case DistillationConfig():
            return {"enabled": value.enabled, **_plain(value.method)}
        case BaseModel():
            fields = {name: _plain(getattr(value, name)) for name in type(value).model_fields}
            return {name: plain for name, plain in fields.items() if plain is not None}
        case Enum():
            return value.value
        case Path():
            return str(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


ABSENT = "(absent)"
"""Stands in a `Difference` for a key that only the other configuration has."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One key whose value differs between two configurations.

    Attributes:
        key: Its path, e.g. `"controller.n_generations"`.
        old: Its plain value, or `ABSENT`.
        new: Likewise.
    """

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(old: RunConfig, new: RunConfig) -> list[Difference]:
    """Return the keys whose values differ, in the order of the file. Asked before a run is resumed."""
    before, after = dict(_leaves(old.to_mapping(), ())), dict(_leaves(new.to_mapping(), ()))
    return [
        Difference(key, before.get(key, ABSENT), after.get(key, ABSENT))
        for key in dict.fromkeys([*before, *after])
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    ]


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
    children: Iterator[tuple[str | int, Any]] | None = None
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    if children is None or not value:
        yield key_text(path), value
        return
    for key, child in children:
        yield from _leaves(child, (*path, key))
