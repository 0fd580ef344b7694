"""Seconds of trainings and of passes over images, from short ones on real data."""

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from nas.data.base import Examples
from nas.dry_run.estimate import TrainingCost
from nas.training.batches import FeatureData, TrainingData
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.recipes import TrainingRecipe
from search_spaces.base import StagedNetwork

_N_STEPS = {"cpu": (2, 6), "cuda": (30, 90)}
"""Steps of two short trainings, whose difference is steps alone, without what starting costs. On a GPU so many that
both are captured as a graph, as steps of trainings of their length are."""

_MAX_BATCHES = 30  # of an epoch of a short training: its examples, and the teacher's outputs for them, are in memory
_N_ROUNDS = 2
_ENOUGH_S = 5.0  # of a short training: what its start costs does not show any more
_N_TIMED = 256  # images of a pass


def short_steps(device: str, n_steps: int) -> tuple[int, int]:
    """Return the steps of two short trainings that tell what one of `n_steps` costs on `device`."""
    few, many = _N_STEPS["cuda" if device.startswith("cuda") else "cpu"]
    return (few, many) if n_steps >= few else (max(1, n_steps // 3), n_steps)


class Stopwatch:
    """Times trainings and passes in one setting.

    Args:
        setting: On what, and where.
        has_teacher: Whether trainings read a teacher's outputs; random numbers stand for them.
        live_teacher: What costs as much as the teacher that trainings on images ask instead; `None` for none.
        batch_size: The largest that will be asked for.
    """

    def __init__(
        self, setting: TrainingSetting, *, has_teacher: bool, live_teacher: nn.Module | None, batch_size: int
    ) -> None:
        self.setting = setting
        self._live_teacher = live_teacher
        self._logits = self._random_logits(_MAX_BATCHES * batch_size) if has_teacher else None

    def training_cost(
        self,
        make: Callable[[], nn.Module],
        recipe: TrainingRecipe,
        distillation: Distillation | None,
        *,
        on_features: bool = False,
    ) -> TrainingCost:
        """Return what training a network that `make` returns costs, from short trainings on real data.

        Args:
            make: Returns a new network.
            recipe: Of the whole training.
            distillation: How it learns from the teacher; `None` for not at all.
            on_features: Whether a `StagedNetwork` is trained on stored features.
        """
        n_examples = len(self.setting.train)
        n_per_epoch = n_examples // min(recipe.batch_size, n_examples)
        n_steps = recipe.epochs * n_per_epoch

        def train_for(wanted: int) -> tuple[int, float, nn.Module]:
            n_batches = min(wanted, n_per_epoch, _MAX_BATCHES)
            epochs = math.ceil(wanted / n_batches)
            model, seconds = self._short_training(make(), recipe, distillation, on_features, n_batches, epochs)
            return n_batches * epochs, seconds, model

        few_steps, many_steps = short_steps(self.setting.device, n_steps)

        def fastest(wanted: int) -> tuple[int, float, nn.Module]:
            # The first round warms up, and other programs only slow one down.
            return min((train_for(wanted) for _ in range(_N_ROUNDS)), key=lambda timed: timed[1])

        n_few, few_s, model = fastest(few_steps)
        step_s = few_s / n_few
        if few_s < _ENOUGH_S:
            n_many, many_s, model = fastest(many_steps)
            step_s = many_s / n_many
            if many_s > few_s and n_many > n_few:
                step_s = (many_s - few_s) / (n_many - n_few)
        start_s = max(0.0, few_s - n_few * step_s)
        return TrainingCost(step_s, n_steps, start_s, self.scoring_s(model))

    def training_s(
        self, make: Callable[[], nn.Module], recipe: TrainingRecipe, distillation: Distillation | None
    ) -> float:
        """Return the seconds of training and scoring a network; arguments as for `training_cost`."""
        return self.training_cost(make, recipe, distillation).total_s

    def scoring_s(self, model: nn.Module) -> float:
        """Return the seconds of scoring the validation split, from a part of it."""
        setting, examples = self.setting, self.setting.validation.load()
        n = min(_N_TIMED, len(examples))
        part = Examples(examples.images[:n], examples.targets[:n])
        start = time.perf_counter()
        score(model, setting.task, part, setting.normalization, device=setting.device)
        return (time.perf_counter() - start) * len(examples) / n

    def pass_s(self, work: Callable[[Examples], object]) -> float:
        """Return the seconds of `work` on the whole training split, from a part of it."""
        part = self.setting.train.first(_N_TIMED)
        start = time.perf_counter()
        work(part)
        return (time.perf_counter() - start) * len(self.setting.train) / len(part)

    def _short_training(
        self,
        model: nn.Module,
        recipe: TrainingRecipe,
        distillation: Distillation | None,
        on_features: bool,
        n_batches: int,
        epochs: int,
    ) -> tuple[nn.Module, float]:
        """Train on the first batches; return the network and the seconds."""
        setting = self.setting
        part = setting.train.first(n_batches * min(recipe.batch_size, len(setting.train)))
        teacher = self._live_teacher if distillation and not on_features else None
        data: TrainingData = setting.image_data(part, None if teacher else self._logits)
        if on_features and isinstance(model, StagedNetwork):
            data = self._random_features(model, part)
        start = time.perf_counter()
        train(
            model,
            dataclasses.replace(recipe, epochs=epochs),
            task=setting.task,
            data=data,
            seed=0,
            distillation=distillation,
            teacher=teacher,
            precision=setting.precision,
        )
        return model, time.perf_counter() - start

    def _random_features(self, network: StagedNetwork, examples: Examples) -> FeatureData:
        """Return what stands for the encoder's stored features: as large and of the same type."""
        setting = self.setting
        with torch.inference_mode():
            features = network.eval().encode(setting.normalization(examples.images[:1]))
        shapes = tuple((part.shape[1], part.shape[2], part.shape[3]) for part in features)
        values = torch.zeros(len(examples), sum(part[0].numel() for part in features), dtype=torch.float16)
        return FeatureData(
            values,
            shapes,
            examples.targets,
            self._logits,
            image_size=(examples.images.shape[-2], examples.images.shape[-1]),
            device=setting.device,
            resident_bytes=setting.resident_bytes,
        )

    def _random_logits(self, n_images: int) -> np.ndarray:
        """Return what stands for the teacher's outputs: as large and of the same type."""
        train = self.setting.train
        shape = (min(n_images, len(train)), self.setting.n_classes, *train.first(1).targets.shape[1:])
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).half().numpy()
