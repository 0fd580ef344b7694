"""The contract of a stage, and the subject that it evaluates."""

import functools
import json
import math
import numbers
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

from torch import nn

from nas.data.base import Dataset
from nas.errors import EvaluationError
from nas.faults import reason_of
from nas.values.recipes import EpochSummary
from nas.values.records import Candidate, Observation, Pruning
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.genotype import Genotype


class Need(StrEnum):
    """Resources that a stage needs: they decide where and when it can run."""

    MODEL = "model"
    DATA = "data"
    TEACHER = "teacher"
    EXCLUSIVE_DEVICE = "exclusive device"


@dataclass(frozen=True)
class ModelSignature:
    """Shapes of a network's input and output.

    Attributes:
        in_channels: Of an image.
        image_size: Height and width in pixels.
        n_classes: Channels of the logits.
    """

    in_channels: int
    image_size: tuple[int, int]
    n_classes: int

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Return the signature of networks for a data set."""
        return cls(dataset.in_channels, dataset.image_size, len(dataset.class_names))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)`."""
        return (self.in_channels, *self.image_size)


@dataclass
class Subject:
    """A candidate under evaluation: the argument of every stage and of a user's metric functions.

    Attributes:
        candidate: What is evaluated.
        space: Where its genotype comes from.
        signature: Of the network; `None` for a space that builds none.
        attempt: 1 for the first try.
        metrics: Results of earlier stages.
        thresholds: Scores that a training must reach between its stages, by metric; below one it is stopped.
        on_epoch: Callback after each epoch of a training.
    """

    candidate: Candidate
    space: SearchSpace
    signature: ModelSignature | None = None
    attempt: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    on_epoch: Callable[[EpochSummary], None] = lambda summary: None

    @property
    def genotype(self) -> Genotype:
        """The candidate's genotype."""
        return self.candidate.genotype

    @property
    def description(self) -> str:
        """The genotype in words."""
        return self.candidate.description

    @property
    def seed(self) -> int:
        """Of weights and batches."""
        return self.candidate.seed

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network, built when first asked for, in train mode and untrained until the training stage."""
        if not isinstance(self.space, ModelSpace) or self.signature is None:
            raise EvaluationError(f"search space {self.space.name!r} builds no network")
        return self.space.build(
            self.genotype,
            in_channels=self.signature.in_channels,
            n_classes=self.signature.n_classes,
            seed=self.seed,
        )

    def observe(
        self, stage: str, values: Mapping[str, float], conditions: Mapping[str, Any] | None = None
    ) -> list[Observation]:
        """Return `values` as observations of this subject.

        Raises:
            EvaluationError: If a value is no finite real number (a text, a truth value and a tensor are none), or the
                conditions are no plain JSON values.
        """
        conditions = dict(conditions or {})
        try:
            json.dumps(conditions)
        except (TypeError, ValueError, RecursionError) as error:
            raise EvaluationError(f"{stage}: conditions must be plain JSON values: {error}") from error
        return [
            Observation(self.candidate.id, stage, self.attempt, metric, _number(stage, metric, value), conditions)
            for metric, value in values.items()
        ]


def _number(stage: str, metric: str, value: Any) -> float:
    """Return `value`, given by anybody's code, as a float."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except Exception as error:
            raise EvaluationError(f"{stage}: {metric} cannot be made a number: {reason_of(error)}") from error
        if math.isfinite(number):
            return number
    try:
        shown = reprlib.repr(value)
    except Exception:  # noqa: BLE001 - as above
        shown = f"a {type(value).__name__}"
    raise EvaluationError(f"{stage}: {metric} must be a finite number, got {shown}")


class PrunedError(EvaluationError):
    """A stage stopped a candidate early, which is then PRUNED, not FAILED.

    Attributes:
        pruning: The stage and its score.
        observations: Readings until then.
    """

    def __init__(self, pruning: Pruning, observations: Sequence[Observation]) -> None:
        super().__init__(f"stopped early: {pruning.metric} is {pruning.score:.4g}")
        self.pruning = pruning
        self.observations = tuple(observations)


class Stage(ABC):
    """One step of an evaluation. Stages are pickled to worker processes.

    Attributes:
        name: Unique in a run; stored with each observation.
        needs: Resources.
        provides: Metrics that it gives, by their keys in records.
        is_harmless: Whether it only looks up numbers: no code that a candidate brings along can end the process.
        reads_metrics: Whether it may read what the stages before it gave.
    """

    name: str
    needs: frozenset[Need]
    provides: frozenset[str]
    is_harmless: ClassVar[bool] = False
    reads_metrics: ClassVar[bool] = False

    @abstractmethod
    def run(self, subject: Subject) -> Sequence[Observation]:
        """Return the readings, all of `provides` and maybe others.

        Raises:
            PrunedError: To stop the candidate early.
            MachineError: If files of the run cannot be read or written: the search stops, the candidate stays open.
            Exception: The candidate is recorded as FAILED, by the rules of `nas.evaluation.verdicts`.
        """
