"""Checks the sections of a configuration against each other, and fills in what follows from others."""

import re
from collections.abc import Mapping
from dataclasses import replace

from nas.config.draft import Draft
from nas.config.faults import must_be, nearest
from nas.config.metric_checks import check_metrics
from nas.config.model import DistillationConfig
from nas.config.yaml_source import KeyPath
from nas.data.base import Dataset, IndexedDataset
from nas.errors import InputError
from nas.evaluation.training_config import TrainingConfig
from nas.pretrained.onnx_teacher import OnnxTeacher
from nas.pretrained.teacher import TEACHERS
from nas.tasks import TASKS
from search_spaces.base import PretrainableSpace
from search_spaces.references.reference_models import REFERENCE_MODELS
from search_spaces.spaces.tabular import Tabular

_DEVICE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_NEED_DATA = ("teacher", "pretraining", "augmentation", "references")


def check(draft: Draft) -> None:
    """Report all faults between sections, and complete the draft's configuration; with faults, it is of no use."""
    _check_task(draft)  # first: metrics are the task's
    check_metrics(draft)
    _check_distillation(draft)
    _check_data(draft)
    _check_names_and_seeds(draft)
    _check_teacher(draft)
    _check_devices_are_reached(draft)
    _check_training(draft)
    _check_space(draft)
    _check_augmentation(draft)
    _check_controller(draft)
    _check_references(draft)


def _check_task(draft: Draft) -> None:
    """Make the task, by default what the data's targets are made for."""
    if draft.config.data is None:
        return
    dataset = draft.config.data.instance
    fitting = next(kind for kind, cls in TASKS.items() if cls.is_dense == dataset.is_dense)
    if "task" not in draft.given:
        draft.update(task=draft.section("task", {"kind": fitting}))
    task, names = draft.config.task, _class_names(dataset)
    if task is None:
        return
    if task.cls.is_dense != dataset.is_dense:
        draft.report(("task", "kind"), f"the targets of the data are made for {fitting}, not for {task.kind}.")
    elif names is not None:
        made = draft.attempt(lambda: task.cls(names, dataset.ignore_index, **task.options), "task", task.options)
        draft.update(task=replace(task, instance=made))


def _class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """Return the names of the classes; `None` if they cannot be known now (files are missing, say).

    Faults of the data are reported by its own check: an old run's configuration has to load where its data is gone.
    """
    try:
        return dataset.class_names
    except (InputError, OSError, ImportError):
        return None


def _check_distillation(draft: Draft) -> None:
    """Check the section; where there is a teacher, it is on by default."""
    distillation, task = draft.config.distillation, draft.config.task
    if distillation is None:
        if draft.config.teacher is not None and "distillation" not in draft.given:
            draft.update(distillation=DistillationConfig())
        return
    if distillation.enabled and "teacher" not in draft.given:
        draft.report(("distillation",), "distillation needs a teacher section to learn from.", ())
    if distillation.loss == "channel_wise" and task and not task.cls.is_dense:
        draft.report(("distillation", "loss"), "channel_wise is for segmentation; take kl or mse.")


def _check_data(draft: Draft) -> None:
    space = draft.config.search_space
    if "data" in draft.given:
        if space and isinstance(space.instance, Tabular):
            draft.report(("data",), "a table holds all that is known of its rows; leave the data section out.")
        return
    needing = [name for name in _NEED_DATA if draft.raw.get(name)]
    if "distillation" in draft.given:
        section = draft.raw["distillation"]
        is_off = isinstance(section, Mapping) and section.get("enabled", True) is False
        needing += [] if is_off else ["distillation"]
    for name in needing:
        draft.report((name,), f"{name} needs a data section.", ())


def _check_names_and_seeds(draft: Draft) -> None:
    for name in draft.config.devices:
        if not _DEVICE_NAME.fullmatch(name):
            text = f"a name must be letters, digits, '_' and '-', got {name!r}."
            draft.report(("devices", name), text, ("devices",))
    for key, least in (("seeds_per_candidate", 1), ("front_seeds", 0)):
        if getattr(draft.config, key) > least and "training" not in draft.given:
            draft.report((key,), f"{key} needs a training section: only trainings depend on the seed.", ())


def _check_teacher(draft: Draft) -> None:
    raw = draft.raw.get("teacher")
    if not isinstance(raw, Mapping):
        return
    is_onnx = issubclass(TEACHERS.get(str(raw.get("kind")), object), OnnxTeacher)
    if is_onnx and raw.get("weights") is not None:
        draft.report(("teacher", "weights"), "an ONNX file has its own; leave them out.")
    if (is_onnx or raw.get("weights") is not None) and raw.get("recipe") is not None:
        draft.report(("teacher", "recipe"), "given weights need no training; leave one out.")
    if not is_onnx and raw.get("weights") is None:
        for key in ("mean", "std", "channel_order", "output"):
            if raw.get(key) is not None:
                text = "a teacher that is trained here takes and gives what all networks do; leave it out."
                draft.report(("teacher", key), text)
    _check_reference(draft, ("teacher", "kind"), str(raw.get("kind")))


def _check_devices_are_reached(draft: Draft) -> None:
    """Refuse a device to measure on where Ray makes its own single node: that one carries no device."""
    config, execution = draft.config, draft.config.execution
    if execution is None or execution.kind != "ray" or execution.options.get("address") != "local":
        return
    names = [*(o.device for o in config.objectives or ()), *(c.device for c in config.constraints or ())]
    if name := next(filter(None, names), None):
        text = (
            f"local excludes the device {name!r}: Ray measures on nodes that carry the resource 'device:{name}', "
            "and local starts one without. Give the address of a cluster that has it, or take kind: process_pool."
        )
        draft.report(("execution", "address"), text)


def _check_training(draft: Draft) -> None:
    training = draft.config.training
    if training is None:
        return
    raw = draft.raw["training"]
    if "epochs" in raw and raw.get("stages") is not None:
        draft.report(("training", "epochs"), "each of the stages has its own; leave one out.")
    for name in ("drop_rule", "successive_halving"):
        if getattr(training, name) is not None and len(training.stages) < 2:
            draft.report(("training", name), "candidates are stopped between stages; give at least two of them.")
    if training.drop_rule and training.successive_halving:
        draft.report(("training", "successive_halving"), "there is a drop_rule already; leave one out.")
    _check_order_of_stages(draft, training)
    if training.n_loader_workers:
        _check_streaming(draft, training)
    if draft.config.execution is not None:
        try:
            draft.config.execution.instance.check_device(training.device)
        except ValueError as error:
            draft.report(("execution", "resources_per_candidate"), f"execution.{error}.", ())


def _check_order_of_stages(draft: Draft, training: TrainingConfig) -> None:
    whole: int | None = None
    for number, stage in enumerate(training.stages):
        path = ("training", "stages", number, "train")
        if stage.train == "all":
            whole = number if whole is None else whole
            continue
        if "pretraining" not in draft.given:
            text = "decoder needs a pretraining section: the encoder's features are stored once it is trained."
            draft.report(path, text)
        if whole is not None:
            what = f"all after stages[{whole}], which changes the encoder whose features are stored (decoder first)"
            draft.faults.append(must_be(path, what, stage.train))


def _check_streaming(draft: Draft, training: TrainingConfig) -> None:
    """Refuse what needs the training images decoded on disk, where they are streamed."""
    key, data, distillation = ("training", "n_loader_workers"), draft.config.data, draft.config.distillation
    if data is not None and not isinstance(data.instance, IndexedDataset):
        draft.report(key, "this kind of data cannot decode single images; leave it out, or take folders of images.")
    if any(stage.train == "decoder" for stage in training.stages):
        draft.report(key, "cannot be combined with `train: decoder` stages, which store features of all images.")
    if distillation is not None and distillation.enabled and distillation.teacher == "cached":
        text = "the teacher's outputs take more place than the images; write distillation: {teacher: live}."
        draft.report(key, text)


def _check_space(draft: Draft) -> None:
    if draft.config.search_space is None or not draft.raw.get("pretraining"):
        return
    space = draft.config.search_space.instance
    if not (isinstance(space, PretrainableSpace) and space.shares_encoder):
        draft.report(("pretraining",), f"the networks of {space.name!r} share no encoder.")


def _check_augmentation(draft: Draft) -> None:
    augmentation, task = draft.config.augmentation, draft.config.task
    if augmentation and task and (instance := task.instance):
        draft.attempt(lambda: augmentation.check(instance), "augmentation", vars(augmentation))


def _check_controller(draft: Draft) -> None:
    controller = draft.config.controller
    if controller is None or draft.faults:
        return
    objectives = draft.config.objective_values()
    draft.attempt(lambda: controller.instance.check_objectives(objectives), "controller", controller.options)


def _check_references(draft: Draft) -> None:
    references = draft.config.references
    for index, kind in enumerate(references):
        path = ("references", index)
        if kind not in REFERENCE_MODELS:
            draft.report(path, f"unknown reference model {kind!r}.{nearest(kind, REFERENCE_MODELS)}")
        elif kind in references[:index]:
            draft.report(path, f"{kind!r} is given twice.")
        else:
            _check_reference(draft, path, kind)


def _check_reference(draft: Draft, path: KeyPath, kind: str) -> None:
    model, task = REFERENCE_MODELS.get(kind), draft.config.task
    if model is None or task is None or model.is_dense == task.cls.is_dense:
        return
    fitting = [name for name, other in REFERENCE_MODELS.items() if other.is_dense == task.cls.is_dense]
    does = next(name for name, cls in TASKS.items() if cls.is_dense == model.is_dense)
    draft.report(path, f"{kind!r} does {does}; for {task.kind} take {', '.join(fitting)}.")
