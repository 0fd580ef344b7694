"""What is known of a candidate: observations as they were taken, and the record that folds them."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from latency.timing.conditions import is_disturbed, undisturbed_ms
from nas.values.objectives import Violation
from search_spaces.genotype import Genotype

if TYPE_CHECKING:
    from search_spaces.base import SearchSpace  # which imports torch; a record is read without


_CANDIDATE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


def is_candidate_id(text: object) -> bool:
    """Return whether a candidate can have this id: it names files, which must lie in the run's folder."""
    return isinstance(text, str) and _CANDIDATE_ID.fullmatch(text) is not None


class RecordState(StrEnum):
    """How a candidate ended. Only `COMPLETE` ones stand on the front and in the hypervolume."""

    ASKED = "asked"  # no verdict yet
    COMPLETE = "complete"
    PRUNED = "pruned"  # training was stopped early
    INFEASIBLE = "infeasible"  # outside a bound
    FAILED = "failed"  # no usable number


class Role(StrEnum):
    """Why a network was evaluated: the search asked for it, or it is there to compare with."""

    CANDIDATE = "candidate"
    REFERENCE = "reference"


@dataclass(frozen=True)
class Candidate:
    """A genotype with the seed that its training starts from.

    Attributes:
        id: Ten hex digits, unique in a run; what users type.
        genotype: Canonical.
        fingerprint: Covers the space, its options and the genes.
        seed: Of weights and batches; from the run's seed and the fingerprint, hence independent of order.
        description: The genotype in words.
    """

    id: str
    genotype: Genotype
    fingerprint: str
    seed: int
    description: str

    @classmethod
    def create(cls, space: "SearchSpace", genotype: Genotype, run_seed: int) -> "Candidate":
        """Return the candidate of `genotype` (made canonical here) in a run with seed `run_seed`."""
        genotype = space.canonical(genotype)
        fingerprint = space.fingerprint(genotype)
        digest = hashlib.sha256(f"{run_seed}:{fingerprint}".encode()).hexdigest()
        return cls(digest[:10], genotype, fingerprint, int(digest[-8:], 16) >> 1, space.describe(genotype))


@dataclass(frozen=True)
class Observation:
    """One reading: the durable fact that everything else is derived from.

    Attributes:
        candidate: Its id.
        stage: The stage that took the reading.
        attempt: 1 for the first try.
        metric: Name of the metric, e.g. `"latency_ms"`.
        value: Finite.
        conditions: What the reading depends on, as plain JSON values.
    """

    candidate: str
    stage: str
    attempt: int
    metric: str
    value: float
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} must be finite, got {self.value}")


def undisturbed_parts(readings: Iterable[tuple[str, float, Mapping[str, Any]]]) -> dict[str, float]:
    """Return `Record.undisturbed` of readings given as metric, value and conditions."""
    return {
        metric: undisturbed_ms(value, conditions) for metric, value, conditions in readings if is_disturbed(conditions)
    }


def epoch_loss(epoch: int) -> str:
    """Return the metric under which a training's mean loss over one epoch, from 1, is observed.

    Records keep these losses as a curve, not among their metrics.
    """
    return f"task_loss[{epoch}]"


@dataclass(frozen=True)
class Failure:
    """Why an evaluation gave no number."""

    stage: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class Pruning:
    """Where and with which score a training was stopped early."""

    stage: str
    metric: str
    score: float


@dataclass(frozen=True)
class Record:
    """One candidate's observations folded, with its state.

    Attributes:
        number: Position in the order of asking, from 0.
        batch: The generation or batch that it was asked in, from 0; -1 for references.
        metrics: The latest value of each metric; of a device's readings the confirmed ones.
        conditions: The conditions of each of these values.
        epoch_losses: The task's mean loss in each epoch of its training; none where it was not trained.
        attempts: How often its evaluation was started and ended by itself (not by the run's end).
        violations: Given for INFEASIBLE.
        failure: Given for FAILED.
        pruning: Given for PRUNED.
        earlier_failures: Failures after which it was asked for anew.
        retrained: Scores on the test split after the latest full training, by metric.
        retrained_conditions: What these scores depend on.
        retrained_spread: The standard deviation of each over several seeds; none where it is of one training.
    """

    candidate: Candidate
    state: RecordState
    metrics: Mapping[str, float]
    number: int
    batch: int
    attempts: int = 1
    role: Role = Role.CANDIDATE
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    epoch_losses: tuple[float, ...] = ()
    violations: tuple[Violation, ...] = ()
    failure: Failure | None = None
    pruning: Pruning | None = None
    earlier_failures: tuple[Failure, ...] = ()
    retrained: Mapping[str, float] = field(default_factory=dict)
    retrained_conditions: Mapping[str, Any] = field(default_factory=dict)
    retrained_spread: Mapping[str, float] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The candidate's id."""
        return self.candidate.id

    @property
    def undisturbed(self) -> dict[str, float]:
        """By metric, for readings that something disturbed: the value with nothing beside it, as far as can be told."""
        return undisturbed_parts(
            (metric, value, self.conditions.get(metric, {})) for metric, value in self.metrics.items()
        )

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation of a metric over several seeds; `None` where it is of one training."""
        value = self.conditions.get(metric, {}).get("spread")
        return None if value is None else float(value)

    @property
    def is_complete(self) -> bool:
        """Whether it counts for the front."""
        return self.state is RecordState.COMPLETE

    @property
    def reason(self) -> str | None:
        """Why it is not COMPLETE, in one line; `None` where there is nothing to say."""
        match self.state:
            case RecordState.INFEASIBLE:
                return "; ".join(str(violation) for violation in self.violations)
            case RecordState.FAILED if self.failure:
                return f"{self.failure.stage}: {self.failure.reason}"
            case RecordState.PRUNED if self.pruning:
                pruning = self.pruning
                return f"stopped in {pruning.stage}, below the other candidates: {pruning.metric} {pruning.score:.4g}"
        return None
