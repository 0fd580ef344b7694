"""Reads the sections of a configuration and checks them together. Only `load_config` needs it."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latency.devices.base import Device
from nas.augmentation import Augmentation
from nas.budget import Budget
from nas.config.kinds import KINDS, REFERENCE_TASKS, Kinds, find_class
from nas.config.metric_sections import MetricSections, MetricsReader, RunContext
from nas.config.model import (
    ComponentConfig,
    ControllerConfig,
    DeviceConfig,
    DistillationConfig,
    RunConfig,
    TrainingConfig,
)
from nas.config.options import construct, must_be, nearest, options_model, sentence, validate
from nas.config.yaml_source import Fault, KeyPath, YamlSource
from nas.controllers.base import Controller
from nas.data.base import Dataset
from nas.distillation import Distillation
from nas.errors import InputError
from nas.execution.base import Executor
from nas.objectives import Objective
from nas.onnx_teacher import OnnxTeacher
from nas.tasks.base import Task
from nas.teacher import TeacherSpec
from nas.training import TrainingRecipe
from search_spaces.base import PretrainableSpace, SearchSpace
from search_spaces.reference_models import REFERENCE_MODELS

_SCALARS = ("name", "seed", "scheduling", "seeds_per_candidate", "front_seeds", "references", "tensorboard")
_REQUIRED = ("search_space", "controller", "objectives")
_SECTIONS = frozenset(RunConfig.model_fields) - set(_SCALARS)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TORCH_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_DEFAULT_DEVICE = {"cpu": {"kind": "torch_cpu"}}
_DEFAULT_EXECUTION = {"kind": "serial"}


class ConfigReader:
    """Reads one configuration, once.

    Args:
        source: What the user wrote.
        trust_code: Whether Python code that it names may be imported.
        kinds: By section, what its `kind` may be.
    """

    def __init__(self, source: YamlSource, *, trust_code: bool = False, kinds: Mapping[str, Kinds] = KINDS) -> None:
        self._source = source
        self._raw = source.data
        self._trust_code = trust_code
        self._kinds = kinds
        self._faults: list[Fault] = []
        # Misspelled sections count as given, so that one slip is one fault.
        self._given = {name for name in _SECTIONS if self._raw.get(name) is not None}
        self._given |= {name for name in _REQUIRED if name in self._raw}
        unknown = [key for key in self._raw if key not in RunConfig.model_fields]
        for key in unknown:
            self._given |= set(difflib.get_close_matches(key, RunConfig.model_fields, n=1))

    def read(self) -> RunConfig:
        """Return the configuration.

        Raises:
            ConfigurationError: Naming all faults, by line.
        """
        sections = self._read_scalars()
        space_config, space = self._component("search_space")
        data_config, dataset = self._component("data")
        task_config, task = self._task(dataset)
        task_kind = task_config.kind if task_config else None
        teacher = self._teacher(task_kind)
        context = RunContext(
            given=frozenset(self._given),
            space=space if isinstance(space, SearchSpace) else None,
            task_kind=task_kind,
            task=task,
            class_names=_class_names(dataset),
            devices=self._devices(),
            has_device_faults=bool(self._faults_under("devices")),
            default_devices=lambda: self._read_devices(_DEFAULT_DEVICE),
        )
        metrics = MetricsReader(self._raw, context, self._trust_code)
        metric_sections = metrics.read()
        objectives = [Objective(metrics.key(o), o.direction) for o in metric_sections["objectives"]]
        self._faults += metrics.faults
        sections |= {
            "search_space": space_config,
            "data": data_config,
            "task": task_config,
            "teacher": teacher,
            "training": self._training(),
            "pretraining": self._pretraining(space),
            "augmentation": self._augmentation(task),
            "distillation": self._distillation(teacher is not None, task_kind),
            "controller": self._controller(objectives),
            "budget": self._value("budget", Budget, self._mapping(("budget",), self._raw.get("budget")) or {}, ()),
        }
        sections["execution"] = self._execution(sections["training"])
        self._check_references(sections.get("references", ()), task_kind)
        return self._finish(sections, metric_sections)

    def _finish(self, sections: Mapping[str, Any], metric_sections: MetricSections) -> RunConfig:
        for name in _REQUIRED:
            if name not in self._given:
                self._fault((name,), f"missing key {name!r}.")
        if self._faults:
            raise self._source.error(self._faults)
        return RunConfig(**sections, **metric_sections)

    def _fault(self, path: KeyPath, text: str) -> None:
        self._faults.append(Fault(path, text))

    def _faults_under(self, section: str) -> list[Fault]:
        return [fault for fault in self._faults if fault.path[:1] == (section,)]

    def _read_scalars(self) -> dict[str, Any]:
        model = options_model(RunConfig, _SECTIONS)
        raw = {key: value for key, value in self._raw.items() if key not in _SECTIONS}
        values, faults = validate(model, raw, (), also_known=_SECTIONS)
        self._faults += faults
        name = self._raw.get("name")
        if isinstance(name, str) and not _FILE_NAME.fullmatch(name):
            what = "letters, digits, '.', '_' and '-', the first a letter or digit"
            self._faults.append(must_be(("name",), what, name))
        for key, least in (("seeds_per_candidate", 1), ("front_seeds", 0)):
            value = (values or {}).get(key, least)
            if value < least:
                self._faults.append(must_be((key,), f"an integer of at least {least}", value))
            elif value > least and "training" not in self._given:
                self._fault((key,), f"{key} needs a training section: only trainings depend on the seed.")
        return values or {}

    def _mapping(self, path: KeyPath, raw: Any, example: str = "") -> Mapping[str, Any] | None:
        if raw is None or isinstance(raw, Mapping):
            return raw
        self._faults.append(must_be(path, f"a mapping{example}", raw))
        return None

    def _component(
        self, section: str, default: Mapping[str, Any] | None = None, own: Sequence[str] = ()
    ) -> tuple[ComponentConfig | None, object]:
        """Return a section with a kind, and the object that its options were checked on.

        Keys named in `own` are read elsewhere.
        """
        kinds = self._kinds[section]
        example = f" such as {{kind: {next(iter(kinds.classes))}}}"
        raw = self._raw.get(section)
        if raw is None and section in _REQUIRED and section in self._raw:
            self._faults.append(must_be((section,), f"a mapping{example}", raw))
        raw = self._mapping((section,), default if raw is None else raw, example)
        if raw is None:
            return None, None
        cls, options = self._kind_and_options((section,), raw, kinds, dict.fromkeys(own))
        if cls is None or options is None:
            return None, None
        return self._checked((section,), raw["kind"], cls, options)

    def _checked(
        self, path: KeyPath, kind: str, cls: type, options: Mapping[str, Any]
    ) -> tuple[ComponentConfig | None, object]:
        made, faults = construct(lambda: cls(**options), options, path)
        self._faults += faults
        return (None if faults else ComponentConfig(kind=kind, options=options)), made

    def _kind_and_options(
        self, path: KeyPath, raw: Mapping[str, Any], kinds: Kinds, own: Mapping[str, Any] | None = None
    ) -> tuple[type | None, dict[str, Any] | None]:
        """Return the class that `raw` names and its options; `own` are keys that are read elsewhere."""
        own = own or {}
        kind = self._kind(path, raw, kinds, own)
        if kind is None:
            return None, None
        cls, faults = find_class(kinds, kind, (*path, "kind"), self._trust_code)
        self._faults += faults
        if cls is None:
            return None, None
        try:
            model = options_model(cls, kinds.supplied)
        except (TypeError, ValueError, NameError) as error:  # a user's class that no file can describe
            self._fault((*path, "kind"), sentence((*path, "kind"), f"{error}."))
            return cls, None
        rest = {key: value for key, value in raw.items() if key != "kind" and key not in own}
        options, faults = validate(model, rest, path, also_known=("kind", *own))
        self._faults += faults
        return cls, options

    def _kind(self, path: KeyPath, raw: Mapping[str, Any], kinds: Kinds, own: Mapping[str, Any]) -> str | None:
        if "kind" not in raw:
            others = [key for key in raw if key not in own]
            for key in difflib.get_close_matches("kind", others, n=1):
                self._fault((*path, key), sentence(path, f"unknown key {key!r}. Did you mean 'kind'?"))
                return None
            self._fault((*path, "kind"), sentence(path, f"missing key 'kind'.{nearest('', kinds.classes)}"))
        elif not isinstance(raw["kind"], str):
            self._faults.append(must_be((*path, "kind"), "text", raw["kind"]))
        else:
            return str(raw["kind"])
        return None

    def _controller(self, objectives: Sequence[Objective]) -> ControllerConfig | None:
        """Return the controller, its options checked against what is optimised."""
        raw = self._raw.get("controller")
        own: dict[str, Any] = {}
        if isinstance(raw, Mapping) and raw.get("warm_start") is not None:
            values, faults = validate(
                options_model(ControllerConfig, frozenset({"kind", "options"})),
                {"warm_start": raw["warm_start"]},
                ("controller",),
            )
            own, self._faults = values or {}, self._faults + faults
        config, controller = self._component("controller", own=("warm_start",))
        if config is None or not isinstance(controller, Controller):
            return None
        if not self._faults:
            _, faults = construct(lambda: controller.check_objectives(objectives), config.options, ("controller",))
            self._faults += faults
        return ControllerConfig(kind=config.kind, options=config.options, **own)

    def _task(self, dataset: object) -> tuple[ComponentConfig | None, Task | None]:
        """Return the task, by default what the data's targets are made for."""
        raw = self._mapping(("task",), self._raw.get("task"), " such as {kind: segmentation}")
        fitting = None
        if isinstance(dataset, Dataset):
            fitting = "segmentation" if dataset.is_dense else "classification"
        if raw is None:
            if fitting is None or "task" in self._given:
                return None, None
            raw = {"kind": fitting}
        cls, options = self._kind_and_options(("task",), raw, self._kinds["task"])
        if cls is None or options is None:
            return None, None
        config = ComponentConfig(kind=raw["kind"], options=options)
        if fitting and config.kind != fitting:
            text = f"the targets of the data are made for {fitting}, not for {config.kind}."
            self._fault(("task", "kind"), f"task.kind: {text}")
            return config, None
        names = _class_names(dataset)
        if names is None or not isinstance(dataset, Dataset):
            return config, None
        task, faults = construct(lambda: cls(names, dataset.ignore_index, **options), options, ("task",))
        self._faults += faults
        return config, task

    def _teacher(self, task_kind: str | None) -> TeacherSpec | None:
        raw = self._mapping(("teacher",), self._raw.get("teacher"), " such as {kind: unet}")
        if raw is None:
            return None
        self._needs_data("teacher")
        own_raw = {key: raw[key] for key in ("weights", "recipe") if raw.get(key) is not None}
        if isinstance(own_raw.get("recipe"), Mapping):
            # What a recipe leaves out is the teacher's default, not the candidates'.
            own_raw["recipe"] = dataclasses.asdict(TeacherSpec.recipe) | dict(own_raw["recipe"])
        own, faults = validate(options_model(TeacherSpec, frozenset({"kind", "options"})), own_raw, ("teacher",))
        self._faults += faults
        cls, options = self._kind_and_options(
            ("teacher",), raw, self._kinds["teacher"], dict.fromkeys(("weights", "recipe"))
        )
        is_onnx = cls is not None and issubclass(cls, OnnxTeacher)
        if is_onnx and raw.get("weights") is not None:
            self._fault(("teacher", "weights"), "teacher.weights: an ONNX file has its own; leave them out.")
        if (is_onnx or raw.get("weights") is not None) and raw.get("recipe") is not None:
            self._fault(("teacher", "recipe"), "teacher.recipe: given weights need no training; leave one out.")
        if cls is None or options is None:
            return None
        self._check_reference(("teacher", "kind"), raw["kind"], task_kind)
        with torch.device("meta"):  # shapes only: no memory, no initial weights
            _, faults = construct(lambda: cls(3, 2, **options), options, ("teacher",))
        self._faults += faults
        return None if own is None else TeacherSpec(kind=raw["kind"], options=options, **own)

    def _training(self) -> TrainingConfig | None:
        raw = self._mapping(("training",), self._raw.get("training"))
        if raw is None:
            return None
        own = TrainingConfig.model_fields.keys() - {"recipe"}
        recipe: TrainingRecipe | None = self._value("training", TrainingRecipe, raw, tuple(own))
        if recipe is None:
            return None
        own_raw = {key: raw[key] for key in own if raw.get(key) is not None}
        if "epochs" in raw and "stages" in own_raw:
            self._fault(("training", "epochs"), "training.epochs: each of the stages has its own; leave one out.")
        if isinstance(stages := own_raw.get("stages"), list | tuple):
            # What a stage leaves out is as the section says.
            shared = dataclasses.asdict(recipe)
            own_raw["stages"] = [shared | dict(stage) if isinstance(stage, Mapping) else stage for stage in stages]
        else:
            own_raw.setdefault("stages", [dataclasses.asdict(recipe)])
        values, faults = validate(options_model(TrainingConfig, frozenset({"recipe"})), own_raw, ("training",))
        self._faults += faults
        if values is None:
            return None
        config = TrainingConfig(recipe=recipe, **values)
        self._check_training(config)
        return config

    def _check_training(self, config: TrainingConfig) -> None:
        if not _TORCH_DEVICE.fullmatch(config.device):
            self._faults.append(must_be(("training", "device"), "auto, cpu, cuda or cuda:N", config.device))
        for name in ("n_threads_alone", "n_views"):
            if getattr(config, name) < 1:
                self._faults.append(must_be(("training", name), "an integer of at least 1", getattr(config, name)))
        if config.resident_gib < 0:
            self._faults.append(must_be(("training", "resident_gib"), "at least 0", config.resident_gib))
        if not config.stages:
            self._fault(("training", "stages"), "training.stages must hold at least one stage, got none.")
        for name in ("drop_rule", "successive_halving"):
            if getattr(config, name) is not None and len(config.stages) < 2:
                text = f"training.{name}: candidates are stopped between stages; give at least two of them."
                self._fault(("training", name), text)
        if config.drop_rule is not None and config.successive_halving is not None:
            text = "training.successive_halving: there is a drop_rule already; leave one out."
            self._fault(("training", "successive_halving"), text)
        for number, stage in enumerate(config.stages):
            if stage.train == "decoder" and "pretraining" not in self._given:
                text = "needs a pretraining section: the encoder's features are stored once it is trained."
                self._fault(("training", "stages", number, "train"), f"training.stages[{number}].train: decoder {text}")

    def _execution(self, training: TrainingConfig | None) -> ComponentConfig | None:
        config, executor = self._component("execution", _DEFAULT_EXECUTION)
        if training is not None and isinstance(executor, Executor):
            try:
                executor.check_device(training.device)
            except ValueError as error:
                self._fault(("execution", "resources_per_candidate"), f"execution.{error}.")
        return config

    def _pretraining(self, space: object) -> TrainingRecipe | None:
        raw = self._mapping(("pretraining",), self._raw.get("pretraining"))
        if raw is None:
            return None
        self._needs_data("pretraining")
        shares = isinstance(space, PretrainableSpace) and space.shares_encoder
        if isinstance(space, SearchSpace) and not shares:
            self._fault(("pretraining",), f"pretraining: the networks of {space.name!r} share no encoder.")
        recipe: TrainingRecipe | None = self._value("pretraining", TrainingRecipe, raw, ())
        return recipe

    def _augmentation(self, task: Task | None) -> Augmentation | None:
        raw = self._mapping(("augmentation",), self._raw.get("augmentation"))
        if raw is None:
            return None
        self._needs_data("augmentation")
        augmentation: Augmentation | None = self._value("augmentation", Augmentation, raw, ())
        if augmentation is not None and task is not None:
            _, faults = construct(functools.partial(augmentation.check, task), raw, ("augmentation",))
            self._faults += faults
        return augmentation

    def _distillation(self, has_teacher: bool, task_kind: str | None) -> DistillationConfig | None:
        raw = self._mapping(("distillation",), self._raw.get("distillation"))
        if raw is None:
            return DistillationConfig() if has_teacher and "distillation" not in self._given else None
        enabled = raw.get("enabled", True)
        if not isinstance(enabled, bool):
            self._faults.append(must_be(("distillation", "enabled"), "true or false", enabled))
        if enabled:
            self._needs_data("distillation")
            if "teacher" not in self._given:
                self._fault(("distillation",), "distillation needs a teacher section to learn from.")
        method = self._value("distillation", Distillation, raw, ("enabled",))
        if method is None or not isinstance(enabled, bool):
            return None
        if method.loss == "channel_wise" and task_kind == "classification":
            self._fault(
                ("distillation", "loss"), "distillation.loss: channel_wise is for segmentation; take kl or mse."
            )
        return DistillationConfig(enabled=enabled, method=method)

    def _value(self, section: str, cls: type, raw: Mapping[str, Any], own: tuple[str, ...]) -> Any:
        """Return the value of class `cls` that the keys of `raw` but `own` give."""
        rest = {key: value for key, value in raw.items() if key not in own}
        options, faults = validate(options_model(cls), rest, (section,), also_known=own)
        self._faults += faults
        if options is None:
            return None
        value, faults = construct(lambda: cls(**options), options, (section,))
        self._faults += faults
        return value

    def _needs_data(self, section: str) -> None:
        if "data" not in self._given:
            self._fault((section,), f"{section} needs a data section.")

    def _devices(self) -> dict[str, DeviceConfig]:
        raw = self._mapping(("devices",), self._raw.get("devices"), " such as {cpu: {kind: torch_cpu}}")
        return self._read_devices(raw or {})

    def _read_devices(self, raw: Mapping[str, Any]) -> dict[str, DeviceConfig]:
        devices = {}
        for name, section in raw.items():
            path = ("devices", name)
            if not _DEVICE_NAME.fullmatch(name):
                text = f"a name must be letters, digits, '_' and '-', got {name!r}."
                self._fault(path, sentence(("devices",), text))
            if not isinstance(section, Mapping):
                self._faults.append(must_be(path, "a mapping such as {kind: torch_cpu}", section))
                continue
            cls, options = self._kind_and_options(path, section, self._kinds["devices"])
            if cls is not None and options is not None:
                config, device = self._checked(path, section["kind"], cls, options)
                if config is not None and isinstance(device, Device):
                    devices[name] = DeviceConfig(kind=config.kind, options=options, metrics=device.metrics)
        return devices

    def _check_references(self, references: tuple[str, ...], task_kind: str | None) -> None:
        if references:
            self._needs_data("references")
        for index, kind in enumerate(references):
            path = ("references", index)
            known = REFERENCE_MODELS
            if kind not in known:
                self._fault(path, sentence(path, f"unknown reference model {kind!r}.{nearest(kind, known)}"))
            elif kind in references[:index]:
                self._fault(path, sentence(path, f"{kind!r} is given twice."))
            else:
                self._check_reference(path, kind, task_kind)

    def _check_reference(self, path: KeyPath, kind: str, task_kind: str | None) -> None:
        does = REFERENCE_TASKS.get(kind)
        if does is not None and task_kind is not None and does != task_kind:
            fitting = [name for name, task in REFERENCE_TASKS.items() if task == task_kind]
            self._fault(path, sentence(path, f"{kind!r} does {does}; for {task_kind} take {', '.join(fitting)}."))


def _class_names(dataset: object) -> tuple[str, ...] | None:
    """Return the names of the classes; `None` if they cannot be known now (files are missing, say).

    What is wrong with the data is the data check's to say, not ours: an old run's configuration has to load
    where its data is gone.
    """
    if not isinstance(dataset, Dataset):
        return None
    try:
        return dataset.class_names
    except (InputError, OSError, ImportError):
        return None
