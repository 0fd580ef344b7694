"""What a search may use up, what it has used up, and what is left by the candidates measured so far."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le, Unit

from nas.values.bounds import check_bounds

_S_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Usage:
    """What a search has used up since its first candidate, in all of its processes together.

    Attributes:
        hours: Of wall-clock time, while a process searched.
        gpu_hours: The same, times the GPUs that were held.
        n_trained: Candidates that went beyond the measuring of costs, whatever came of it.
    """

    hours: float = 0.0
    gpu_hours: float = 0.0
    n_trained: int = 0


@dataclass(frozen=True)
class Budget:
    """What a search may use up: it asks for nothing new once one of these is reached.

    What was asked for until then is finished, and the front is measured again. Making a teacher or an encoder
    is not counted: they are kept for other runs.

    Attributes:
        hours: Of wall-clock time; `None` for any.
        n_trained: Candidates trained; those outside the bounds cost no training and are not counted.
        gpu_hours: Wall-clock hours times the GPUs held, busy or not.
    """

    hours: Annotated[float, Gt(0), Le(1e6), Unit("h")] | None = None
    n_trained: Annotated[int, Gt(0), Le(10**9)] | None = None
    gpu_hours: Annotated[float, Gt(0), Le(1e9), Unit("GPU h")] | None = None

    def __post_init__(self) -> None:
        check_bounds(self)

    def is_used_up(self, usage: Usage) -> bool:
        """Return whether nothing is left of one of its parts."""
        limits = dataclasses.asdict(self)
        return any(limit is not None and getattr(usage, name) >= limit for name, limit in limits.items())

    def seconds_left(self, usage: Usage, n_gpus: float) -> float | None:
        """Return how long hours and GPU-hours last while `n_gpus` are held; `None` where neither is limited."""
        left: list[float] = []
        if self.hours is not None:
            left.append(self.hours - usage.hours)
        if self.gpu_hours is not None and n_gpus:
            left.append((self.gpu_hours - usage.gpu_hours) / n_gpus)
        return max(0.0, min(left)) * _S_PER_HOUR if left else None

    def __str__(self) -> str:
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "none"
