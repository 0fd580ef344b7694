"""The metrics that this program knows by name: where each comes from and which way it is better."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from nas.values.objectives import Direction


class MetricSource(StrEnum):
    """What gives a metric."""

    COMPLEXITY = "complexity"  # counted from the network, exactly
    DEVICE = "device"  # measured on a device
    TASK = "task"  # scored on the validation split after training
    FUNCTION = "function"  # returned by a user's Python function
    TABLE = "table"  # read from the table that is searched


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric before anything was measured.

    Attributes:
        source: What gives it.
        direction: Which way it is better; `None` where only the user knows.
        unit: As people read it: `ms`, `bytes` and `count` are written in the usual way; `""` for shares.
    """

    source: MetricSource
    direction: Direction | None
    unit: str = ""

    @property
    def needs_training(self) -> bool:
        """Whether the network has to be trained first."""
        return self.source is MetricSource.TASK


SCORE = MetricInfo(MetricSource.TASK, Direction.MAXIMIZE)
"""A share that a task gives: 1 is best."""

COSTS = {
    "n_params": MetricInfo(MetricSource.COMPLEXITY, Direction.MINIMIZE, "count"),
    "n_macs": MetricInfo(MetricSource.COMPLEXITY, Direction.MINIMIZE, "count"),
    "latency_ms": MetricInfo(MetricSource.DEVICE, Direction.MINIMIZE, "ms"),
    "peak_memory_bytes": MetricInfo(MetricSource.DEVICE, Direction.MINIMIZE, "bytes"),
    "energy_mj": MetricInfo(MetricSource.DEVICE, Direction.MINIMIZE, "mJ"),
}

CLASSIFICATION_SCORES = {"accuracy": SCORE}

SEGMENTATION_SCORES = {
    "mean_iou": SCORE,
    "mean_f1": SCORE,
    "mean_accuracy": SCORE,
    "frequency_weighted_iou": SCORE,
    "geometric_mean_score": SCORE,
}

METRICS = {**COSTS, **CLASSIFICATION_SCORES, **SEGMENTATION_SCORES}
"""All that are built in. A task of a user's own names its own (`Task.scores`)."""

CLASS_METRICS = {"iou": SCORE, "f1": SCORE}
"""Metrics of one class, written with its name: `iou[skin]`."""


def table_metric(column: str) -> MetricInfo:
    """Return what is known of the metric in a table's column: a name that is known says which way it is better."""
    known = METRICS.get(column)
    return (
        MetricInfo(MetricSource.TABLE, known.direction, known.unit) if known else MetricInfo(MetricSource.TABLE, None)
    )


def split_key(key: str) -> tuple[str, str | None]:
    """Return a metric's name and what its brackets hold: `("iou", "skin")`, `("n_params", None)`."""
    match = re.fullmatch(r"(\w+)\[(.+)\]", key)
    return (match[1], match[2]) if match else (key, None)


def metric_key(metric: str, device: str | None, measuring_devices: Collection[str]) -> str:
    """Return the name under which records keep `metric` as measured on `device`.

    Args:
        metric: Its name, e.g. `"latency_ms"`.
        device: The device's name in the configuration; `None` for a metric that needs no device.
        measuring_devices: All configured devices that measure `metric`; with more than one of them the key
            says which is meant.
    """
    if device is None or len(measuring_devices) < 2:
        return metric
    return f"{metric}[{device}]"


def plain_value(key: str, value: float, unit: str = "") -> float | int:
    """Return the value under `key` as files and programs are given it: counts and bytes as integers, where they are.

    Args:
        key: As for `metric_info`.
        value: Of it; stores keep floats.
        unit: As `MetricInfo.unit`; that of a built-in metric is known.
    """
    info = metric_info(key)
    is_count = (unit or (info.unit if info else "")) in ("count", "bytes")
    return int(value) if is_count and float(value).is_integer() else value


def metric_info(key: str) -> MetricInfo | None:
    """Return what is known of the metric that records keep under `key`; `None` if it is not built in.

    Knows `iou[CLASS]` and `latency_ms[DEVICE]`; whether that class or device exists, it cannot know.
    """
    if key in METRICS:
        return METRICS[key]
    name, qualifier = split_key(key)
    if qualifier is None:
        return None
    if name in CLASS_METRICS:
        return CLASS_METRICS[name]
    info = METRICS.get(name)
    return info if info is not None and info.source is MetricSource.DEVICE else None
