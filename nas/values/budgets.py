"""What a search may use up, what it has used up, and what is left by the candidates measured so far."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le, Lt, Unit

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
        stop_when_converged: Whether to stop when the next candidates can be expected to add little.
        converged_next: The number of trained candidates that is thought of then.
        converged_gain: The share of the hypervolume below which their expected gain is little.
    """

    hours: Annotated[float, Gt(0), Le(1e6), Unit("h")] | None = None
    n_trained: Annotated[int, Gt(0), Le(10**9)] | None = None
    gpu_hours: Annotated[float, Gt(0), Le(1e9), Unit("GPU h")] | None = None
    stop_when_converged: bool = False
    converged_next: Annotated[int, Gt(0), Le(10**6)] = 50
    converged_gain: Annotated[float, Gt(0), Lt(1)] = 0.003

    def __post_init__(self) -> None:
        check_bounds(self)

    def is_used_up(self, usage: Usage) -> bool:
        """Return whether nothing is left of one of its parts."""
        return any(getattr(usage, name) >= limit for name, limit in self._limits().items())

    def has_converged(self, expected_gain: float | None) -> bool:
        """Return whether the search is to stop because the next candidates can be expected to add this share."""
        return self.stop_when_converged and expected_gain is not None and expected_gain < self.converged_gain

    def _limits(self) -> dict[str, float]:
        """Return by part of the usage what is allowed."""
        limits = {name: getattr(self, name) for name in Usage.__dataclass_fields__}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def seconds_left(self, usage: Usage, n_gpus: float) -> float | None:
        """Return how long hours and GPU-hours last while `n_gpus` are held; `None` where neither is limited."""
        left: list[float] = []
        if self.hours is not None:
            left.append(self.hours - usage.hours)
        if self.gpu_hours is not None and n_gpus:
            left.append((self.gpu_hours - usage.gpu_hours) / n_gpus)
        return max(0.0, min(left)) * _S_PER_HOUR if left else None

    def __str__(self) -> str:
        parts = [f"{name} {limit:g}" for name, limit in self._limits().items()]
        return ", ".join([*parts, *(["until it has converged"] if self.stop_when_converged else [])]) or "none"
