"""What the stored conditions of a latency reading say of it. Imports no library, for whoever only reads."""

from collections.abc import Mapping
from typing import Any


def is_disturbed(conditions: Mapping[str, Any]) -> bool:
    """Return `LatencyStats.is_disturbed` of a reading of which the conditions were kept; unknown counts as no."""
    return bool(conditions.get("is_disturbed", False))


def undisturbed_ms(median_ms: float, conditions: Mapping[str, Any]) -> float:
    """Return `LatencyStats.undisturbed_ms` of a reading of which median and conditions were kept."""
    return min(median_ms, float(conditions.get("undisturbed_ms", median_ms)))
