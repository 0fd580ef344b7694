"""What would be wrong with every score of a run, looked for as soon as its data is there and before any training."""

import numpy as np

from nas.config import RunConfig
from nas.errors import InputError
from nas.metrics import CLASS_METRICS, split_key
from nas.search import SearchListener
from nas.training_setting import TrainingSetting

_N_AT_A_TIME = 64  # targets


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


def check_classes(config: RunConfig, setting: TrainingSetting, listener: SearchListener) -> None:
    """Check that the validation split holds the classes that the run judges networks by, and tell of other absent ones.

    A class without a target has no score of its own: a network that never names it gets none, any other gets 0.

    Raises:
        InputError: If an objective or a constraint is on an absent class, naming all.
    """
    absent = _absent_classes(setting)
    judged = [objective.metric for objective in config.objective_values()]
    judged += [constraint.metric for constraint in config.constraint_values()]
    faulty = [metric for metric in dict.fromkeys(judged) if _class_of(metric) in absent]
    if faulty:
        names = dict.fromkeys(str(_class_of(metric)) for metric in faulty)
        raise InputError(
            f"objectives and constraints must be on classes that the validation split shows, got {', '.join(faulty)}: "
            f"it shows nothing of {', '.join(names)} that counts. Add such validation images, or take other metrics"
        )
    task = setting.task
    if untold := [name for name in absent if task.class_names.index(name) != task.ignore_index]:
        listener.on_message(
            f"The validation split shows nothing of {', '.join(untold)}: no score tells how well networks know that."
        )


def _class_of(metric: str) -> str | None:
    """Return the class that a metric is of; `None` for one that is not of a class."""
    name, qualifier = split_key(metric)
    return qualifier if name in CLASS_METRICS else None


def _absent_classes(setting: TrainingSetting) -> tuple[str, ...]:
    """Return the classes, in order, that no validation target is of, or only ones that are ignored."""
    task, targets = setting.task, setting.validation.load().targets.numpy()
    absent = dict(enumerate(task.class_names))
    for start in range(0, len(targets), _N_AT_A_TIME):
        for label in set(np.unique(targets[start : start + _N_AT_A_TIME]).tolist()) - {task.ignore_index}:
            absent.pop(label, None)
        if not absent:
            break
    return tuple(absent.values())
