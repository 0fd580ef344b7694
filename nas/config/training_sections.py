"""Reads the sections of a configuration that say how networks are trained, and by which teacher."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch

from nas.config.model import DistillationConfig, TrainingConfig
from nas.config.options import construct, must_be, options_model, sentence, validate
from nas.config.section_reader import SectionReader
from nas.data.base import Dataset, IndexedDataset
from nas.pretrained.onnx_teacher import OnnxTeacher
from nas.pretrained.teacher import TeacherSpec
from nas.tasks.base import Task
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.values.recipes import StageRecipe, TrainingRecipe
from search_spaces.base import PretrainableSpace, SearchSpace

_TORCH_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class TrainingSections(TypedDict):
    """The fields of a `RunConfig` that are read here."""

    teacher: TeacherSpec | None
    training: TrainingConfig | None
    pretraining: TrainingRecipe | None
    augmentation: Augmentation | None
    distillation: DistillationConfig | None


class TrainingReader(SectionReader):
    """Reads `teacher`, `training`, `pretraining`, `augmentation` and `distillation`, once."""

    def read(self, dataset: object, space: object, task: Task | None, task_kind: str | None) -> TrainingSections:
        """Return what could be read; with faults, some may be missing.

        Args:
            dataset: What is trained on; `None` if its section is faulty.
            space: Whose networks are trained; `None` if its section is faulty.
            task: What for; `None` if it cannot be made now.
            task_kind: `None` if it is not known.
        """
        teacher = self._teacher(task_kind)
        training = self._training()
        distillation = self._distillation(teacher is not None, task_kind)
        if training is not None and training.n_loader_workers:
            self._check_streaming(training, distillation, dataset)
        return {
            "teacher": teacher,
            "training": training,
            "pretraining": self._pretraining(space),
            "augmentation": self._augmentation(task),
            "distillation": distillation,
        }

    def _teacher(self, task_kind: str | None) -> TeacherSpec | None:
        raw = self._mapping(("teacher",), self._raw.get("teacher"), " such as {kind: unet}")
        if raw is None:
            return None
        self._needs_data("teacher")
        own_raw = {key: raw[key] for key in ("weights", "recipe") if raw.get(key) is not None}
        if isinstance(own_raw.get("recipe"), Mapping):
            # What a recipe leaves out is the teacher's default, not the candidates'.
            own_raw["recipe"] = dataclasses.asdict(TeacherSpec.recipe) | dict(own_raw["recipe"])
        own, faults = validate(options_model(TeacherSpec, frozenset({"kind", "options"})), own_raw, ("teacher",))
        self.faults += faults
        cls, options = self._kind_and_options(
            ("teacher",), raw, self._kinds["teacher"], dict.fromkeys(("weights", "recipe"))
        )
        is_onnx = cls is not None and issubclass(cls, OnnxTeacher)
        if is_onnx and raw.get("weights") is not None:
            self._fault(("teacher", "weights"), "teacher.weights: an ONNX file has its own; leave them out.")
        if (is_onnx or raw.get("weights") is not None) and raw.get("recipe") is not None:
            self._fault(("teacher", "recipe"), "teacher.recipe: given weights need no training; leave one out.")
        if cls is None or options is None:
            return None
        self._check_reference(("teacher", "kind"), raw["kind"], task_kind)
        with torch.device("meta"):  # shapes only: no memory, no initial weights
            _, faults = construct(lambda: cls(3, 2, **options), options, ("teacher",))
        self.faults += faults
        return None if own is None else TeacherSpec(kind=raw["kind"], options=options, **own)

    def _training(self) -> TrainingConfig | None:
        raw = self._mapping(("training",), self._raw.get("training"))
        if raw is None:
            return None
        own = TrainingConfig.model_fields.keys() - {"recipe"}
        recipe: TrainingRecipe | None = self._value("training", TrainingRecipe, raw, tuple(own))
        if recipe is None:
            return None
        own_raw = {key: raw[key] for key in own if raw.get(key) is not None}
        if "epochs" in raw and "stages" in own_raw:
            self._fault(("training", "epochs"), "training.epochs: each of the stages has its own; leave one out.")
        if isinstance(stages := own_raw.get("stages"), list | tuple):
            # What a stage leaves out is as the section says.
            shared = dataclasses.asdict(recipe)
            own_raw["stages"] = [shared | dict(stage) if isinstance(stage, Mapping) else stage for stage in stages]
        else:
            own_raw.setdefault("stages", [dataclasses.asdict(recipe)])
        values, faults = validate(options_model(TrainingConfig, frozenset({"recipe"})), own_raw, ("training",))
        self.faults += faults
        if values is None:
            return None
        config = TrainingConfig(recipe=recipe, **values)
        self._check_training(config)
        return config

    def _check_training(self, config: TrainingConfig) -> None:
        if not _TORCH_DEVICE.fullmatch(config.device):
            self.faults.append(must_be(("training", "device"), "auto, cpu, cuda or cuda:N", config.device))
        for name in ("n_threads_alone", "n_views"):
            if getattr(config, name) < 1:
                self.faults.append(must_be(("training", name), "an integer of at least 1", getattr(config, name)))
        for name in ("resident_gib", "n_loader_workers"):
            if getattr(config, name) < 0:
                self.faults.append(must_be(("training", name), "at least 0", getattr(config, name)))
        if not config.stages:
            self._fault(("training", "stages"), "training.stages must hold at least one stage, got none.")
        for name in ("drop_rule", "successive_halving"):
            if getattr(config, name) is not None and len(config.stages) < 2:
                text = f"training.{name}: candidates are stopped between stages; give at least two of them."
                self._fault(("training", name), text)
        if config.drop_rule is not None and config.successive_halving is not None:
            text = "training.successive_halving: there is a drop_rule already; leave one out."
            self._fault(("training", "successive_halving"), text)
        self._check_stages(config.stages)

    def _check_stages(self, stages: Sequence[StageRecipe]) -> None:
        whole: int | None = None
        for number, stage in enumerate(stages):
            path = ("training", "stages", number, "train")
            if stage.train == "all":
                whole = number if whole is None else whole
                continue
            if "pretraining" not in self._given:
                text = "decoder needs a pretraining section: the encoder's features are stored once it is trained."
                self._fault(path, sentence(path, text))
            if whole is not None:
                what = f"all after stages[{whole}], which changes the encoder whose features are stored (decoder first)"
                self.faults.append(must_be(path, what, stage.train))

    def _check_streaming(
        self, training: TrainingConfig, distillation: DistillationConfig | None, dataset: object
    ) -> None:
        """Refuse what needs the training images decoded on disk, where they are streamed."""
        key = ("training", "n_loader_workers")
        if isinstance(dataset, Dataset) and not isinstance(dataset, IndexedDataset):
            text = "this kind of data cannot decode single images; leave it out, or take folders of images."
            self._fault(key, f"training.n_loader_workers: {text}")
        if any(stage.train == "decoder" for stage in training.stages):
            text = "stages that train the decoder alone store features of all images; leave one of both out."
            self._fault(key, f"training.n_loader_workers: {text}")
        if distillation is not None and distillation.enabled and distillation.method.teacher == "cached":
            text = "the teacher's outputs take more place than the images; write distillation: {teacher: live}."
            self._fault(key, f"training.n_loader_workers: {text}")

    def _pretraining(self, space: object) -> TrainingRecipe | None:
        raw = self._mapping(("pretraining",), self._raw.get("pretraining"))
        if raw is None:
            return None
        self._needs_data("pretraining")
        shares = isinstance(space, PretrainableSpace) and space.shares_encoder
        if isinstance(space, SearchSpace) and not shares:
            self._fault(("pretraining",), f"pretraining: the networks of {space.name!r} share no encoder.")
        recipe: TrainingRecipe | None = self._value("pretraining", TrainingRecipe, raw, ())
        return recipe

    def _augmentation(self, task: Task | None) -> Augmentation | None:
        raw = self._mapping(("augmentation",), self._raw.get("augmentation"))
        if raw is None:
            return None
        self._needs_data("augmentation")
        augmentation: Augmentation | None = self._value("augmentation", Augmentation, raw, ())
        if augmentation is not None and task is not None:
            _, faults = construct(functools.partial(augmentation.check, task), raw, ("augmentation",))
            self.faults += faults
        return augmentation

    def _distillation(self, has_teacher: bool, task_kind: str | None) -> DistillationConfig | None:
        raw = self._mapping(("distillation",), self._raw.get("distillation"))
        if raw is None:
            return DistillationConfig() if has_teacher and "distillation" not in self._given else None
        enabled = raw.get("enabled", True)
        if not isinstance(enabled, bool):
            self.faults.append(must_be(("distillation", "enabled"), "true or false", enabled))
        if enabled:
            self._needs_data("distillation")
            if "teacher" not in self._given:
                self._fault(("distillation",), "distillation needs a teacher section to learn from.")
        method = self._value("distillation", Distillation, raw, ("enabled",))
        if method is None or not isinstance(enabled, bool):
            return None
        if method.loss == "channel_wise" and task_kind == "classification":
            self._fault(
                ("distillation", "loss"), "distillation.loss: channel_wise is for segmentation; take kl or mse."
            )
        return DistillationConfig(enabled=enabled, method=method)
