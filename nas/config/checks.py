"""Checks the sections of a configuration against each other, and fills in what follows from others."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from nas.config.faults import blamed, must_be, nearest, sentence
from nas.config.kinds import Component
from nas.config.metric_checks import MetricChecks
from nas.config.model import ControllerConfig, DistillationConfig, ObjectiveConfig, RunConfig
from nas.config.yaml_source import Fault, KeyPath
from nas.data.base import Dataset, IndexedDataset
from nas.errors import InputError
from nas.evaluation.training_config import TrainingConfig
from nas.pretrained.onnx_teacher import OnnxTeacher
from nas.pretrained.teacher import TEACHERS
from nas.tasks import TASKS, Task
from nas.values.objectives import Objective
from search_spaces.base import PretrainableSpace
from search_spaces.references.reference_models import REFERENCE_MODELS
from search_spaces.spaces.tabular import Tabular

_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_NEED_DATA = ("teacher", "pretraining", "augmentation", "references")


class CrossChecks:
    """Checks one configuration.

    Args:
        draft: What could be read; faulty sections are `None`.
        raw: The whole file as plain values.
        given: The sections that the user wrote, faulty and misspelled ones included.
        read_section: Returns a section as raw values give it; notes its faults.
        read_items: Returns the items of a section that are without fault, by name or index.

    Attributes:
        faults: Those found.
    """

    def __init__(
        self,
        draft: RunConfig,
        raw: Mapping[str, Any],
        given: frozenset[str],
        read_section: Callable[[str, Any], Any],
        read_items: Callable[[str], dict[Any, Any]],
    ) -> None:
        self.faults: list[Fault] = []
        self._config = draft
        self._raw = raw
        self._given = given
        self._read_section = read_section
        self._read_items = read_items

    def checked(self) -> RunConfig:
        """Return the draft with what follows from other sections; with faults, of no use."""
        config = self._config
        dataset = config.data.instance if config.data else None
        task = self._task(dataset)
        config = config.model_copy(update={"task": task, "devices": self._read_items("devices")})
        metrics = MetricChecks(config, self._raw, self._given, self._report, self._read_section)
        config = metrics.checked(self._read_items("objectives"), self._read_items("constraints"))
        config = config.model_copy(update={"distillation": self._distillation(config.distillation, task)})
        self._needs_data(config)
        self._check_names_and_seeds(config)
        self._check_teacher(config, task)
        self._check_devices_are_reached(config)
        if config.training is not None:
            self._check_training(config.training, config, dataset)
        self._check_space(config)
        if (augmentation := config.augmentation) and task and (instance := task.instance):
            self._attempt(lambda: augmentation.check(instance), "augmentation", vars(augmentation))
        self._check_controller(config.controller, config.objectives)
        self._check_references(config.references or (), task)
        return config

    def _report(self, path: KeyPath, text: str, at: KeyPath | None = None) -> None:
        """Note a fault: of the value at `path`, unless its text is about the one at `at`."""
        self.faults.append(Fault(path, sentence(path if at is None else at, text)))

    def _attempt(self, check: Callable[[], object], section: str, options: Iterable[str]) -> Any:
        """Return what `check` returns; a `ValueError` is a fault of the option that its message starts with."""
        try:
            return check()
        except ValueError as error:
            self.faults.append(blamed((section,), str(error), options))
        return None

    def _task(self, dataset: Dataset | None) -> Component[Task | None] | None:
        """Return the task with its object, by default what the data's targets are made for."""
        task = self._config.task
        if dataset is None:
            return task
        fitting = next(kind for kind, cls in TASKS.items() if cls.is_dense == dataset.is_dense)
        if "task" not in self._given:
            task = self._read_section("task", {"kind": fitting})
        if task is None:
            return None
        names = _class_names(dataset)
        if task.cls.is_dense != dataset.is_dense:
            self._report(("task", "kind"), f"the targets of the data are made for {fitting}, not for {task.kind}.")
            return task
        if names is None:
            return task
        made = self._attempt(lambda: task.cls(names, dataset.ignore_index, **task.options), "task", task.options)
        return replace(task, instance=made)

    def _needs_data(self, config: RunConfig) -> None:
        if "data" in self._given:
            if config.search_space and isinstance(config.search_space.instance, Tabular):
                self._report(("data",), "a table holds all that is known of its rows; leave the data section out.")
            return
        needing = [name for name in _NEED_DATA if self._raw.get(name)]
        needing += ["distillation"] if "distillation" in self._given and _is_enabled(self._raw) else []
        for name in needing:
            self._report((name,), f"{name} needs a data section.", ())

    def _check_names_and_seeds(self, config: RunConfig) -> None:
        for name in config.devices:
            if not _DEVICE_NAME.fullmatch(name):
                text = f"a name must be letters, digits, '_' and '-', got {name!r}."
                self._report(("devices", name), text, ("devices",))
        for key, least in (("seeds_per_candidate", 1), ("front_seeds", 0)):
            if (getattr(config, key) or least) > least and "training" not in self._given:
                self._report((key,), f"{key} needs a training section: only trainings depend on the seed.", ())

    def _check_devices_are_reached(self, config: RunConfig) -> None:
        """Refuse a device to measure on where Ray makes its own single node: that one carries no device."""
        execution = config.execution
        is_alone = execution.kind == "ray" and execution.options.get("address") == "local"
        measured = [o.device for o in config.objectives if o.device] + [
            c.device for c in config.constraints if c.device
        ]
        if is_alone and measured:
            name = measured[0]
            text = (
                f"local excludes the device {name!r}: Ray measures on nodes that carry the resource 'device:{name}', "
                "and local starts one without. Give the address of a cluster that has it, or take kind: process_pool."
            )
            self._report(("execution", "address"), text)

    def _check_teacher(self, config: RunConfig, task: Component[Task | None] | None) -> None:
        raw = self._raw.get("teacher")
        if not isinstance(raw, Mapping):
            return
        is_onnx = issubclass(TEACHERS.get(str(raw.get("kind")), object), OnnxTeacher)
        if is_onnx and raw.get("weights") is not None:
            self._report(("teacher", "weights"), "an ONNX file has its own; leave them out.")
        if (is_onnx or raw.get("weights") is not None) and raw.get("recipe") is not None:
            self._report(("teacher", "recipe"), "given weights need no training; leave one out.")
        if not is_onnx and raw.get("weights") is None:
            for key in ("mean", "std", "channel_order", "output"):
                if raw.get(key) is not None:
                    text = "a teacher that is trained here takes and gives what all networks do; leave it out."
                    self._report(("teacher", key), text)
        self._check_reference(("teacher", "kind"), str(raw.get("kind")), task)

    def _check_training(self, training: TrainingConfig, config: RunConfig, dataset: Dataset | None) -> None:
        stages = training.stages
        if "epochs" in self._raw["training"] and self._raw["training"].get("stages") is not None:
            self._report(("training", "epochs"), "each of the stages has its own; leave one out.")
        for name in ("drop_rule", "successive_halving"):
            if getattr(training, name) is not None and len(stages) < 2:
                self._report(("training", name), "candidates are stopped between stages; give at least two of them.")
        if training.drop_rule and training.successive_halving:
            self._report(("training", "successive_halving"), "there is a drop_rule already; leave one out.")
        whole: int | None = None
        for number, stage in enumerate(stages):
            path = ("training", "stages", number, "train")
            if stage.train == "all":
                whole = number if whole is None else whole
                continue
            if "pretraining" not in self._given:
                text = "decoder needs a pretraining section: the encoder's features are stored once it is trained."
                self._report(path, text)
            if whole is not None:
                what = f"all after stages[{whole}], which changes the encoder whose features are stored (decoder first)"
                self.faults.append(must_be(path, what, stage.train))
        if training.n_loader_workers:
            self._check_streaming(training, config.distillation, dataset)
        if config.execution is not None:
            try:
                config.execution.instance.check_device(training.device)
            except ValueError as error:
                self._report(("execution", "resources_per_candidate"), f"execution.{error}.", ())

    def _check_streaming(
        self, training: TrainingConfig, distillation: DistillationConfig | None, dataset: Dataset | None
    ) -> None:
        """Refuse what needs the training images decoded on disk, where they are streamed."""
        key = ("training", "n_loader_workers")
        if dataset is not None and not isinstance(dataset, IndexedDataset):
            self._report(key, "this kind of data cannot decode single images; leave it out, or take folders of images.")
        if any(stage.train == "decoder" for stage in training.stages):
            self._report(
                key, "stages that train the decoder alone store features of all images; leave one of both out."
            )
        if distillation is not None and distillation.enabled and distillation.teacher == "cached":
            text = "the teacher's outputs take more place than the images; write distillation: {teacher: live}."
            self._report(key, text)

    def _check_space(self, config: RunConfig) -> None:
        if config.search_space is None or not self._raw.get("pretraining"):
            return
        space = config.search_space.instance
        if not (isinstance(space, PretrainableSpace) and space.shares_encoder):
            self._report(("pretraining",), f"the networks of {space.name!r} share no encoder.")

    def _distillation(
        self, distillation: DistillationConfig | None, task: Component[Task | None] | None
    ) -> DistillationConfig | None:
        if distillation is None:
            has_teacher = self._config.teacher is not None and "distillation" not in self._given
            return DistillationConfig() if has_teacher else None
        if distillation.enabled and "teacher" not in self._given:
            self._report(("distillation",), "distillation needs a teacher section to learn from.", ())
        if distillation.loss == "channel_wise" and task and not task.cls.is_dense:
            self._report(("distillation", "loss"), "channel_wise is for segmentation; take kl or mse.")
        return distillation

    def _check_controller(self, controller: ControllerConfig | None, objectives: Iterable[ObjectiveConfig]) -> None:
        if controller is None or self.faults:
            return
        config = self._config
        values = [Objective(config.metric_key(o.metric, o.device), o.direction) for o in objectives if o.direction]
        self._attempt(lambda: controller.instance.check_objectives(values), "controller", controller.options)

    def _check_references(self, references: tuple[str, ...], task: Component[Task | None] | None) -> None:
        for index, kind in enumerate(references):
            path = ("references", index)
            if kind not in REFERENCE_MODELS:
                self._report(path, f"unknown reference model {kind!r}.{nearest(kind, REFERENCE_MODELS)}")
            elif kind in references[:index]:
                self._report(path, f"{kind!r} is given twice.")
            else:
                self._check_reference(path, kind, task)

    def _check_reference(self, path: KeyPath, kind: str, task: Component[Task | None] | None) -> None:
        model = REFERENCE_MODELS.get(kind)
        if model is None or task is None or model.is_dense == task.cls.is_dense:
            return
        fitting = [name for name, other in REFERENCE_MODELS.items() if other.is_dense == task.cls.is_dense]
        does = next(name for name, cls in TASKS.items() if cls.is_dense == model.is_dense)
        self._report(path, f"{kind!r} does {does}; for {task.kind} take {', '.join(fitting)}.")


def _is_enabled(raw: Mapping[str, Any]) -> bool:
    section = raw["distillation"]
    return not isinstance(section, Mapping) or section.get("enabled", True) is not False


def _class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """Return the names of the classes; `None` if they cannot be known now (files are missing, say).

    What is wrong with the data is the data check's to say, not ours: an old run's configuration has to load
    where its data is gone.
    """
    try:
        return dataset.class_names
    except (InputError, OSError, ImportError):
        return None
