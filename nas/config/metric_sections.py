"""Reads the sections of a configuration that speak of metrics, and checks them against all the others."""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from latency.devices.base import Device
from nas.config.kinds import find_object
from nas.config.model import Component, ConstraintConfig, FunctionMetricConfig, ObjectiveConfig
from nas.config.options import (
    construct,
    is_finite_number,
    must_be,
    nearest,
    options_model,
    sentence,
    validate,
)
from nas.config.yaml_source import Fault, KeyPath
from nas.tasks.base import Task
from nas.values.metrics import (
    CLASS_METRICS,
    FUNCTION_METRIC,
    METRICS,
    MetricInfo,
    MetricSource,
    metric_key,
    split_key,
    table_metric,
)
from nas.values.objectives import Constraint, Direction
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.errors import SearchSpaceError
from search_spaces.spaces.tabular import Tabular

_METRIC_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class RunContext:
    """What the rest of the configuration says.

    Attributes:
        given: The sections that the user wrote, faulty ones included.
        space: `None` if its section is faulty.
        task_kind: `None` if it is not known.
        task: `None` if it cannot be made now.
        class_names: `None` if they cannot be read now.
        devices: Those without fault.
        has_device_faults: Whether there are others.
        default_devices: Makes the devices of a configuration that names none.
    """

    given: frozenset[str]
    space: SearchSpace | None
    task_kind: str | None
    task: Task | None
    class_names: tuple[str, ...] | None
    devices: dict[str, Component[Device]]
    has_device_faults: bool
    default_devices: Callable[[], dict[str, Component[Device]]]


class MetricSections(TypedDict):
    """The fields of a `RunConfig` that are read here."""

    metrics: dict[str, FunctionMetricConfig]
    devices: dict[str, Component[Device]]
    objectives: tuple[ObjectiveConfig, ...]
    constraints: tuple[ConstraintConfig, ...]
    reference_point: dict[str, float | None]


@dataclass(frozen=True)
class _ObjectiveKeys:
    metric: str
    device: str | None = None
    direction: Direction | None = None


@dataclass(frozen=True)
class _ConstraintKeys:
    metric: str
    device: str | None = None
    min: float | None = None
    max: float | None = None


class MetricsReader:
    """Reads `metrics`, `objectives`, `constraints` and `reference_point`, once.

    Args:
        raw: The whole configuration as plain values.
        context: What its other sections say.
        trust_code: Whether functions that it names may be imported.
    """

    def __init__(self, raw: Mapping[str, Any], context: RunContext, trust_code: bool) -> None:
        self.faults: list[Fault] = []
        self._raw = raw
        self._context = context
        self._trust_code = trust_code
        self._devices = dict(context.devices)
        functions = raw.get("metrics")
        self._function_names = list(functions) if isinstance(functions, Mapping) else []

    def read(self) -> MetricSections:
        """Return what could be read; with faults, some may be missing."""
        functions = self._functions()
        if isinstance(self._context.space, Tabular) and "data" in self._context.given:
            self._fault(("data",), "a table holds all that is known of its rows; leave the data section out.")
        objectives = self._objectives()
        return MetricSections(
            metrics=functions,
            objectives=tuple(objectives),
            constraints=tuple(self._constraints()),
            reference_point=self._reference_point(objectives),
            devices=self._devices,
        )

    def _fault(self, path: KeyPath, message: str) -> None:
        self.faults.append(Fault(path, sentence(path, message)))

    def _functions(self) -> dict[str, FunctionMetricConfig]:
        raw = self._raw.get("metrics")
        if raw is not None and not isinstance(raw, Mapping):
            self.faults.append(must_be(("metrics",), "a mapping of names to functions", raw))
        functions = {}
        for name in self._function_names:
            path = ("metrics", name)
            if name in METRICS or not _METRIC_NAME.fullmatch(name):
                reason = "is the name of a built-in metric" if name in METRICS else "is no name for a metric"
                self._fault(path, f"{name!r} {reason}; choose another.")
            values = self._keys(FunctionMetricConfig, self._raw["metrics"][name], path)
            if values is not None:
                self._check_function(values["function"], (*path, "function"))
                functions[name] = FunctionMetricConfig(**values)
        return functions

    def _check_function(self, name: str, path: KeyPath) -> None:
        found, faults = find_object(name, path, self._trust_code)
        self.faults += faults
        if not faults and not callable(found):
            self._fault(path, f"{name!r} must be a function.")

    def _keys(self, cls: type, raw: Any, path: KeyPath) -> dict[str, Any] | None:
        if not isinstance(raw, Mapping):
            self.faults.append(must_be(path, "a mapping", raw))
            return None
        values, faults = validate(options_model(cls), raw, path)
        self.faults += faults
        return values

    def _items(self, section: str) -> list[Any]:
        raw = self._raw.get(section)
        if raw is None and not (section == "objectives" and section in self._raw):
            return []
        if not isinstance(raw, list):
            self.faults.append(must_be((section,), "a list", raw))
            return []
        return raw

    def _objectives(self) -> list[ObjectiveConfig]:
        items = self._items("objectives")
        if self._raw.get("objectives") == []:
            self._fault(("objectives",), "give one or more.")
        objectives: list[ObjectiveConfig] = []
        for index, raw in enumerate(items):
            path: KeyPath = ("objectives", index)
            keys = self._keys(_ObjectiveKeys, raw, path)
            info = None if keys is None else self._info(keys["metric"], (*path, "metric"))
            if keys is None or info is None:
                continue
            direction = keys["direction"] or info.direction
            if direction is None:
                self._fault(path, f"missing key 'direction': say maximize or minimize for {keys['metric']}.")
            device, is_sure = self._device(keys, info, path)
            if direction is None or not is_sure:
                continue
            objective = ObjectiveConfig(metric=keys["metric"], device=device, direction=direction)
            if any((o.metric, o.device) == (objective.metric, device) for o in objectives):
                self._fault(path, f"{self.key(objective)} is an objective already.")
            objectives.append(objective)
        return objectives

    def _constraints(self) -> list[ConstraintConfig]:
        constraints = []
        for index, raw in enumerate(self._items("constraints")):
            path: KeyPath = ("constraints", index)
            keys = self._keys(_ConstraintKeys, raw, path)
            if keys is None:
                continue
            low, high = keys["min"], keys["max"]
            if low is None and high is None:
                self._fault(path, "give min, max or both.")
            else:
                _, faults = construct(functools.partial(Constraint, keys["metric"], low, high), keys, path)
                self.faults += faults
            info = self._info(keys["metric"], (*path, "metric"))
            if info is not None:
                device, is_sure = self._device(keys, info, path)
                if is_sure:
                    constraints.append(ConstraintConfig(**(keys | {"device": device})))
        return constraints

    def _reference_point(self, objectives: list[ObjectiveConfig]) -> dict[str, float | None]:
        raw = self._raw.get("reference_point")
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            self.faults.append(must_be(("reference_point",), "a mapping of objectives to numbers", raw))
            return {}
        keys = [self.key(objective) for objective in objectives]
        items = self._raw.get("objectives")
        are_all_read = isinstance(items, list) and len(keys) == len(items) > 0
        for name, value in raw.items():
            path = ("reference_point", name)
            if value is not None and not is_finite_number(value):
                self.faults.append(must_be(path, "a finite number or null", value))
            # A faulty objective may be the one that is meant.
            if name not in keys and are_all_read:
                text = f"{name!r} is no objective.{nearest(name, keys)}"
                self.faults.append(Fault(path, sentence(("reference_point",), text)))
        if self.faults:
            return {}
        return {name: None if value is None else float(value) for name, value in raw.items()}

    def key(self, objective: ObjectiveConfig) -> str:
        """Return the name under which records keep the objective's metric."""
        return metric_key(objective.metric, objective.device, self._measuring(objective.metric))

    def _measuring(self, metric: str) -> list[str]:
        return [name for name, device in self._devices.items() if metric in device.instance.metrics]

    def _info(self, metric: str, path: KeyPath) -> MetricInfo | None:
        """Return what is known of `metric`, or find the fault in it; also check that it can be had here."""
        name, class_name = split_key(metric)
        if metric in self._function_names:
            return FUNCTION_METRIC
        if isinstance(self._context.space, Tabular):
            return self._table_info(self._context.space, metric, path)
        info = CLASS_METRICS.get(name) if class_name is not None else METRICS.get(name)
        if info is None:
            known = [*METRICS, *self._function_names, *self._class_metrics()]
            self._fault(path, f"unknown metric {metric!r}.{nearest(metric, known)}")
            return None
        self._check_available(metric, info, path)
        return info

    def _table_info(self, table: Tabular, metric: str, path: KeyPath) -> MetricInfo | None:
        try:
            columns = table.columns
        except SearchSpaceError:  # the check at the run's start says what is wrong with the table
            return table_metric(metric)
        if metric not in columns:
            self._fault(path, f"the table has no column {metric!r}.{nearest(metric, columns)}")
            return None
        return table_metric(metric)

    def _class_metrics(self) -> list[str]:
        if self._context.task is None:
            return []
        return [metric for metric in self._context.task.metrics if split_key(metric)[1] is not None]

    def _check_available(self, metric: str, info: MetricInfo, path: KeyPath) -> None:
        given, space = self._context.given, self._context.space
        if space is not None and not isinstance(space, ModelSpace):
            self._fault(path, f"{metric} needs networks, and search space {space.name!r} builds none.")
            return
        if "data" not in given:
            reason = "to train on" if info.needs_training else "for the sizes of input and output"
            self._fault(path, f"{metric} needs a data section {reason}.")
        if info.needs_training and "training" not in given:
            self._fault(path, f"{metric} needs a training section.")
        if info.needs_training and self._context.task_kind is not None:
            self._check_task(metric, info, path)

    def _check_task(self, metric: str, info: MetricInfo, path: KeyPath) -> None:
        task_kind, task = self._context.task_kind, self._context.task
        class_name, class_names = split_key(metric)[1], self._context.class_names
        if info.task != task_kind:
            known = [name for name, other in METRICS.items() if other.task == task_kind]
            self._fault(path, f"{task_kind} gives no {metric}.{nearest(metric, known)}")
        elif class_name is not None and class_names is not None and class_name not in class_names:
            self._fault(path, f"unknown class {class_name!r}.{nearest(class_name, class_names)}")
        elif task is not None and metric not in task.metrics:
            self._fault(path, f"the task gives no {metric}.{nearest(metric, task.metrics)}")

    def _device(self, keys: Mapping[str, Any], info: MetricInfo, path: KeyPath) -> tuple[str | None, bool]:
        """Return the device that `metric` is measured on, if it is a device's, and whether that is sure."""
        metric, device = keys["metric"], keys["device"]
        if info.source is not MetricSource.DEVICE:
            if device is not None:
                self._fault((*path, "device"), f"{metric} is not measured on a device; leave it out.")
            return None, device is None
        if not self._devices and "devices" not in self._context.given:
            self._devices = self._context.default_devices()
        if device is not None:
            return device, self._check_device(metric, device, (*path, "device"))
        measuring = self._measuring(metric)
        if self._context.has_device_faults:
            return None, False  # which device is meant shows once their sections are right
        if len(measuring) == 1:
            return measuring[0], True
        if measuring:
            self._fault(path, f"missing key 'device': {metric} is measured on {', '.join(measuring)}.")
        else:
            self._fault(path, f"none of the devices measures {metric}.")
        return None, False

    def _check_device(self, metric: str, device: str, path: KeyPath) -> bool:
        raw = self._raw.get("devices")
        if raw is not None and not isinstance(raw, Mapping):
            return False  # a fault of its own
        known = {*self._devices, *(raw or ())}
        if device not in known:
            self._fault(path, f"unknown device {device!r}.{nearest(device, known)}")
            return False
        config = self._devices.get(device)
        if config is not None and metric not in config.instance.metrics:
            measuring = self._measuring(metric)
            others = f" Those that do: {', '.join(measuring)}." if measuring else ""
            self._fault(path, f"{device!r} ({config.kind}) does not measure {metric}.{others}")
            return False
        return config is not None
