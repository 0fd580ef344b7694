"""How networks are trained: the recipes, and the metrics reported after each epoch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from nas.values.bounds import check_bounds


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

    epochs: Annotated[int, Ge(1), Le(10**6)] = 5
    batch_size: Annotated[int, Ge(1), Le(10**6)] = 16
    learning_rate: Annotated[float, Gt(0), Le(100)] = 1e-2
    weight_decay: Annotated[float, Ge(0), Le(100)] = 1e-3
    average_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    auxiliary_weight: Annotated[float, Ge(0), Le(1e6)] = 0.0

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def length(self) -> str:
        """The number of epochs in words."""
        return "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"


@dataclass(frozen=True)
class StageRecipe(TrainingRecipe):
    """One of several stages of a training; what it leaves out is as its section says, but for `epochs`.

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
