"""The one way in which this project trains a network: candidates, teachers and retrained winners alike."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from nas.errors import EvaluationError
from nas.tasks.base import Task
from nas.torch_tools import as_current
from nas.training.averaging import MovingAverage, recompute_batch_norm
from nas.training.batches import Batch, FeatureData, TrainingData
from nas.training.checkpoint import Checkpoint
from nas.training.distillation import Distillation
from nas.training.layout import lay_out
from nas.training.plateau import Plateau
from nas.training.processes import ALONE, Processes, SharedData
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
    checkpoint: Checkpoint | None = None,
    plateau: Plateau | None = None,
    processes: Processes = ALONE,
) -> EpochSummary:
    """Train `model` in place, on the device of `data`, and leave it there in eval mode.

    On stored features (`FeatureData`) all but the encoder of a `StagedNetwork` is trained. Equal arguments give equal
    weights on one machine with one thread count (on a CPU bit for bit): the order of the images and the model's own
    randomness come from `seed` alone. Results of CPUs with other instruction sets differ by rounding.

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
        checkpoint: Where the training is kept after each epoch; one that was interrupted is taken up there, and ends
            with the weights of one that was not (on a CPU bit for bit). The file stays; remove it once the weights are
            kept elsewhere.
        plateau: Ends the training early, and gives it the best weights on the way; `None` for the full length.
        processes: Those that make the same call, each to train on its share of every batch, with batch statistics of
            its own. The first one's checkpoint and plateau count, and its network alone is finished.

    Returns:
        The summary of the last epoch.

    Raises:
        EvaluationError: If the loss becomes NaN or infinite.
        ValueError: If a distillation is asked for without a teacher or its logits, or a teacher is to be asked about
            stored features.
    """
    device = data.device
    _check_teacher(distillation, teacher, data)
    if teacher is not None:
        lay_out(teacher, device).eval()
    lay_out(model, device).train()
    student = Student(model, data, recipe.auxiliary_weight, seed, precision)
    with as_current(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        training = _Training(student, recipe, task, data, distillation, teacher, precision, processes)
        keeper = _Keeper(training, torch.Generator().manual_seed(seed), checkpoint, plateau, processes)
        summary = training.run(model, keeper, on_epoch)
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
        processes: Processes,
    ) -> None:
        self._student, self._recipe, self._data, self._processes = student, recipe, data, processes
        self._shared = data if processes.count == 1 else SharedData(data, processes)
        self._batch_size = min(recipe.batch_size, len(data)) // processes.count * processes.count
        self._n_steps = len(data) // self._batch_size
        self._n_steps_in_all = recipe.epochs * self._n_steps
        optimizer = _optimizer(student, recipe, data.device)
        self._schedule = _one_cycle(optimizer, recipe.learning_rate, self._n_steps_in_all)
        self._average = MovingAverage(student, recipe.average_decay) if recipe.average_decay else None
        scaler = gradient_scaler(precision, data.device)
        self._eager = EagerStep(student, optimizer, task, distillation, teacher, scaler, processes)
        self._step: Step | None = None  # chosen at the first batch

    def run(self, model: nn.Module, keeper: "_Keeper", on_epoch: Callable[[EpochSummary], None] | None) -> EpochSummary:
        """Train the epochs that are not done; the keeper's generator orders and varies the images."""
        losses = torch.zeros(2, self._n_steps, device=self._data.device)  # task's, distillation's
        summary, is_over = keeper.take_up()
        first = summary.epoch + 1 if summary else 1
        for epoch in range(first, 1 if is_over else self._recipe.epochs + 1):
            order = torch.randperm(len(self._data), generator=keeper.generator)[: self._n_steps * self._batch_size]
            order = order.view(self._n_steps, -1)
            for step, batch in enumerate(self._shared.batches(order, epoch, keeper.generator)):
                losses[:, step] = self._take_step(batch)
            self._agree(losses)
            summary = _summarise(losses, epoch, self._recipe.epochs)
            is_over = keeper.keep(model, summary, order)
            if on_epoch is not None:
                on_epoch(summary)
            if is_over:
                break
        assert summary is not None  # noqa: S101 - a recipe has an epoch at least
        keeper.finish(model, summary)
        return summary

    def _agree(self, losses: torch.Tensor) -> None:
        """Let all processes know the same losses, and the same batch statistics."""
        self._processes.average([losses])
        self._processes.average([tensor for tensor in self._student.state() if tensor.dtype is torch.float32])

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._data.device

    def state(self) -> dict[str, Any]:
        """Return all that the epochs so far have changed, random numbers apart."""
        return {
            "student": [tensor.detach() for tensor in self._student.state()],
            "optimizer": self._eager.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state() if self._average else None,
            "scaler": self._eager.scaler.state_dict() if self._eager.scaler else None,
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned; before the first step."""
        for tensor, value in zip(self._student.state(), state["student"], strict=True):
            tensor.copy_(value)
        self._eager.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state(state["average"])
        if self._eager.scaler is not None:
            self._eager.scaler.load_state_dict(state["scaler"])

    def apply_average(self, order: torch.Tensor, epoch: int, generator: torch.Generator) -> None:
        """Put the moving average in place of the weights, where there is one, with batch statistics of its own."""
        if self._average is not None:
            self._average.apply()
            recompute_batch_norm(self._student, self._data.batches(order[:_N_NORM_BATCHES], epoch, generator))

    @contextlib.contextmanager
    def as_if_finished(
        self, model: nn.Module, order: torch.Tensor, epoch: int, generator: torch.Generator
    ) -> Iterator[None]:
        """Let `model` be as if the training ended after this epoch, while the block runs."""
        tensors = list(self._student.state())
        before = [tensor.detach().clone() for tensor in tensors]
        random = torch.get_rng_state()
        self.apply_average(order, epoch, generator)
        model.eval()
        yield
        model.train()
        torch.set_rng_state(random)
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)

    def _take_step(self, batch: Batch) -> torch.Tensor:
        if self._step is None:
            self._step = fastest_step(self._eager, batch, self._n_steps_in_all)
        losses = self._step(batch)
        self._schedule.step()
        if self._average is not None:
            self._average.update()
        return losses


class _Keeper:
    """Keeps a training after each epoch, takes up one that was interrupted, and ends one that no longer gets better.

    Args:
        training: Which.
        generator: Of the order and the variation of its images.
        checkpoint: Where; `None` for nowhere.
        plateau: Tells when it is over; `None` for after its last epoch.
        processes: Of which the first one keeps, takes up and ends it for all.
    """

    def __init__(
        self,
        training: _Training,
        generator: torch.Generator,
        checkpoint: Checkpoint | None,
        plateau: Plateau | None,
        processes: Processes,
    ) -> None:
        self.generator = generator
        self._training, self._processes = training, processes
        self._checkpoint, self._plateau = (checkpoint, plateau) if processes.is_first else (None, None)
        self._order = torch.empty(0)

    def take_up(self) -> tuple[EpochSummary | None, bool]:
        """Take up an interrupted training; return its last epoch's summary, `None` for a new one, and if it is over."""
        state = self._processes.told(self._checkpoint.read() if self._checkpoint else None)
        if state is None:
            return None, False
        self._training.load_state(state["training_state"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"])
        if self._plateau is not None:
            self._plateau.load_state(state["plateau"])
        self._order = state["order"]
        return EpochSummary(**state["summary"]), state["is_over"]

    def keep(self, model: nn.Module, summary: EpochSummary, order: torch.Tensor) -> bool:
        """Keep the training after an epoch whose images came in this order; return whether it is over."""
        self._order, is_over = order, False
        if self._plateau is not None:
            with self._training.as_if_finished(model, order, summary.epoch, self.generator.clone_state()):
                is_over = self._plateau.is_reached(model)
        is_over = self._processes.told(is_over)
        if self._checkpoint is not None:
            self._checkpoint.write(
                {
                    "training_state": self._training.state(),
                    "generator": self.generator.get_state(),
                    "random": torch.get_rng_state(),
                    "cuda_random": torch.cuda.get_rng_state() if self._training.device.type == "cuda" else None,
                    "plateau": self._plateau.state() if self._plateau else None,
                    "order": order,
                    "summary": asdict(summary),
                    "is_over": is_over,
                }
            )
        return is_over

    def finish(self, model: nn.Module, summary: EpochSummary) -> None:
        """Give `model` the weights that the training ends with; the first process's."""
        if self._plateau is not None:
            self._plateau.restore(model)
        elif self._processes.is_first:
            self._training.apply_average(self._order, summary.epoch, self.generator)


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
