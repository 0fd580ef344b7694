"""What a latency measurement returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from latency.timing.calls import CallTimes, median_interval
from latency.timing.conditions import is_disturbed, undisturbed_ms


@dataclass(frozen=True)
class LatencyStats:
    """The latency of one call, over repeated calls, with the conditions it was taken under.

    Attributes:
        median_ms: The number to quote.
        p10_ms: One call in ten was faster.
        p90_ms: One call in ten was slower.
        n_runs: Timed calls, those of the warm-up not counted.
        conditions: Device, runtime, precision, batch size, threads, versions: plain JSON values.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    n_runs: int
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_disturbed(self) -> bool:
        """Whether the median rests on calls that something else interrupted: it may be far too high."""
        return is_disturbed(self.conditions)

    @property
    def undisturbed_ms(self) -> float:
        """What the call would take with nothing beside it, as far as can be told: at most the median."""
        return undisturbed_ms(self.median_ms, self.conditions)

    def __post_init__(self) -> None:
        if self.n_runs < 1 or not 0 < self.p10_ms <= self.median_ms <= self.p90_ms < float("inf"):
            raise ValueError(
                "latencies must be finite and positive, p10 <= median <= p90 over at least one run, "
                f"got {self.p10_ms}, {self.median_ms}, {self.p90_ms} over {self.n_runs}"
            )

    @classmethod
    def from_times_s(cls, times_s: Sequence[float], conditions: Mapping[str, Any]) -> Self:
        """Summarise the durations of single calls, in seconds."""
        p10, median, p90 = np.percentile(np.asarray(times_s) * 1000.0, [10, 50, 90])
        return cls(float(median), float(p10), float(p90), len(times_s), dict(conditions))

    @classmethod
    def from_reading(
        cls, times: CallTimes, n_readings: int, relative_interval: float | None, conditions: Mapping[str, Any]
    ) -> Self:
        """Summarise what `time_until_stable` returned; how sure the median is stands in the conditions.

        Args:
            times: The reading kept.
            n_readings: How many were taken.
            relative_interval: What counted as stable; `None` where nobody asked.
            conditions: The device's own.
        """
        low, high = median_interval(times.times_s)
        certainty: dict[str, Any] = {
            "median_interval_ms": [1000.0 * low, 1000.0 * high],
            "n_readings": n_readings,
            "n_warmup": times.n_warmup,
            "is_warm_up_settled": times.is_settled,
            "n_disturbed": times.n_disturbed,
            "is_disturbed": times.is_disturbed,
            "undisturbed_ms": 1000.0 * times.undisturbed_s,
        }
        if relative_interval is not None:
            certainty["is_stable"] = times.is_stable(relative_interval)
        return cls.from_times_s(times.times_s, {**conditions, **certainty})
