"""Reads the sections of a configuration and checks them together. Only `load_config` needs it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency.devices.base import Device
from nas.config.metric_sections import MetricSections, MetricsReader, RunContext
from nas.config.model import (
    ComponentConfig,
    ControllerConfig,
    DeviceConfig,
    RunConfig,
    TrainingConfig,
)
from nas.config.options import construct, must_be, nearest, options_model, sentence, validate
from nas.config.section_reader import SectionReader
from nas.config.training_sections import TrainingReader
from nas.config.yaml_source import KeyPath, YamlSource
from nas.controllers.base import Controller
from nas.data.base import Dataset
from nas.data.files import absolute_root
from nas.errors import InputError
from nas.execution.base import Executor
from nas.registry import KINDS, Kinds
from nas.tasks.base import Task
from nas.values.budgets import Budget
from nas.values.objectives import Objective
from search_spaces.base import SearchSpace
from search_spaces.references.reference_models import REFERENCE_MODELS

_SCALARS = ("name", "seed", "scheduling", "seeds_per_candidate", "front_seeds", "references", "tensorboard")
_REQUIRED = ("search_space", "controller", "objectives")
_SECTIONS = frozenset(RunConfig.model_fields) - set(_SCALARS)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULT_DEVICE = {"cpu": {"kind": "torch_cpu"}}
MAX_SEED = 2**32 - 1  # what every library that is seeded takes
_DEFAULT_EXECUTION = {"kind": "serial"}


class ConfigReader(SectionReader):
    """Reads one configuration, once.

    Args:
        source: What the user wrote.
        trust_code: Whether Python code that it names may be imported.
        kinds: By section, what its `kind` may be.
    """

    def __init__(self, source: YamlSource, *, trust_code: bool = False, kinds: Mapping[str, Kinds] = KINDS) -> None:
        super().__init__(source.data, _given_sections(source.data), trust_code, kinds)
        self._source = source

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
        context = RunContext(
            given=self._given,
            space=space if isinstance(space, SearchSpace) else None,
            task_kind=task_kind,
            task=task,
            class_names=_class_names(dataset),
            devices=self._devices(),
            has_device_faults=any(fault.path[:1] == ("devices",) for fault in self.faults),
            default_devices=lambda: self._read_devices(_DEFAULT_DEVICE),
        )
        metrics = MetricsReader(self._raw, context, self._trust_code)
        metric_sections = metrics.read()
        objectives = [Objective(metrics.key(o), o.direction) for o in metric_sections["objectives"]]
        trainings = TrainingReader(self._raw, self._given, self._trust_code, self._kinds)
        sections |= trainings.read(dataset, space, task, task_kind)
        self.faults += metrics.faults + trainings.faults
        sections |= {
            "search_space": space_config,
            "data": data_config,
            "task": task_config,
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
        if self.faults:
            raise self._source.error(self.faults)
        return RunConfig(**sections, **metric_sections)

    def _read_scalars(self) -> dict[str, Any]:
        model = options_model(RunConfig, _SECTIONS)
        raw = {key: value for key, value in self._raw.items() if key not in _SECTIONS}
        values, faults = validate(model, raw, (), also_known=_SECTIONS)
        self.faults += faults
        name = self._raw.get("name")
        if isinstance(name, str) and not _FILE_NAME.fullmatch(name):
            what = "letters, digits, '.', '_' and '-', the first a letter or digit"
            self.faults.append(must_be(("name",), what, name))
        seed = (values or {}).get("seed", 0)
        if not 0 <= seed <= MAX_SEED:
            self.faults.append(must_be(("seed",), f"an integer of 0 .. {MAX_SEED}", seed))
        for key, least in (("seeds_per_candidate", 1), ("front_seeds", 0)):
            value = (values or {}).get(key, least)
            if value < least:
                self.faults.append(must_be((key,), f"an integer of at least {least}", value))
            elif value > least and "training" not in self._given:
                self._fault((key,), f"{key} needs a training section: only trainings depend on the seed.")
        return values or {}

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
            self.faults.append(must_be((section,), f"a mapping{example}", raw))
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
        if path == ("data",) and isinstance(root := options.get("root"), Path):
            options = {**options, "root": absolute_root(root)}
        made, faults = construct(lambda: cls(**options), options, path)
        self.faults += faults
        return (None if faults else ComponentConfig(kind=kind, options=options)), made

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
            own, self.faults = values or {}, self.faults + faults
        config, controller = self._component("controller", own=("warm_start",))
        if config is None or not isinstance(controller, Controller):
            return None
        if not self.faults:
            _, faults = construct(lambda: controller.check_objectives(objectives), config.options, ("controller",))
            self.faults += faults
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
        self.faults += faults
        return config, task

    def _execution(self, training: TrainingConfig | None) -> ComponentConfig | None:
        config, executor = self._component("execution", _DEFAULT_EXECUTION)
        if training is not None and isinstance(executor, Executor):
            try:
                executor.check_device(training.device)
            except ValueError as error:
                self._fault(("execution", "resources_per_candidate"), f"execution.{error}.")
        return config

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
                self.faults.append(must_be(path, "a mapping such as {kind: torch_cpu}", section))
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


def _given_sections(raw: Mapping[str, Any]) -> frozenset[str]:
    """Return the sections that the user wrote; misspelled ones too, so that one slip is one fault."""
    given = {name for name in _SECTIONS if raw.get(name) is not None}
    given |= {name for name in _REQUIRED if name in raw}
    for key in raw:
        if key not in RunConfig.model_fields:
            given |= set(difflib.get_close_matches(key, RunConfig.model_fields, n=1))
    return frozenset(given)


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
