"""Checks the sections of a configuration that name metrics: objectives, constraints, the reference point."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from latency.devices import DEVICES
from latency.devices.base import Device
from nas.config.draft import Draft
from nas.config.faults import blamed, nearest
from nas.config.kinds import Component
from nas.config.model import ConstraintConfig, ObjectiveConfig
from nas.config.yaml_source import KeyPath
from nas.values.metrics import CLASS_METRICS, COSTS, METRICS, MetricInfo, MetricSource, split_key
from nas.values.objectives import Constraint
from search_spaces.base import ModelSpace
from search_spaces.errors import SearchSpaceError
from search_spaces.spaces.tabular import Tabular

M = TypeVar("M", ObjectiveConfig, ConstraintConfig)

_DEFAULT_DEVICES = {"cpu": {"kind": "torch_cpu"}}


def check_metrics(draft: Draft) -> None:
    """Fill in direction and device of each metric, and the devices that are used."""
    for name in _function_names(draft):
        if name in METRICS or not re.fullmatch(r"[A-Za-z_]\w*", name):
            reason = "is the name of a built-in metric" if name in METRICS else "is no name for a metric"
            draft.report(("metrics", name), f"{name!r} {reason}; choose another.")
    if draft.raw.get("objectives") == []:
        draft.report(("objectives",), "give one or more.")
    objectives = [o and _objective(draft, index, o) for index, o in enumerate(draft.config.objectives or ())]
    keys = [draft.config.metric_key(o.metric, o.device) if o else None for o in objectives]
    for index, key in enumerate(keys):
        if key is not None and key in keys[:index]:
            draft.report(("objectives", index), f"{key} is an objective already.")
    constraints = [c and _constraint(draft, index, c) for index, c in enumerate(draft.config.constraints)]
    sound = [key for key in keys if key is not None]
    # A faulty objective may be the one that the reference point means.
    given = draft.raw.get("objectives")
    if isinstance(given, list) and len(sound) == len(given):
        for name in draft.config.reference_point:
            if name not in sound:
                text = f"{name!r} is no objective.{nearest(name, sound)}"
                draft.report(("reference_point", name), text, ("reference_point",))
    draft.update(objectives=tuple(filter(None, objectives)), constraints=tuple(filter(None, constraints)))


def _function_names(draft: Draft) -> list[str]:
    functions = draft.raw.get("metrics")
    return list(functions) if isinstance(functions, Mapping) else []


def _objective(draft: Draft, index: int, objective: ObjectiveConfig) -> ObjectiveConfig | None:
    path: KeyPath = ("objectives", index)
    info = _info(draft, objective.metric, (*path, "metric"))
    if info is None:
        return None
    direction = objective.direction or info.direction
    if direction is None:
        draft.report(path, f"missing key 'direction': say maximize or minimize for {objective.metric}.")
    placed = _on_device(draft, objective, info, path)
    return placed.model_copy(update={"direction": direction}) if placed and direction else None


def _constraint(draft: Draft, index: int, constraint: ConstraintConfig) -> ConstraintConfig | None:
    path: KeyPath = ("constraints", index)
    if constraint.min is None and constraint.max is None:
        draft.report(path, "give min, max or both.")
    else:
        try:
            Constraint(constraint.metric, constraint.min, constraint.max)
        except ValueError as error:
            fault = blamed(path, str(error), ("min", "max"))
            draft.report(fault.path, fault.text, ())
    info = _info(draft, constraint.metric, (*path, "metric"))
    return _on_device(draft, constraint, info, path) if info else None


def _info(draft: Draft, metric: str, path: KeyPath) -> MetricInfo | None:
    """Return what is known of `metric`, or report the fault in it; also check that it can be had here."""
    config, functions = draft.config, _function_names(draft)
    space = config.search_space.instance if config.search_space else None
    if metric in functions:
        return config.metric_info(metric) or MetricInfo(MetricSource.FUNCTION, None)
    if isinstance(space, Tabular):
        _check_column(draft, space, metric, path)
        return config.metric_info(metric)
    name, class_name = split_key(metric)
    built_in = CLASS_METRICS.get(name) if class_name is not None else METRICS.get(name)
    info = config.metric_info(metric) or built_in
    if info is None:
        scores = {**config.task.cls.scores, **COSTS} if config.task else METRICS
        task = config.task and config.task.instance
        of_classes = [name for name in task.metrics if split_key(name)[1] is not None] if task else []
        draft.report(path, f"unknown metric {metric!r}.{nearest(metric, [*scores, *functions, *of_classes])}")
        return None
    if space is not None and not isinstance(space, ModelSpace):
        draft.report(path, f"{metric} needs networks, and search space {space.name!r} builds none.")
        return info
    if "data" not in draft.given:
        reason = "to train on" if info.needs_training else "for the sizes of input and output"
        draft.report(path, f"{metric} needs a data section {reason}.")
    if info.needs_training:
        _check_score(draft, metric, class_name, path)
    return info


def _check_column(draft: Draft, table: Tabular, metric: str, path: KeyPath) -> None:
    try:
        columns = table.columns
    except SearchSpaceError:  # the check at the run's start says what is wrong with the table
        return
    if metric not in columns:
        draft.report(path, f"the table has no column {metric!r}.{nearest(metric, columns)}")


def _check_score(draft: Draft, metric: str, class_name: str | None, path: KeyPath) -> None:
    if "training" not in draft.given:
        draft.report(path, f"{metric} needs a training section.")
    task = draft.config.task
    if task is None:
        return
    if draft.config.metric_info(metric) is None:
        draft.report(path, f"{task.kind} gives no {metric}.{nearest(metric, task.cls.scores)}")
    elif task.instance is not None and metric not in task.instance.metrics:
        names = task.instance.class_names
        text = f"unknown class {class_name!r}.{nearest(class_name, names)}"
        if class_name is None or class_name in names:
            text = f"the task gives no {metric}.{nearest(metric, task.instance.metrics)}"
        draft.report(path, text)


def _on_device(draft: Draft, item: M, info: MetricInfo, path: KeyPath) -> M | None:
    """Return an objective or a constraint with the device that it is measured on; `None` if that is not sure."""
    metric: str = item.metric
    raw: Any = draft.raw.get("devices")
    if info.source is not MetricSource.DEVICE:
        if item.device is not None:
            draft.report((*path, "device"), f"{metric} is not measured on a device; leave it out.")
        return item
    if "devices" not in draft.given and not draft.config.devices:  # this machine's CPU, then
        draft.update(devices=draft.section("devices", _DEFAULT_DEVICES))
    devices: Mapping[str, Component[Device]] = draft.config.devices
    measuring = [name for name, device in devices.items() if metric in device.instance.metrics]
    are_all_known = raw is None or (isinstance(raw, Mapping) and len(devices) == len(raw))
    if item.device in measuring:
        return item
    if item.device is not None and (raw is None or isinstance(raw, Mapping)):
        at = (*path, "device")
        if item.device in devices:
            others = f"those that do: {', '.join(measuring)}" if measuring else _kinds_that_measure(metric)
            kind = devices[item.device].kind
            draft.report(at, f"{item.device!r} ({kind}) does not measure {metric}; {others}.")
        elif item.device not in (raw or ()):
            draft.report(at, f"unknown device {item.device!r}.{nearest(item.device, {*devices, *(raw or ())})}")
    elif are_all_known and len(measuring) == 1:
        return item.model_copy(update={"device": measuring[0]})
    elif are_all_known and measuring:
        draft.report(path, f"missing key 'device': {metric} is measured on {', '.join(measuring)}.")
    elif are_all_known:
        draft.report(path, f"none of the devices measures {metric}; {_kinds_that_measure(metric)}.")
    return None


def _kinds_that_measure(metric: str) -> str:
    return f"kinds that do: {', '.join(kind for kind, cls in DEVICES.items() if metric in cls.metrics)}"
