"""The part that all candidates of a run share, trained once: every candidate starts from it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torch import nn

from nas.pretrained.teacher import LiveTeacher
from nas.store.artifacts import ArtifactCache
from nas.torch_tools import load_part, save_weights, torch_threads
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.recipes import EpochSummary, TrainingRecipe
from search_spaces.base import ModelSpace, PretrainableSpace
from search_spaces.genotype import Gene, Genotype


class PretrainedSpace(ModelSpace):
    """A space whose networks start from pretrained encoders; everything else is as in the space itself.

    Args:
        space: The space.
        weights: A safetensors file with the encoder's weights; readable as an attribute.
    """

    def __init__(self, space: PretrainableSpace, weights: Path) -> None:
        self._space = space
        self.weights = weights

    @property
    def name(self) -> str:  # type: ignore[override]  # the name of the space within
        """As the space's."""
        return self._space.name

    @property
    def genes(self) -> tuple[Gene, ...]:
        """As the space's."""
        return self._space.genes

    def canonical(self, genotype: Genotype) -> Genotype:
        """As the space's."""
        return self._space.canonical(genotype)

    def describe(self, genotype: Genotype) -> str:
        """As the space's."""
        return self._space.describe(genotype)

    def build(self, genotype: Genotype, *, in_channels: int, n_classes: int, seed: int) -> nn.Module:
        """Return the space's network with the weights of its encoder replaced."""
        model = self._space.build(genotype, in_channels=in_channels, n_classes=n_classes, seed=seed)
        load_part(model.get_submodule("encoder"), self.weights)
        return model


def pretrain(
    space: PretrainableSpace,
    recipe: TrainingRecipe,
    setting: TrainingSetting,
    cache: ArtifactCache,
    *,
    distillation: Distillation | None,
    teacher_logits: Path | None,
    teacher: LiveTeacher | None = None,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[EpochSummary], None] | None = None,
) -> Path:
    """Return the weights of the encoder, trained now under a light decoder if no run did before.

    The file's metadata hold, as JSON under `scores`, what both together reached on the validation split.

    Args:
        space: Gives the network.
        recipe: How to train it.
        setting: On what and where.
        cache: Where the weights are kept.
        distillation: How it learns from the teacher; `None` for not at all.
        teacher_logits: A `.npy` file, for a distillation from stored outputs.
        teacher: For one from outputs for each batch.
        on_start: Called before a training starts.
        on_epoch: Called after each of its epochs.

    Raises:
        EvaluationError: If its training diverges.
    """
    depends_on = {
        **setting.depends_on,
        "space": [space.name, space.options],
        "recipe": asdict(recipe),
        "distillation": asdict(distillation) if distillation else None,
        "teacher": teacher_logits.name if teacher_logits else teacher and teacher.depends_on,
    }

    def write(path: Path) -> None:
        if on_start is not None:
            on_start()
        model = space.build_for_pretraining(
            in_channels=setting.in_channels, n_classes=setting.n_classes, seed=setting.seed
        )
        with torch_threads(setting.n_threads):
            train(
                model,
                recipe,
                task=setting.task,
                data=setting.training_data(teacher_logits),
                seed=setting.seed,
                distillation=distillation,
                teacher=teacher.load() if teacher else None,
                precision=setting.precision,
                on_epoch=on_epoch,
            )
        scores = score(model, setting.task, setting.validation.load(), setting.normalization, device=setting.device)
        save_weights(model.get_submodule("encoder"), path, {"scores": json.dumps(scores)})

    return cache.get("encoder", depends_on, ".safetensors", write)[0]
