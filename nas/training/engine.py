"""The one way in which this project trains a network: candidates, teachers and retrained winners alike."""

from collections.abc import Callable

import torch
from torch import nn

from nas.errors import EvaluationError
from nas.tasks.base import Task
from nas.torch_tools import as_current
from nas.training.averaging import MovingAverage, recompute_batch_norm
from nas.training.batches import FeatureData, TrainingData
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
    if distillation is not None and teacher is None and not data.has_teacher:
        raise ValueError("distillation needs a teacher's logits, data has none")
    if teacher is not None and isinstance(data, FeatureData):
        raise ValueError("teacher cannot be asked about stored features: give its logits of their views with the data")
    device = data.device
    if teacher is not None:
        lay_out(teacher, device).eval()
    lay_out(model, device).train()
    student = Student(model, data, recipe.auxiliary_weight, seed, precision)
    batch_size = min(recipe.batch_size, len(data))
    n_steps = len(data) // batch_size
    optimizer = _optimizer(student, recipe, device)
    schedule = _one_cycle(optimizer, recipe.learning_rate, recipe.epochs * n_steps)
    take_step: Step | None = None
    average = MovingAverage(student, recipe.average_decay) if recipe.average_decay else None
    generator = torch.Generator().manual_seed(seed)
    losses = torch.zeros(2, n_steps, device=device)  # task's, distillation's
    with as_current(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(1, recipe.epochs + 1):
            order = torch.randperm(len(data), generator=generator)[: n_steps * batch_size].view(n_steps, -1)
            for step, batch in enumerate(data.batches(order, epoch, generator)):
                if take_step is None:
                    scaler = gradient_scaler(precision, device)
                    eager = EagerStep(student, optimizer, task, distillation, teacher, scaler)
                    take_step = fastest_step(eager, batch, recipe.epochs * n_steps)
                losses[:, step] = take_step(batch)
                schedule.step()
                if average is not None:
                    average.update()
            summary = _summarise(losses, epoch, recipe.epochs)
            if on_epoch is not None:
                on_epoch(summary)
        if average is not None:
            average.apply()
            recompute_batch_norm(student, data.batches(order[:_N_NORM_BATCHES], recipe.epochs, generator))
    model.eval()
    return summary


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
