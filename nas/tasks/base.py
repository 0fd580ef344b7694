"""The contract of a task: what a network's output means, its loss and its scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from nas.tasks.mirroring import FlipPairs, flip_order, named_pairs
from nas.values.metrics import MetricInfo


class Scorer(ABC):
    """Accumulates one validation's scores, batch by batch, without synchronising the device."""

    @abstractmethod
    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch of logits and its targets."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics of the task by name; one that has no value here is left out.

        Raises:
            ValueError: If nothing was added.
        """


class Task(ABC):
    """Joins outputs and targets.

    The constructor takes the class names and `ignore_index`, which the data gives, then the options. A task of a
    user's own (`kind: module:Class`) writes the abstract methods, and names its metrics in `scores`.

    Args:
        class_names: In order of their index.
        ignore_index: The target that does not count, if there is one.
        flip_pairs: Classes that become each other in a mirrored image, two by two.

    Attributes:
        kind: Its name in `TASKS`, or what messages call it.
        is_dense: Whether outputs and targets are one for each pixel, or one for each image: says which data and which
            reference models go with the task.
        scores: The metrics that it gives, with direction and unit.
        class_scores: Those that it gives for each class, `NAME[CLASS]`.
        main_metric: The one that stands for all where one number is shown; higher is better.
        class_names: As given.
        ignore_index: As given.
        flip_pairs: As given.
        flip_order: By class index the index of the class that it becomes in a mirrored image.

    Raises:
        ValueError: If the pairs are not of different classes.
    """

    kind: ClassVar[str]
    is_dense: ClassVar[bool]
    scores: ClassVar[Mapping[str, MetricInfo]]
    class_scores: ClassVar[Mapping[str, MetricInfo]] = {}
    main_metric: ClassVar[str]

    def __init__(self, class_names: Sequence[str], ignore_index: int | None, flip_pairs: FlipPairs) -> None:
        self.class_names = tuple(class_names)
        self.ignore_index = ignore_index
        self.flip_pairs = flip_pairs
        self.flip_order = flip_order(class_names, flip_pairs)

    @property
    def missing_flip_pairs(self) -> FlipPairs:
        """Pairs of classes whose names say left and right but that no pair in `flip_pairs` holds."""
        paired = {name for pair in self.flip_pairs for name in pair}
        return tuple(pair for pair in named_pairs(self.class_names) if paired.isdisjoint(pair))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that a scorer computes, e.g. `("mean_iou", "iou[skin]", ...)`."""
        return (*self.scores, *(f"{metric}[{name}]" for metric in self.class_scores for name in self.class_names))

    @abstractmethod
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar training loss of a batch of logits: a mean over images or counted pixels."""

    def target_weights(self, target: torch.Tensor) -> torch.Tensor | None:
        """Return how much each image or pixel of `target` counts in the loss, in its shape; `None` for equally.

        A distillation weighs its term likewise. Without that, a teacher's word on the large classes drowns what
        class weights do for the small ones.
        """
        return None

    @abstractmethod
    def new_scorer(self) -> Scorer:
        """Return an empty scorer."""

    @abstractmethod
    def chance_level(self, metric: str) -> float:
        """Return what a network that has learned nothing reaches, at most, on `metric`."""
