"""Checks the sections of a configuration that name metrics: objectives, constraints, the reference point."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from latency.devices import DEVICES
from latency.devices.base import Device
from nas.config.faults import blamed, nearest
from nas.config.kinds import Component
from nas.config.model import ConstraintConfig, ObjectiveConfig, RunConfig
from nas.config.yaml_source import KeyPath
from nas.values.metrics import CLASS_METRICS, COSTS, METRICS, MetricInfo, MetricSource, split_key
from nas.values.objectives import Constraint
from search_spaces.base import ModelSpace
from search_spaces.errors import SearchSpaceError
from search_spaces.spaces.tabular import Tabular

M = TypeVar("M", ObjectiveConfig, ConstraintConfig)

_DEFAULT_DEVICES = {"cpu": {"kind": "torch_cpu"}}


class MetricChecks:
    """Checks what one configuration says of metrics.

    Args:
        config: Its other sections, with the devices that are without fault.
        raw: The whole file as plain values.
        given: The sections that the user wrote, faulty and misspelled ones included.
        report: Notes a fault: of the value at a path, with a text about that or another path.
        read_section: Returns a section as raw values give it.
    """

    def __init__(
        self,
        config: RunConfig,
        raw: Mapping[str, Any],
        given: frozenset[str],
        report: Callable[..., None],
        read_section: Callable[[str, Any], Any],
    ) -> None:
        self._config = config
        self._raw = raw
        self._given = given
        self._report = report
        self._read_section = read_section
        functions = raw.get("metrics")
        self._function_names = list(functions) if isinstance(functions, Mapping) else []

    def checked(
        self, objectives: Mapping[int, ObjectiveConfig], constraints: Mapping[int, ConstraintConfig]
    ) -> RunConfig:
        """Return the configuration with direction and device of each metric, and with the devices that are used.

        Args:
            objectives: Those without fault, by their place in the file.
            constraints: Likewise.
        """
        self._check_functions()
        if self._raw.get("objectives") == []:
            self._report(("objectives",), "give one or more.")
        sound = [o for index, objective in objectives.items() if (o := self._objective(index, objective))]
        keys = [self._config.metric_key(objective.metric, objective.device) for objective in sound]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                self._report(("objectives", list(objectives)[index]), f"{key} is an objective already.")
        bounds = [c for index, constraint in constraints.items() if (c := self._constraint(index, constraint))]
        # A faulty objective may be the one that the reference point means.
        if len(keys) == len(self._raw.get("objectives") or ()):
            for name in self._config.reference_point or ():
                if name not in keys:
                    text = f"{name!r} is no objective.{nearest(name, keys)}"
                    self._report(("reference_point", name), text, ("reference_point",))
        return self._config.model_copy(update={"objectives": tuple(sound), "constraints": tuple(bounds)})

    def _check_functions(self) -> None:
        for name in self._function_names:
            if name in METRICS or not re.fullmatch(r"[A-Za-z_]\w*", name):
                reason = "is the name of a built-in metric" if name in METRICS else "is no name for a metric"
                self._report(("metrics", name), f"{name!r} {reason}; choose another.")

    def _objective(self, index: int, objective: ObjectiveConfig) -> ObjectiveConfig | None:
        path: KeyPath = ("objectives", index)
        info = self._info(objective.metric, (*path, "metric"))
        if info is None:
            return None
        direction = objective.direction or info.direction
        if direction is None:
            self._report(path, f"missing key 'direction': say maximize or minimize for {objective.metric}.")
        placed = self._on_device(objective, info, path)
        return placed.model_copy(update={"direction": direction}) if placed and direction else None

    def _constraint(self, index: int, constraint: ConstraintConfig) -> ConstraintConfig | None:
        path: KeyPath = ("constraints", index)
        if constraint.min is None and constraint.max is None:
            self._report(path, "give min, max or both.")
        else:
            try:
                Constraint(constraint.metric, constraint.min, constraint.max)
            except ValueError as error:
                fault = blamed(path, str(error), ("min", "max"))
                self._report(fault.path, fault.text, ())
        info = self._info(constraint.metric, (*path, "metric"))
        return self._on_device(constraint, info, path) if info else None

    def _info(self, metric: str, path: KeyPath) -> MetricInfo | None:
        """Return what is known of `metric`, or find the fault in it; also check that it can be had here."""
        space = self._config.search_space.instance if self._config.search_space else None
        if metric in self._function_names:
            return self._config.metric_info(metric) or MetricInfo(MetricSource.FUNCTION, None)
        if isinstance(space, Tabular):
            self._check_column(space, metric, path)
            return self._config.metric_info(metric)
        name, class_name = split_key(metric)
        built_in = CLASS_METRICS.get(name) if class_name is not None else METRICS.get(name)
        info = self._config.metric_info(metric) or built_in
        if info is None:
            task = self._config.task and self._config.task.cls
            scores = {**task.scores, **COSTS} if task else METRICS
            of_classes = self._scores_of_classes()
            self._report(
                path, f"unknown metric {metric!r}.{nearest(metric, [*scores, *self._function_names, *of_classes])}"
            )
            return None
        if space is not None and not isinstance(space, ModelSpace):
            self._report(path, f"{metric} needs networks, and search space {space.name!r} builds none.")
            return info
        if "data" not in self._given:
            reason = "to train on" if info.needs_training else "for the sizes of input and output"
            self._report(path, f"{metric} needs a data section {reason}.")
        if info.needs_training:
            self._check_score(metric, class_name, path)
        return info

    def _check_column(self, table: Tabular, metric: str, path: KeyPath) -> None:
        try:
            columns = table.columns
        except SearchSpaceError:  # the check at the run's start says what is wrong with the table
            return
        if metric not in columns:
            self._report(path, f"the table has no column {metric!r}.{nearest(metric, columns)}")

    def _scores_of_classes(self) -> list[str]:
        task = self._config.task and self._config.task.instance
        return [metric for metric in task.metrics if split_key(metric)[1] is not None] if task else []

    def _check_score(self, metric: str, class_name: str | None, path: KeyPath) -> None:
        if "training" not in self._given:
            self._report(path, f"{metric} needs a training section.")
        task = self._config.task
        if task is None:
            return
        if self._config.metric_info(metric) is None:
            self._report(path, f"{task.kind} gives no {metric}.{nearest(metric, task.cls.scores)}")
        elif task.instance is not None and metric not in task.instance.metrics:
            names = task.instance.class_names
            text = f"unknown class {class_name!r}.{nearest(class_name, names)}"
            if class_name is None or class_name in names:
                text = f"the task gives no {metric}.{nearest(metric, task.instance.metrics)}"
            self._report(path, text)

    def _on_device(self, item: M, info: MetricInfo, path: KeyPath) -> M | None:
        """Return an objective or a constraint with the device that it is measured on; `None` if that is not sure."""
        metric: str = item.metric
        devices: Mapping[str, Component[Device]] = self._devices(info)
        raw: Any = self._raw.get("devices")
        if info.source is not MetricSource.DEVICE:
            if item.device is not None:
                self._report((*path, "device"), f"{metric} is not measured on a device; leave it out.")
            return item
        measuring = [name for name, device in devices.items() if metric in device.instance.metrics]
        are_all_known = raw is None or (isinstance(raw, Mapping) and len(devices) == len(raw))
        if item.device in measuring:
            return item
        if item.device is not None and (raw is None or isinstance(raw, Mapping)):
            at = (*path, "device")
            if item.device in devices:
                others = f"those that do: {', '.join(measuring)}" if measuring else _kinds_that_measure(metric)
                kind = devices[item.device].kind
                self._report(at, f"{item.device!r} ({kind}) does not measure {metric}; {others}.")
            elif item.device not in (raw or ()):
                self._report(at, f"unknown device {item.device!r}.{nearest(item.device, {*devices, *(raw or ())})}")
        elif are_all_known and len(measuring) == 1:
            return item.model_copy(update={"device": measuring[0]})
        elif are_all_known and measuring:
            self._report(path, f"missing key 'device': {metric} is measured on {', '.join(measuring)}.")
        elif are_all_known:
            self._report(path, f"none of the devices measures {metric}; {_kinds_that_measure(metric)}.")
        return None

    def _devices(self, info: MetricInfo) -> Mapping[str, Component[Device]]:
        """Return the devices; this machine's CPU where a metric needs one and the file names none."""
        if info.source is MetricSource.DEVICE and "devices" not in self._given and not self._config.devices:
            devices = self._read_section("devices", _DEFAULT_DEVICES)
            self._config = self._config.model_copy(update={"devices": devices})
        return self._config.devices


def _kinds_that_measure(metric: str) -> str:
    return f"kinds that do: {', '.join(kind for kind, cls in DEVICES.items() if metric in cls.metrics)}"
