"""How networks are trained: the recipes, and the metrics reported after each epoch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingRecipe:
    """How long and how to train: AdamW under a one-cycle learning rate.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images in a step; the last, smaller batch of an epoch is left out.
        learning_rate: The highest of the cycle.
        weight_decay: Decoupled, on all parameters but biases and normalisation.
        average_decay: Decay of the moving average of the weights that the training ends with, warmed up for short
            trainings; statistics of batch normalisation are then taken anew. 0 for the last weights as they are.
        auxiliary_weight: Factor of the loss of the auxiliary heads that some networks offer; 0 for no such heads.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    average_decay: float = 0.0
    auxiliary_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        for name in ("weight_decay", "auxiliary_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be at least 0 and less than 1, got {self.average_decay}")

    @property
    def length(self) -> str:
        """The number of epochs in words."""
        return "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"


@dataclass(frozen=True)
class StageRecipe(TrainingRecipe):
    """One of several stages of a training.

    Attributes:
        train: `decoder` trains all but a pretrained encoder, on the encoder's stored features; `all` trains everything,
            on images.
    """

    train: Literal["decoder", "all"] = "all"


@dataclass(frozen=True)
class EpochSummary:
    """What is told after each epoch.

    Attributes:
        epoch: From 1.
        n_epochs: Of the whole training.
        task_loss: Mean over the epoch's steps.
        distillation_loss: Mean weighted distillation term; 0.0 without a teacher.
    """

    epoch: int
    n_epochs: int
    task_loss: float
    distillation_loss: float

    @property
    def distillation_ratio(self) -> float:
        """The distillation term over the task's: far above 1, the teacher drowns the targets."""
        return self.distillation_loss / self.task_loss if self.task_loss else 0.0
