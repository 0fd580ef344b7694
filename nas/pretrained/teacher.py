"""The teacher of a run: a network, trained once or read from a file, and its logits of the images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data.base import Examples
from nas.data.cache import ExamplesFile, new_array
from nas.data.normalization import Normalization
from nas.errors import DamagedFileError, EvaluationError, InputError
from nas.files import content_hash
from nas.pretrained.artifact import Artifact, Timer, TrainingListener, train_shared
from nas.pretrained.onnx_teacher import OnnxTeacher, external_files
from nas.pretrained.teacher_form import AS_NETWORKS_HERE, FormedTeacher, TeacherForm
from nas.pretrained.views import Views, decoded, n_views
from nas.torch_tools import load_weights, save_weights
from nas.training.scoring import predict, score
from nas.training.setting import TrainingSetting
from nas.values.recipes import TrainingRecipe
from search_spaces.references.reference_models import REFERENCE_MODELS

TEACHERS: dict[str, type[nn.Module]] = {**REFERENCE_MODELS, "onnx": OnnxTeacher}

_PROBABILITY_TOLERANCE = 1e-3
_N_LOOKED_AT = 16  # images
_DEFAULT_RECIPE = TrainingRecipe(epochs=10)


@dataclass(frozen=True)
class TeacherSpec:
    """What the teacher is.

    Attributes:
        kind: A name in `TEACHERS`, or a user's own class or function as `package.module:name`.
        options: Of the model's constructor.
        recipe: How to train it, where it is not given trained.
        weights: A safetensors file with trained weights of the model.
        form: How a given teacher takes images and gives its answer.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: TrainingRecipe = _DEFAULT_RECIPE
    weights: Path | None = None
    form: TeacherForm = AS_NETWORKS_HERE

    def build(self, in_channels: int, n_classes: int) -> nn.Module:
        """Return the model: untrained, or an ONNX file that is not opened yet."""
        make: Callable[..., nn.Module] = resolve_name(self.kind) if ":" in self.kind else TEACHERS[self.kind]
        return make(in_channels, n_classes, **self.options)

    def load(self, path: Path, in_channels: int, n_classes: int, normalization: Normalization) -> nn.Module:
        """Return the network with the weights of a file, in eval mode: it maps normalised images to logits.

        Raises:
            InputError: If the file holds no weights of this model.
        """
        model = self.build(in_channels, n_classes).eval()
        if isinstance(model, OnnxTeacher):
            model.open()
        else:
            try:
                load_weights(model, path)
            except (OSError, RuntimeError, DamagedFileError) as error:
                raise InputError(f"{path}: these weights are not of the teacher that is configured: {error}") from error
        return self.formed(model, path, in_channels, n_classes, normalization)

    def formed(
        self, model: nn.Module, source: Path, in_channels: int, n_classes: int, normalization: Normalization
    ) -> nn.Module:
        """Return a network of this run for a model that takes other images or gives other outputs."""
        form = self.form
        if self.is_onnx and not form.mean:
            form = replace(form, mean=(0.0,) * in_channels, std=(1.0,) * in_channels)
        if form == AS_NETWORKS_HERE:
            return model
        sizes = {"in_channels": in_channels, "n_classes": n_classes}
        return FormedTeacher(model, form, normalization, **sizes, source=source).eval()

    @property
    def is_onnx(self) -> bool:
        """Whether it is the network of an ONNX file."""
        return TEACHERS.get(self.kind) is OnnxTeacher

    @property
    def given(self) -> Path | None:
        """The file that holds it trained; `None` for one that is trained here."""
        path: Path | None = self.options["path"] if self.is_onnx else self.weights
        return path

    def check_file(self) -> None:
        """Check that the file of a given teacher is there.

        Not while a configuration is read: an old run can be shown when its teacher is gone.

        Raises:
            InputError: If it is missing.
        """
        if self.given is not None and not self.given.is_file():
            key = "weights" if self.weights else "path"
            raise InputError(
                f"teacher.{key} must be a file, got {self.given}: there is none at {self.given.absolute()}"
            )


@dataclass(frozen=True)
class TeacherReport:
    """How good and how large a teacher is.

    Attributes:
        n_params: Its size.
        scores: On the validation split, by metric.
    """

    n_params: int
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Teacher(Artifact):
    """The trained network that others learn from: its weights, trained here, or a file that somebody else trained.

    Small enough to be sent to the processes that ask it during trainings.

    Attributes:
        spec: What it is.
    """

    name = "teacher"
    kinds = ("teacher",)
    suffix = ".safetensors"
    spec: TeacherSpec

    @property
    def depends_on(self) -> dict[str, Any]:
        """The cache key of a teacher that is trained here."""
        spec = self.spec
        own = {"kind": spec.kind, "options": dict(spec.options), "recipe": asdict(spec.recipe)}
        return {**self.setting.depends_on, **own}

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The safetensors or ONNX file with its weights."""
        return (self.spec.given,) if self.spec.given is not None else super().paths

    def make(self, listener: TrainingListener) -> bool:
        """Train it unless some run did, or its file is given. Return whether this call trained it."""
        return self.spec.given is None and super().make(listener)

    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Train it."""
        model, recipe = self._untrained(), self.spec.recipe
        train_shared(self, model, recipe, listener, what=f"the teacher ({self.spec.kind}, {recipe.length})")
        save_weights(model, paths[0])

    def seconds(self, timer: Timer) -> float:
        """Return what training it costs."""
        return timer.training_s(self._untrained, self.spec.recipe, None)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from: an ONNX file may keep its weights beside it."""
        return (self.path, *(external_files(self.path) if self.spec.is_onnx else ()))

    @cached_property
    def fingerprint(self) -> str:
        """The hash of all its files."""
        return content_hash(*self.files)

    @property
    def outputs_depend_on(self) -> dict[str, Any]:
        """What determines its logits of an image, as part of a cache key."""
        form = {} if self.spec.form == AS_NETWORKS_HERE else {"form": asdict(self.spec.form)}  # keys stay
        return {
            "weights": self.fingerprint,
            "kind": self.spec.kind,
            "options": dict(self.spec.options),
            "normalization": asdict(self.setting.normalization),
            **form,
        }

    def load(self) -> nn.Module:
        """Return the trained network in eval mode: it maps images, normalised as the run's are, to logits.

        Raises:
            InputError: If its file does not fit the model, the classes or the images, saying what differs.
        """
        setting = self.setting
        model = self.spec.load(self.path, setting.in_channels, setting.n_classes, setting.normalization)
        _check_output(model, self.path, setting)
        return model

    def stand_in(self) -> nn.Module:
        """Return a network that costs as much to run, trained or not: the given one, else an untrained one.

        Raises:
            InputError: As for `load`.
        """
        return self.load() if self.spec.given is not None else self._untrained().eval()

    def report(self, listener: TrainingListener) -> TeacherReport:
        """Score it on the validation split; tell `listener` if a given file seems to hold no logits.

        Raises:
            InputError: If a given file does not fit the model, the classes or the images, saying what differs.
            EvaluationError: If what was trained here cannot be scored.
        """
        model, setting = self.load(), self.setting
        is_given = self.spec.given is not None
        if is_given and _lies_in_0_to_1(model, setting):
            listener.on_message(
                f"{self.path}: all that the teacher says lies between 0 and 1. Networks learn from logits: if a "
                "sigmoid made these numbers, write the file without it, or output: sigmoid where it gives one channel."
            )
        try:
            scores = score(model, setting.task, setting.validation.load(), setting.normalization, device=setting.device)
        except EvaluationError as error:
            fault = InputError if is_given else EvaluationError
            raise fault(f"{self.path}: the teacher cannot be scored on the validation split: {error}") from error
        network = model.network if isinstance(model, FormedTeacher) else model
        n_params = network.n_params if isinstance(network, OnnxTeacher) else sum(p.numel() for p in model.parameters())
        return TeacherReport(n_params, scores)

    def _untrained(self) -> nn.Module:
        return self.spec.build(self.setting.in_channels, self.setting.n_classes)


@dataclass(frozen=True, eq=False)
class TeacherOutputs(Artifact):
    """The teacher's logits, float16, for every image of a split or of its views, in order.

    Attributes:
        teacher: Gives them.
        images: Of what.
    """

    kinds = ("teacher-logits",)
    teacher: Teacher
    images: ExamplesFile | Views

    @property
    def name(self) -> str:
        """Of the training split, or of its views."""
        return "for views" if isinstance(self.images, Views) else "its outputs"

    @property
    def needs(self) -> tuple[Artifact, ...]:
        """The teacher, and the views."""
        return (self.teacher, self.images) if isinstance(self.images, Views) else (self.teacher,)

    @property
    def depends_on(self) -> dict[str, Any]:
        """The teacher and the images."""
        return {**self.teacher.outputs_depend_on, "examples": decoded(self.images).images.name}

    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Ask the teacher.

        Raises:
            InputError: If a logit is not finite, or too large for float16.
        """
        images = decoded(self.images).load().images
        outputs = predict(self.teacher.load(), images, self.setting.normalization, device=self.setting.device)
        first = next(outputs)
        array = new_array(paths[0], np.float16, (len(images), *first.shape[1:]))
        start = 0
        for output in (first, *outputs):
            array[start : start + len(output)] = _halved(output, self.teacher.path).cpu().numpy()
            start += len(output)
        array.flush()

    def seconds(self, timer: Timer) -> float:
        """Return what asking costs."""
        model = self.teacher.stand_in()

        def ask(part: Examples) -> None:
            for output in predict(model, part.images, self.setting.normalization, device=self.setting.device):
                output.half().cpu()

        return n_views(self.images) * timer.pass_s(ask)


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
