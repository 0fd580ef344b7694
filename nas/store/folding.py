"""Folds the readings of a candidate into its record."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from nas.values.records import Observation, Record, epoch_loss

CONFIRMATION = "confirmation"  # stage name of readings of front members taken again, interleaved
RETRAINING = "retraining"  # stage name of scores on the test split after a full training


def search_readings(readings: Iterable[Observation]) -> list[Observation]:
    """Return the readings that the search itself took: not those of confirmation and retraining."""
    return [o for o in readings if o.stage not in (CONFIRMATION, RETRAINING)]


def folded(record: Record, readings: Iterable[Observation], *, confirmed: bool = True) -> Record:
    """Return `record` with the latest value of each metric.

    Args:
        record: As asked for, with or without a verdict.
        readings: All of this candidate, in the order taken.
        confirmed: Whether readings of the confirmation replace the first ones.
    """
    readings = list(readings)
    in_search = readings if confirmed else search_readings(readings)
    latest = {o.metric: o for o in in_search if o.stage != RETRAINING}
    curve = list(itertools.takewhile(latest.__contains__, map(epoch_loss, itertools.count(1))))
    epoch_losses = tuple(latest.pop(metric).value for metric in curve)
    retrained = {o.metric: o for o in readings if o.stage == RETRAINING}
    return dataclasses.replace(
        record,
        metrics={metric: o.value for metric, o in latest.items()},
        conditions={metric: o.conditions for metric, o in latest.items()},
        epoch_losses=epoch_losses,
        retrained={metric: o.value for metric, o in retrained.items()},
        retrained_conditions=next((_shared(o.conditions) for o in reversed(list(retrained.values()))), {}),
        retrained_spread={m: o.conditions["spread"] for m, o in retrained.items() if "spread" in o.conditions},
    )


def _shared(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all scores of a full training have in common."""
    return {name: value for name, value in conditions.items() if name not in ("rounds", "spread")}
