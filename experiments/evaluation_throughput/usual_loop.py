"""The training loop that a good engineer writes by hand: what the engine is compared with. It stays as it is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nas.data.base import Examples
from nas.training.distillation import Distillation
from nas.training.setting import TrainingSetting
from nas.values.recipes import TrainingRecipe

_N_WORKERS = 2
_SCORING_BATCH = 64


class ImagesWithTargets(Dataset[tuple[torch.Tensor, ...]]):
    """Normalised images one by one, each with its target and, if they are stored, the teacher's logits."""

    def __init__(
        self, setting: TrainingSetting, examples: Examples, logits: torch.Tensor | None, *, is_training: bool
    ) -> None:
        self._setting, self._examples, self._logits = setting, examples, logits
        self._is_training = is_training

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        """Return `(C, H, W)` float32, the target, and maybe logits."""
        images, targets = (part[index : index + 1] for part in (self._examples.images, self._examples.targets))
        logits = None if self._logits is None else self._logits[index : index + 1]
        augmentation = self._setting.augmentation
        if self._is_training and augmentation is not None:
            draw = augmentation.draw(1, torch.default_generator)
            images, targets, logits = augmentation.apply(images, targets, logits, draw, self._setting.task)
        shown = [self._setting.normalization(images)[0].contiguous(), targets[0]]
        return tuple(shown if logits is None else [*shown, logits[0]])


def train_and_score(
    model: nn.Module,
    recipe: TrainingRecipe,
    setting: TrainingSetting,
    *,
    seed: int,
    distillation: Distillation | None,
    teacher: nn.Module | None,
    stored_logits: torch.Tensor | None,
) -> dict[str, float]:
    """Train `model` in place and return its validation scores.

    Args:
        model: Untrained, or with a pretrained encoder.
        recipe: As the engine's.
        setting: Data, task and device.
        seed: Of the order of images.
        distillation: As the engine's.
        teacher: Run at each step, in eval mode on the training's device; `None` where its logits are stored.
        stored_logits: Of the training images; `None` to run the teacher.
    """
    device, task = torch.device(setting.device), setting.task
    torch.manual_seed(seed)
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.8, 0.999),
    )
    loader = _loader(setting, setting.train.load(), recipe.batch_size, logits=stored_logits, is_training=True)
    n_steps = recipe.epochs * len(loader)
    warm_up = max(0.1, 2 / n_steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=n_steps, pct_start=warm_up, cycle_momentum=False
    )
    for _ in range(recipe.epochs):
        for images, targets, *logits in _on(device, loader):
            output = model(images)
            loss = task.loss(output, targets)
            if distillation is not None:
                with torch.no_grad():
                    said = logits[0] if teacher is None else teacher(images)
                loss = loss + distillation.term(output, said, task.target_weights(targets))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()
    scorer = task.new_scorer()
    with torch.no_grad():
        for images, targets in _on(device, _loader(setting, setting.validation.load(), _SCORING_BATCH)):
            scorer.update(model(images), targets)
    return scorer.compute()


def _loader(
    setting: TrainingSetting,
    examples: Examples,
    batch_size: int,
    *,
    logits: torch.Tensor | None = None,
    is_training: bool = False,
) -> DataLoader[Any]:
    return DataLoader(
        ImagesWithTargets(setting, examples, logits, is_training=is_training),
        batch_size,
        shuffle=is_training,
        drop_last=is_training,
        num_workers=_N_WORKERS,
        pin_memory=setting.device != "cpu",
        persistent_workers=True,
    )


def _on(device: torch.device, loader: DataLoader[Any]) -> Iterator[list[torch.Tensor]]:
    for batch in loader:
        yield [part.to(device, non_blocking=True) for part in batch]
