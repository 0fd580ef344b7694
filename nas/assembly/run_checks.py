"""What would spoil a run, looked for as soon as its data is there and before any training."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.config import RunConfig
from nas.errors import InputError
from nas.training.setting import TrainingSetting
from search_spaces.base import ModelSpace, PretrainableSpace, SearchSpace
from search_spaces.references.reference_models import REFERENCE_MODELS

_N_SAMPLES = 32  # networks of the space


def check_files(config: RunConfig) -> None:
    """Check that the teacher's file is there, if the run learns from a given one.

    Not while a configuration is read: an old run can be shown when its teacher is gone.

    Raises:
        InputError: If it is missing.
    """
    teacher = config.teacher
    if teacher is None or config.distillation is None or not config.distillation.enabled:
        return
    if teacher.given is not None and not teacher.given.is_file():
        key = "weights" if teacher.weights else "path"
        raise InputError(
            f"teacher.{key} must be a file, got {teacher.given}: there is none at {teacher.given.absolute()}"
        )


def check_batches(config: RunConfig, space: SearchSpace, setting: TrainingSetting) -> None:
    """Check that no batch normalisation is trained on a single value: one image, of which it sees one pixel.

    Raises:
        InputError: If one is, in the encoder, the teacher, a reference or a sample of the search space.
    """
    shape = tuple(setting.train.load().images.shape[1:])
    for key, model in _trained_one_by_one(config, space, setting):
        if _fewest_values(model, shape) < 2:
            size = " x ".join(map(str, shape[1:]))
            raise InputError(
                f"{key}.batch_size must be at least 2 for images of {size}, got 1: a {type(model).__name__} would "
                "normalise features of 1 x 1 by a single value"
            )


def _trained_one_by_one(
    config: RunConfig, space: SearchSpace, setting: TrainingSetting
) -> Iterator[tuple[str, nn.Module]]:
    """Yield networks that are trained on batches of one, with the section that says so."""
    sizes = {"in_channels": setting.in_channels, "n_classes": setting.n_classes}
    teacher = config.teacher
    if teacher is not None and teacher.given is None and teacher.recipe.batch_size == 1:
        yield "teacher.recipe", teacher.build(**sizes)
    if isinstance(space, PretrainableSpace) and config.pretraining is not None and config.pretraining.batch_size == 1:
        yield "pretraining", space.build_for_pretraining(**sizes, seed=0)
    if config.training is None or all(stage.batch_size > 1 for stage in config.training.stages):
        return
    for kind in config.references:
        yield "training", REFERENCE_MODELS[kind](**sizes)
    if isinstance(space, ModelSpace):
        rng = np.random.default_rng(config.seed)
        for _ in range(_N_SAMPLES):
            yield "training", space.build(space.canonical(space.sample(rng)), **sizes, seed=0)


@torch.inference_mode()
def _fewest_values(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return how many values of a channel the batch normalisation of `model` that sees fewest sees of one image."""
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0].numel()))
    model.eval()(torch.zeros(1, *shape))
    return min(seen, default=2)
