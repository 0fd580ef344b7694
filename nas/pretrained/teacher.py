"""The teacher of a run: a network, trained once or read from a file, and what it says of the images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from nas.data.cache import ExamplesFile, new_array
from nas.errors import EvaluationError, InputError
from nas.files import content_hash
from nas.pretrained.onnx_teacher import OnnxTeacher, external_files
from nas.store.artifacts import ArtifactCache
from nas.torch_tools import load_weights, save_weights, torch_threads
from nas.training.engine import train
from nas.training.scoring import predict, score
from nas.training.setting import TrainingSetting
from nas.values.recipes import EpochSummary, TrainingRecipe
from search_spaces.references.reference_models import REFERENCE_MODELS

TEACHERS: dict[str, type[nn.Module]] = {**REFERENCE_MODELS, "onnx": OnnxTeacher}

_PROBABILITY_TOLERANCE = 1e-3
_N_LOOKED_AT = 16  # images
_DEFAULT_RECIPE = TrainingRecipe(epochs=10)


@dataclass(frozen=True)
class TeacherSpec:
    """What the teacher is.

    Attributes:
        kind: A name in `TEACHERS`, or a user's own class as `package.module:ClassName`.
        options: Of the model's constructor.
        recipe: How to train it, where it is not given trained.
        weights: A safetensors file with trained weights of a reference model.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: TrainingRecipe = _DEFAULT_RECIPE
    weights: Path | None = None

    def build(self, in_channels: int, n_classes: int) -> nn.Module:
        """Return the model: untrained, or an ONNX file that is not opened yet."""
        return self.cls(in_channels, n_classes, **self.options)

    @property
    def cls(self) -> type[nn.Module]:
        """The model's class."""
        found: type[nn.Module] = resolve_name(self.kind) if ":" in self.kind else TEACHERS[self.kind]
        return found

    @property
    def given(self) -> Path | None:
        """The file that holds it trained; `None` for one that is trained here."""
        path: Path | None = self.options["path"] if issubclass(self.cls, OnnxTeacher) else self.weights
        return path


@dataclass(frozen=True)
class Teacher:
    """A trained teacher.

    Attributes:
        weights: Its safetensors or ONNX file.
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
    on_message: Callable[[str], None] | None = None,
) -> Teacher:
    """Return the teacher, trained now if no run with the same data, recipe and seed did before.

    Args:
        spec: What it is.
        setting: On what and where it is trained.
        cache: Where its weights are kept.
        on_start: Called before a training starts.
        on_epoch: Called after each of its epochs.
        on_message: Called with what a person should know of a given file.

    Raises:
        InputError: If the given file does not fit the model, the classes or the images, saying what differs.
        EvaluationError: If its training diverges.
    """

    def write(path: Path) -> None:
        if on_start is not None:
            on_start()
        model = spec.build(setting.in_channels, setting.n_classes)
        with torch_threads(setting.n_threads):
            train(
                model,
                spec.recipe,
                task=setting.task,
                data=setting.training_data(),
                seed=setting.seed,
                precision=setting.precision,
                on_epoch=on_epoch,
            )
        save_weights(model, path)

    if spec.given is not None:
        weights, was_trained = spec.given, False
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
    model = load_teacher(spec, weights, setting)
    if spec.given is not None and on_message is not None and _lies_in_0_to_1(model, setting):
        on_message(
            f"{weights}: all that the teacher says lies between 0 and 1. Networks learn from logits: if a sigmoid made "
            "these numbers, write the file without it."
        )
    try:
        scores = score(model, setting.task, setting.validation.load(), setting.normalization, device=setting.device)
    except EvaluationError as error:
        fault = InputError if spec.given is not None else EvaluationError
        raise fault(f"{weights}: the teacher cannot be scored on the validation split: {error}") from error
    n_params = model.n_params if isinstance(model, OnnxTeacher) else sum(p.numel() for p in model.parameters())
    return Teacher(weights, n_params, scores, was_trained)


def load_teacher(spec: TeacherSpec, weights: Path, setting: TrainingSetting) -> nn.Module:
    """Return the trained teacher, in eval mode: it maps images, normalised as the run's are, to logits.

    Args:
        spec: What it is.
        weights: Its file: `Teacher.weights`.
        setting: The data that it has to fit.

    Raises:
        InputError: If the file does not fit the model, the classes or the images, saying what differs.
    """
    model = spec.build(setting.in_channels, setting.n_classes).eval()
    if isinstance(model, OnnxTeacher):
        model.open(setting.normalization)
    else:
        try:
            load_weights(model, weights)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{weights}: these weights are not of the teacher that is configured: {error}") from error
    _check_output(model, weights, setting)
    return model


def weights_hash(spec: TeacherSpec, weights: Path) -> str:
    """Return the hash of all files of a teacher: an ONNX file may keep its weights beside it."""
    return content_hash(*_files(spec, weights))


def _files(spec: TeacherSpec, weights: Path) -> tuple[Path, ...]:
    return (weights, *(external_files(weights) if issubclass(spec.cls, OnnxTeacher) else ()))


@dataclass(frozen=True)
class LiveTeacher:
    """A teacher that is asked during trainings; small enough to be sent to the processes that train.

    Attributes:
        spec: What it is.
        weights: Its file, from `make_teacher`.
        setting: The data that it fits.
    """

    spec: TeacherSpec
    weights: Path
    setting: TrainingSetting

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it is read from."""
        return _files(self.spec, self.weights)

    @property
    def depends_on(self) -> dict[str, Any]:
        """What it says of an image depends on."""
        return {
            "weights": weights_hash(self.spec, self.weights),
            "kind": self.spec.kind,
            "options": dict(self.spec.options),
            "normalization": asdict(self.setting.normalization),
        }

    def load(self) -> nn.Module:
        """Return the network, trained, in eval mode.

        Raises:
            InputError: As for `load_teacher`.
        """
        return load_teacher(self.spec, self.weights, self.setting)


def teacher_logits(
    spec: TeacherSpec,
    teacher: Teacher,
    setting: TrainingSetting,
    examples: ExamplesFile,
    cache: ArtifactCache,
) -> Path:
    """Return a `.npy` file, float16, of the teacher's logits for every image of `examples`, in order.

    Raises:
        InputError: If a logit is not finite, or too large for float16.
    """
    asked = LiveTeacher(spec, teacher.weights, setting)
    depends_on = {**asked.depends_on, "examples": examples.images.name}

    def write(path: Path) -> None:
        model = asked.load()
        images = examples.load().images
        outputs = predict(model, images, setting.normalization, device=setting.device)
        first = next(outputs)
        array = new_array(path, np.float16, (len(images), *first.shape[1:]))
        start = 0
        for output in (first, *outputs):
            array[start : start + len(output)] = _halved(output, teacher.weights).cpu().numpy()
            start += len(output)
        array.flush()

    return cache.get("teacher-logits", depends_on, ".npy", write)[0]


def _check_output(model: nn.Module, weights: Path, setting: TrainingSetting) -> None:
    """Check what the teacher says of one image against the classes and the size of the targets."""
    examples = setting.train.first(1)
    images = examples.images
    output = next(predict(model, images, setting.normalization, device=setting.device))
    expected = (setting.n_classes, *examples.targets.shape[1:])
    if (found := tuple(output.shape[1:])) != expected:
        raise InputError(
            f"{weights}: the teacher does not fit this run: {'; '.join(_output_differences(found, expected))}. "
            f"It gives {_sizes(found)} for an image of {_sizes(images.shape[1:])} and must give {_sizes(expected)}"
        )
    sums = output.sum(dim=1)
    if output.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=_PROBABILITY_TOLERANCE):
        raise InputError(
            f"{weights}: the teacher must give logits, it gives probabilities: write it without its softmax"
        )
    _halved(output, weights)


def _halved(output: torch.Tensor, weights: Path) -> torch.Tensor:
    """Return the logits as they are stored."""
    half = output.half()
    if half.isfinite().all():
        return half
    if output.isfinite().all():
        raise InputError(
            f"{weights}: the teacher's logits must lie within +-{torch.finfo(half.dtype).max:,.0f}, got "
            f"{float(output.abs().max()):,.0f}. Does it take images that are scaled otherwise? Set its mean and std"
        )
    raise InputError(f"{weights}: the teacher must give finite logits, it gives NaN or infinity")


def _lies_in_0_to_1(model: nn.Module, setting: TrainingSetting) -> bool:
    images = setting.train.load().images[:_N_LOOKED_AT]
    outputs = predict(model, images, setting.normalization, device=setting.device)
    return all(bool(((output >= 0) & (output <= 1)).all()) for output in outputs)


def _output_differences(found: tuple[int, ...], expected: tuple[int, ...]) -> Iterator[str]:
    if len(found) != len(expected):
        yield f"its output for an image has {len(found)} dimensions, not {len(expected)}"
        return
    if found[0] != expected[0]:
        yield f"it knows {found[0]} classes, the data has {expected[0]}"
    if found[1:] != expected[1:]:
        yield f"its output is {_sizes(found[1:])} pixels, the targets are {_sizes(expected[1:])}"


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
