"""The one way in which this project trains a network: candidates, teachers and retrained winners alike."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nas.data.base import Examples
from nas.distillation import Distillation
from nas.errors import EvaluationError
from nas.tasks.base import Task

_WARM_UP = 0.1  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class TrainingRecipe:
    """How long and how to train: AdamW under a one-cycle learning rate.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Images in a step; the last, smaller batch of an epoch is left out.
        learning_rate: The highest of the cycle.
        weight_decay: Decoupled, on all parameters but biases and normalisation.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")


@dataclass(frozen=True)
class Normalization:
    """Maps uint8 pixels to what networks are trained on: (pixel / 255 - mean) / std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: torch.Tensor) -> "Normalization":
        """Return the statistics of `images`, `(n, C, H, W)` uint8; a constant channel gets a std of 1."""
        n_channels = images.shape[1]
        pixels = images.numel() // n_channels
        mean, std = [], []
        for channel in range(n_channels):
            counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
            values = torch.arange(256, dtype=torch.float64) / 255
            m = float((counts * values).sum() / pixels)
            variance = float((counts * (values - m) ** 2).sum() / pixels)
            mean.append(m)
            std.append(variance**0.5 or 1.0)
        return cls(tuple(mean), tuple(std))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return `images`, `(B, C, H, W)` uint8, as normalised float32 on the same device."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images.float() / 255 - mean) / std


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        examples: Images and targets.
        normalization: Applied to each batch of images.
        teacher_logits: `(n, K)` or `(n, K, H, W)`, any floating type, usually a memory-mapped float16
            array: what the teacher says of each image; `None` to train without a teacher.
    """

    examples: Examples
    normalization: Normalization
    teacher_logits: np.ndarray | None = None


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


@contextlib.contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use `n_threads` CPU threads for one operator, and restore its setting afterwards.

    The count changes the order of floating-point sums, so a training's result depends on it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    model: nn.Module,
    recipe: TrainingRecipe,
    *,
    task: Task,
    data: TrainingData,
    seed: int,
    device: torch.device | str = "cpu",
    distillation: Distillation | None = None,
    on_epoch: Callable[[EpochSummary], None] | None = None,
) -> EpochSummary:
    """Train `model` in place, on `device`, and leave it there in eval mode.

    Equal arguments give equal weights on one machine with one thread count (on a CPU bit for bit): the
    order of the images and the model's own randomness come from `seed` alone.

    Args:
        model: Maps normalised images to logits.
        recipe: How to train.
        task: Gives the loss.
        data: What to train on; its `teacher_logits` are needed for a distillation.
        seed: Of the order of images and of dropout.
        device: Where to train.
        distillation: How to learn from the teacher; `None` for not at all.
        on_epoch: Called after each epoch.

    Returns:
        The summary of the last epoch.

    Raises:
        EvaluationError: If the loss becomes NaN or infinite.
        ValueError: If a distillation is asked for without the teacher's logits.
    """
    if distillation is not None and data.teacher_logits is None:
        raise ValueError("distillation needs data.teacher_logits, got none")
    device = torch.device(device)
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images, targets = data.examples.images.to(device), data.examples.targets.to(device)
    batch_size = min(recipe.batch_size, len(images))
    n_steps = len(images) // batch_size
    optimizer = torch.optim.AdamW(_parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True)
    schedule = _one_cycle(optimizer, recipe.learning_rate, recipe.epochs * n_steps)
    order = torch.Generator().manual_seed(seed)
    losses = torch.zeros(2, n_steps, device=device)  # task's, distillation's
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(1, recipe.epochs + 1):
            batches = torch.randperm(len(images), generator=order)[: n_steps * batch_size].view(n_steps, -1)
            for step, batch in enumerate(batches):
                rows = batch.to(device)
                output = model(_prepared(images[rows], data.normalization))
                terms = [task.loss(output, targets[rows])]
                if distillation is not None:
                    weights = task.target_weights(targets[rows])
                    terms.append(distillation.term(output, _teacher_rows(data, batch).to(device), weights))
                optimizer.zero_grad(set_to_none=True)
                torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses[: len(terms), step] = torch.stack([term.detach() for term in terms])
            summary = _summarise(losses, epoch, recipe.epochs)
            if on_epoch is not None:
                on_epoch(summary)
    model.eval()
    return summary


@torch.inference_mode()
def predict(
    model: nn.Module,
    images: torch.Tensor,
    normalization: Normalization,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> Iterator[torch.Tensor]:
    """Yield the logits of `images`, `(n, C, H, W)` uint8, in order, batch by batch, on `device`.

    Raises:
        ValueError: If `model` is in train mode.
    """
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval()")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for start in range(0, len(images), batch_size):
        yield model(_prepared(images[start : start + batch_size].to(device), normalization))


def score(
    model: nn.Module,
    task: Task,
    examples: Examples,
    normalization: Normalization,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> dict[str, float]:
    """Return every metric of `task` over all `examples`.

    Raises:
        EvaluationError: If an output is not finite.
        ValueError: If `model` is in train mode.
    """
    scorer = task.new_scorer()
    finite = torch.ones((), dtype=torch.bool, device=device)
    start = 0
    for output in predict(model, examples.images, normalization, device=device, batch_size=batch_size):
        finite &= output.isfinite().all()
        scorer.update(output, examples.targets[start : start + len(output)].to(device))
        start += len(output)
    if not finite:
        raise EvaluationError("the trained network gives outputs that are NaN or infinite")
    return scorer.compute()


def _parameter_groups(model: nn.Module, recipe: TrainingRecipe) -> list[dict[str, object]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
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
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=n_steps, pct_start=warm_up)


def _prepared(images: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """Return a batch as networks are given it: normalised, channels last, which both CPUs and GPUs run faster."""
    return normalization(images).contiguous(memory_format=torch.channels_last)


def _teacher_rows(data: TrainingData, batch: torch.Tensor) -> torch.Tensor:
    assert data.teacher_logits is not None  # noqa: S101 - checked by train()
    return torch.from_numpy(data.teacher_logits[batch.numpy()])


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
