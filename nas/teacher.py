"""The teacher of a run: a reference model, trained once or read from a file, and what it says of the images."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import nn

from nas.artifacts import ArtifactCache
from nas.data.base import Split
from nas.data.cache import ExamplesFile, load_array
from nas.errors import InputError
from nas.files import file_hash, load_weights, save_weights
from nas.tasks.base import Task
from nas.training import (
    EpochSummary,
    Normalization,
    TrainingData,
    TrainingRecipe,
    predict,
    score,
    torch_threads,
    train,
)
from search_spaces.reference_models import REFERENCE_MODELS

_DEFAULT_RECIPE = TrainingRecipe(epochs=10)


@dataclass(frozen=True)
class TeacherSpec:
    """What the teacher is.

    Attributes:
        kind: A name in `REFERENCE_MODELS`.
        options: Of the model's constructor.
        recipe: How to train it, where no weights are given.
        weights: A safetensors file with trained weights.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: TrainingRecipe = _DEFAULT_RECIPE
    weights: Path | None = None

    def build(self, in_channels: int, n_classes: int) -> nn.Module:
        """Return the untrained model."""
        return REFERENCE_MODELS[self.kind](in_channels, n_classes, **self.options)


@dataclass(frozen=True)
class TrainingSetting:
    """What the networks that a run makes first (teacher, encoder) are trained on and where.

    Attributes:
        data_fingerprint: Of the data set.
        train: The training split.
        validation: The validation split. The test split is not here: nothing made first may see it.
        normalization: Of the images.
        task: Loss and scores.
        task_options: What the task was made with, as plain values.
        in_channels: Of an image.
        n_classes: Channels of the logits.
        seed: The run's.
        device: A torch device.
        n_threads: CPU threads of a training.
    """

    data_fingerprint: str
    train: ExamplesFile
    validation: ExamplesFile
    normalization: Normalization
    task: Task
    task_options: Mapping[str, Any]
    in_channels: int
    n_classes: int
    seed: int
    device: str
    n_threads: int

    @property
    def depends_on(self) -> dict[str, Any]:
        """What a network trained here depends on, beside its own options and recipe."""
        return {
            "data": self.data_fingerprint,
            "task": dict(self.task_options),
            "seed": self.seed,
            "device": self.device,
            "n_threads": self.n_threads,
        }

    def training_data(self, teacher_logits: Path | None = None) -> TrainingData:
        """Return the training split."""
        logits = load_array(teacher_logits) if teacher_logits else None
        return TrainingData(self.train.load(), self.normalization, logits)


@dataclass(frozen=True)
class Teacher:
    """A trained teacher.

    Attributes:
        weights: Its safetensors file.
        n_params: Its size.
        scores: On the validation split, by metric.
        was_trained: Whether this call trained it; otherwise it was there.
    """

    weights: Path
    n_params: int
    scores: Mapping[str, float]
    was_trained: bool


def make_teacher(
    spec: TeacherSpec,
    setting: TrainingSetting,
    cache: ArtifactCache,
    *,
    on_start: Callable[[], None] | None = None,
    on_epoch: Callable[[EpochSummary], None] | None = None,
) -> Teacher:
    """Return the teacher, trained now if no run with the same data, recipe and seed did before.

    Args:
        spec: What it is.
        setting: On what and where it is trained.
        cache: Where its weights are kept.
        on_start: Called before a training starts.
        on_epoch: Called after each of its epochs.

    Raises:
        InputError: If given weights do not fit the model.
        EvaluationError: If its training diverges.
    """
    model = _build(spec, setting)

    def write(path: Path) -> None:
        if on_start is not None:
            on_start()
        with torch_threads(setting.n_threads):
            train(
                model,
                spec.recipe,
                task=setting.task,
                data=setting.training_data(),
                seed=setting.seed,
                device=setting.device,
                on_epoch=on_epoch,
            )
        save_weights(model, path)

    if spec.weights is not None:
        weights, was_trained = spec.weights, False
    else:
        weights, was_trained = cache.get(
            "teacher",
            {
                **setting.depends_on,
                "kind": spec.kind,
                "options": dict(spec.options),
                "recipe": asdict(spec.recipe),
            },
            ".safetensors",
            write,
        )
    _load(model, weights)
    scores = score(model, setting.task, setting.validation.load(), setting.normalization, device=setting.device)
    return Teacher(weights, sum(p.numel() for p in model.parameters()), scores, was_trained)


def teacher_logits(
    spec: TeacherSpec,
    teacher: Teacher,
    setting: TrainingSetting,
    split: Split,
    cache: ArtifactCache,
) -> Path:
    """Return a `.npy` file, float16, of the teacher's logits for every image of a split, in order."""
    depends_on = {
        "weights": file_hash(teacher.weights),
        "kind": spec.kind,
        "options": dict(spec.options),
        "data": setting.data_fingerprint,
        "split": split,
    }
    examples_file = setting.train if split is Split.TRAIN else setting.validation

    def write(path: Path) -> None:
        model = _build(spec, setting)
        _load(model, teacher.weights)
        images = examples_file.load().images
        outputs = predict(model.eval(), images, setting.normalization, device=setting.device)
        first = next(outputs)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(len(images), *first.shape[1:]))
        start = 0
        for output in (first, *outputs):
            array[start : start + len(output)] = output.half().cpu().numpy()
            start += len(output)
        array.flush()

    return cache.get("teacher-logits", depends_on, ".npy", write)[0]


def _build(spec: TeacherSpec, setting: TrainingSetting) -> nn.Module:
    return spec.build(setting.in_channels, setting.n_classes)


def _load(model: nn.Module, weights: Path) -> None:
    try:
        load_weights(model, weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{weights}: these weights are not of the teacher that is configured: {error}") from error
    model.eval()
