"""The one way in which this project trains a network: candidates, teachers and retrained winners alike."""

from collections.abc import Callable

import torch
from torch import nn

from nas.errors import EvaluationError
from nas.tasks.base import Task
from nas.torch_tools import as_current
from nas.training.averaging import MovingAverage, recompute_batch_norm
from nas.training.batches import Batch, FeatureData, TrainingData
from nas.training.distillation import Distillation
from nas.training.layout import lay_out
from nas.training.step import EagerStep, Step, fastest_step, gradient_scaler
from nas.training.student import Student
from nas.values.recipes import EpochSummary, TrainingRecipe

_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_BETAS = (0.8, 0.999)  # of AdamW: trainings of a few hundred steps go further with less momentum
_N_NORM_BATCHES = 50  # at most, for the statistics of averaged weights


def train(
    model: nn.Module,
    recipe: TrainingRecipe,
    *,
    task: Task,
    data: TrainingData,
    seed: int,
    distillation: Distillation | None = None,
    teacher: nn.Module | None = None,
    precision: torch.dtype = torch.float32,
    on_epoch: Callable[[EpochSummary], None] | None = None,
) -> EpochSummary:
    """Train `model` in place, on the device of `data`, and leave it there in eval mode.

    On stored features (`FeatureData`) all but the encoder of a `StagedNetwork` is trained. Equal arguments give equal
    weights on one machine with one thread count (on a CPU bit for bit): the order of the images and the model's own
    randomness come from `seed` alone. Between CPUs of other instruction sets results differ by rounding.

    Args:
        model: Maps normalised images to logits.
        recipe: How to train.
        task: Gives the loss.
        data: What to train on; it needs a teacher's logits for a distillation without a `teacher`.
        seed: Of the order of images, of their variation, of auxiliary heads and of dropout.
        distillation: How to learn from the teacher; `None` for not at all.
        teacher: Asked about each batch as it is varied, in eval mode; `None` where `data` holds what it says.
        precision: Of convolutions and the like; `bfloat16` is faster on most GPUs, `float16` on those before it, with
            gradients scaled against underflow. Weights, losses and updates stay float32, and so does every score.
        on_epoch: Called after each epoch.

    Returns:
        The summary of the last epoch.

    Raises:
        EvaluationError: If the loss becomes NaN or infinite.
        ValueError: If a distillation is asked for without a teacher or its logits, or a teacher is to be asked about
            stored features.
    """
    _check_teacher(distillation, teacher, data)
    device = data.device
    if teacher is not None:
        lay_out(teacher, device).eval()
    lay_out(model, device).train()
    student = Student(model, data, recipe.auxiliary_weight, seed, precision)
    with as_current(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        training = _Training(student, recipe, task, data, distillation, teacher, precision)
        summary = training.run(torch.Generator().manual_seed(seed), on_epoch)
    model.eval()
    return summary


def _check_teacher(distillation: Distillation | None, teacher: nn.Module | None, data: TrainingData) -> None:
    if distillation is not None and teacher is None and not data.has_teacher:
        raise ValueError("distillation needs a teacher's logits, data has none")
    if teacher is not None and isinstance(data, FeatureData):
        raise ValueError("teacher cannot be asked about stored features: give its logits of their views with the data")


class _Training:
    """The epochs of one training, with the optimiser, the schedule and the average that they share."""

    def __init__(
        self,
        student: Student,
        recipe: TrainingRecipe,
        task: Task,
        data: TrainingData,
        distillation: Distillation | None,
        teacher: nn.Module | None,
        precision: torch.dtype,
    ) -> None:
        self._student, self._recipe, self._data = student, recipe, data
        self._batch_size = min(recipe.batch_size, len(data))
        self._n_steps = len(data) // self._batch_size
        self._n_steps_in_all = recipe.epochs * self._n_steps
        optimizer = _optimizer(student, recipe, data.device)
        self._schedule = _one_cycle(optimizer, recipe.learning_rate, self._n_steps_in_all)
        self._average = MovingAverage(student, recipe.average_decay) if recipe.average_decay else None
        scaler = gradient_scaler(precision, data.device)
        self._eager = EagerStep(student, optimizer, task, distillation, teacher, scaler)
        self._step: Step | None = None  # chosen at the first batch

    def run(self, generator: torch.Generator, on_epoch: Callable[[EpochSummary], None] | None) -> EpochSummary:
        """Train all epochs; `generator` orders and varies the images."""
        losses = torch.zeros(2, self._n_steps, device=self._data.device)  # task's, distillation's
        for epoch in range(1, self._recipe.epochs + 1):
            order = torch.randperm(len(self._data), generator=generator)[: self._n_steps * self._batch_size]
            order = order.view(self._n_steps, -1)
            for step, batch in enumerate(self._data.batches(order, epoch, generator)):
                losses[:, step] = self._take_step(batch)
            summary = _summarise(losses, epoch, self._recipe.epochs)
            if on_epoch is not None:
                on_epoch(summary)
        if self._average is not None:
            self._average.apply()
            last = self._data.batches(order[:_N_NORM_BATCHES], self._recipe.epochs, generator)
            recompute_batch_norm(self._student, last)
        return summary

    def _take_step(self, batch: Batch) -> torch.Tensor:
        if self._step is None:
            self._step = fastest_step(self._eager, batch, self._n_steps_in_all)
        losses = self._step(batch)
        self._schedule.step()
        if self._average is not None:
            self._average.update()
        return losses


def _optimizer(student: Student, recipe: TrainingRecipe, device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW; on a GPU so that a captured step sees its learning rate change."""
    groups = _parameter_groups(student, recipe)
    if device.type != "cuda":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=_BETAS, fused=True)
    rate = torch.tensor(recipe.learning_rate, device=device)
    return torch.optim.AdamW(groups, lr=rate, betas=_BETAS, fused=True, capturable=True)


def _parameter_groups(student: Student, recipe: TrainingRecipe) -> list[dict[str, object]]:
    parameters = student.parameters()
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float, n_steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return a one-cycle schedule for any number of steps; torch's own divides by zero where a phase has one."""
    n_steps = max(n_steps, 3)
    warm_up = max(_WARM_UP, 2 / n_steps)
    # Without its cycle of beta_1, a number that a captured step would not see change.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=n_steps, pct_start=warm_up, cycle_momentum=False
    )


def _summarise(losses: torch.Tensor, epoch: int, n_epochs: int) -> EpochSummary:
    """Return the epoch's means; `losses` is `(2, n_steps)`. The one synchronisation of an epoch."""
    rows = losses.cpu()
    finite = rows.sum(dim=0).isfinite()
    if not finite.all():
        step = int((~finite).nonzero()[0]) + 1
        raise EvaluationError(
            f"the loss became NaN or infinite at step {step} of {len(finite)} in epoch {epoch} of {n_epochs}"
        )
    return EpochSummary(epoch, n_epochs, float(rows[0].mean()), float(rows[1].mean()))
