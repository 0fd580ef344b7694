"""The contract of a task: what a network's output means, its loss and its scores."""

from abc import ABC, abstractmethod

import torch


class Scorer(ABC):
    """Accumulates one validation's scores, batch by batch, without synchronising the device."""

    @abstractmethod
    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch of logits and its targets."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics of the task by name, each in 0 .. 1; one that has no value here is left out.

        Raises:
            ValueError: If nothing was added.
        """


class Task(ABC):
    """Joins outputs and targets. Higher is better for every metric of a task.

    Attributes:
        main_metric: The one that stands for all where one number is shown.
    """

    main_metric: str

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names that a scorer computes, e.g. `("mean_iou", "iou[skin]", ...)`."""

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
