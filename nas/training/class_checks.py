"""Checks, before anything is trained, that the classes of the data can be learned and distinguished."""

import math
from collections.abc import Callable, Collection

from nas.data.base import Dataset, Split
from nas.data.cache import ExamplesFile
from nas.data.classes import ClassCounts, SplitCounts, shown_classes, streamed_counts
from nas.errors import DataError, DataFault, InputError
from nas.store.artifacts import ArtifactCache
from nas.tasks.base import Task
from nas.training.setting import TrainingSetting
from nas.values.metrics import split_key

_N_AT_A_TIME = 64
_LARGEST_STANDARD_ERROR = 0.02  # differences on a front are mostly of a few hundredths
_ACCURACY = 0.8  # for which the standard error is reported
_SPREAD_OF_IMAGES = 0.15  # taken for the standard deviation of the scores of single images


def check_classes(task: Task, counts: SplitCounts, judged: Collection[str], on_message: Callable[[str], None]) -> None:
    """Refuse classes that make every score meaningless, and report the counts and what is doubtful.

    A class without a target has no score of its own: a network that never names it gets none, any other gets 0.

    Args:
        task: Of the run.
        counts: How often each of its classes occurs.
        judged: The metrics of objectives and constraints.
        on_message: Called with each message.

    Raises:
        DataError: If a split shows fewer than two classes.
        InputError: If an objective or a constraint is on a class that a split does not show, naming all.
    """
    on_message(counts.line(task.class_names, task.ignore_index, is_dense=task.is_dense))
    if faults := _too_few(task, counts):
        raise DataError(faults)
    for split, of_split in ((Split.TRAIN, counts.train), (Split.VALIDATION, counts.validation)):
        _check_judged(judged, task, split, of_split)
    for text in (*_without_examples(task, counts), *_too_small(counts.validation.n_examples, is_dense=task.is_dense)):
        on_message(text)


def dataset_counts(dataset: Dataset, task: Task) -> SplitCounts:
    """Return how often each class occurs in a data set, read from its files."""
    of_splits = (
        ClassCounts.of(
            (part.targets for part in dataset.parts(split, _N_AT_A_TIME)[1]), len(task.class_names), task.ignore_index
        )
        for split in (Split.TRAIN, Split.VALIDATION)
    )
    return SplitCounts(*of_splits)


def split_counts(cache: ArtifactCache, setting: TrainingSetting) -> SplitCounts:
    """Return how often each class occurs in the splits of a run."""
    classes = (len(setting.task.class_names), setting.task.ignore_index)
    train = setting.train
    if isinstance(train, ExamplesFile):
        of_train = ClassCounts.of([train.load().targets], *classes)
    else:
        of_train = streamed_counts(cache, setting.data_fingerprint, train, *classes)
    return SplitCounts(of_train, ClassCounts.of([setting.validation.load().targets], *classes))


def _known(task: Task) -> frozenset[int]:
    return frozenset(range(len(task.class_names))) - {task.ignore_index}


def _too_few(task: Task, counts: SplitCounts) -> list[DataFault]:
    faults = []
    for split, of_split in ((Split.TRAIN, counts.train), (Split.VALIDATION, counts.validation)):
        shown = _known(task) - of_split.absent
        if len(shown) >= 2:
            continue
        only = f"nothing but {shown_classes(task.class_names, shown)}" if shown else "no class"
        text = f"the {split.value} split shows {only}: there is nothing to tell apart"
        remedy = "add images of other classes"
        if of_split.n_ignored:
            text += f" ({of_split.share_ignored:.1%} of it is ignored: ignore_index {task.ignore_index})"
            remedy = (
                f"if {task.ignore_index} is a class, leave ignore_index out and write what each class's value is, "
                f"`data: {{mask_values: [0, {task.ignore_index}]}}` say"
            )
        faults.append(DataFault("data", text, remedy=remedy))
    return faults


def _check_judged(judged: Collection[str], task: Task, split: Split, counts: ClassCounts) -> None:
    absent = {task.class_names[index] for index in counts.absent}
    faulty = [metric for metric in dict.fromkeys(judged) if _class_of(metric, task) in absent]
    if faulty:
        names = dict.fromkeys(str(_class_of(metric, task)) for metric in faulty)
        raise InputError(
            f"objectives and constraints must be on classes that the {split.value} split shows, got "
            f"{', '.join(faulty)}: it shows nothing of {', '.join(names)} that counts. Add such {split.value} images, "
            "or take other metrics"
        )


def _class_of(metric: str, task: Task) -> str | None:
    """Return the class that a metric is of; `None` for one that is not of a class."""
    name, qualifier = split_key(metric)
    return qualifier if name in task.class_scores else None


def _without_examples(task: Task, counts: SplitCounts) -> list[str]:
    texts = []
    nowhere = _known(task) & counts.train.absent & counts.validation.absent
    unjudged = (_known(task) & counts.validation.absent) - nowhere
    unlearned = (_known(task) & counts.train.absent) - nowhere
    if nowhere:
        names = shown_classes(task.class_names, nowhere)
        texts.append(f"No image of training or validation shows {names}: networks never learn that.")
    if unlearned:
        names = shown_classes(task.class_names, unlearned)
        texts.append(
            f"The training split shows nothing of {names}, the validation split does: every network fails there."
        )
    if unjudged:
        names = shown_classes(task.class_names, unjudged)
        texts.append(f"The validation split shows nothing of {names}: no score tells how well networks know that.")
    return texts


def _too_small(n: int, *, is_dense: bool) -> list[str]:
    """Return the warning that differences which a search ranks by are smaller than what chance makes of `n` images."""
    spread = _SPREAD_OF_IMAGES if is_dense else math.sqrt(_ACCURACY * (1 - _ACCURACY))
    error = spread / math.sqrt(n)
    if error <= _LARGEST_STANDARD_ERROR:
        return []
    what = "a mean IoU" if is_dense else f"an accuracy of {_ACCURACY}"
    n_needed = math.ceil((spread / _LARGEST_STANDARD_ERROR) ** 2)
    return [
        f"The validation split has {n} image{'s' if n > 1 else ''}: the standard error of {what} is about {error:.3f}, "
        f"and differences of that size are luck. With {n_needed} it would be {_LARGEST_STANDARD_ERROR}."
    ]
