"""The full training of a chosen candidate, and the only place where the test split is read."""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from nas.data.base import Dataset, Split
from nas.data.cache import load_array
from nas.data.stream import StreamedExamples
from nas.errors import DamagedFileError
from nas.evaluation.base import ModelSignature, Subject
from nas.evaluation.seeds import seed_number
from nas.pretrained.teacher import Teacher
from nas.store.folding import RETRAINING
from nas.store.run_folder import RunFolder
from nas.torch_tools import load_weights, save_weights, torch_threads, weights_metadata
from nas.training.batches import TrainingData
from nas.training.checkpoint import Checkpoint
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.plateau import Plateau
from nas.training.processes import ALONE, Processes
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.objectives import Direction
from nas.values.recipes import EpochSummary, TrainingRecipe
from nas.values.records import Candidate, Observation
from search_spaces.base import SearchSpace

_DONE = "full_trainings"  # the fact that says of which training each file of weights is
_N_AT_A_TIME = 1024  # decoded test images in memory, a multiple of what is scored at once on a CPU


@dataclass(frozen=True)
class RetrainingParts:
    """Inputs of a full training; `nas.assembly` makes them from a run's configuration.

    Attributes:
        space: The run's; its networks start from the same weights as in the search.
        dataset: Gives the test split.
        setting: As in the search; training and validation split are trained on together.
        teacher_logits: Files for the same splits, in the same order; empty without distillation or with a live teacher.
        teacher: Computes logits of each batch during the training; `None` for stored logits or no distillation.
        recipe: As in the search; its epochs are replaced.
        distillation: As in the search.
    """

    space: SearchSpace
    dataset: Dataset
    setting: TrainingSetting
    teacher_logits: tuple[Path, ...]
    recipe: TrainingRecipe
    distillation: Distillation | None
    teacher: Teacher | None = None


@dataclass(frozen=True)
class FullTraining:
    """How a candidate is trained fully.

    Attributes:
        epochs: Of each training, at most.
        n_seeds: Trainings, each under a seed of its own; the test scores are their means. The first one's weights,
            under the candidate's own seed, are those that are exported.
        start: `scratch`, from the weights that candidates of the search start from; or `quick`, from the candidate's
            own after its quick training.
        patience: Epochs without a better score on the validation split after which a training ends, with the best
            weights on the way; the validation split is not trained on then. `None` trains on it, for all epochs.
    """

    epochs: int
    n_seeds: int = 1
    start: Literal["scratch", "quick"] = "scratch"
    patience: int | None = None

    def weights_name(self, number: int) -> str:
        """Return what the weights of the training with this number, from 0, are called in the run's folder."""
        return "retrained" if number == 0 else f"retrained-{number + 1}"


def retrain(
    parts: RetrainingParts,
    subject: Subject,
    folder: RunFolder,
    how: FullTraining,
    *,
    on_epoch: Callable[[EpochSummary], None] | None = None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Train the network of `subject` on all but the test split, then score it on that.

    The test split is decoded before the training, so that broken images cost no training; this reading of it is logged
    first. Each epoch is kept in the run's folder: one that was killed goes on when called again, and ends with the same
    weights on a CPU. The weights are saved right after each training, the scores to the store at the end.

    Args:
        parts: Data, task and recipe.
        subject: The candidate.
        folder: Its run, open for writing.
        how: For how long, from where, how often.
        on_epoch: Called after each epoch, counted over all trainings.
        processes: Those that train together; this is the first of them, the others `follow`.

    Returns:
        Every metric of the task on the test split; means where there are several seeds.

    Raises:
        EvaluationError: If the training diverges.
        DataError: If the test split is missing or broken.
        MachineError: If nothing can be written.
    """
    processes.check_batch_size(parts.recipe.batch_size)
    if subject.space.name == parts.space.name:
        subject = replace(subject, space=parts.space)
    setting = parts.setting
    folder.store.log_test_reading(subject.candidate.id, f"{RETRAINING}, {how.epochs} epochs")
    n_images, test = parts.dataset.parts(Split.TEST, _N_AT_A_TIME)
    for _ in test:
        pass  # all of it decodes
    by_seed = []
    for number in range(how.n_seeds):
        twin = replace(subject, candidate=replace(subject.candidate, seed=seed_number(subject.seed, number)))
        _train_once(parts, twin, folder, how, number, _counted(on_epoch, number, how), processes)
        _, test = parts.dataset.parts(Split.TEST, _N_AT_A_TIME)
        by_seed.append(score(twin.model, setting.task, test, setting.normalization, device=setting.device))
    scores = {metric: statistics.fmean(found[metric] for found in by_seed) for metric in by_seed[0]}
    conditions = {"split": "test", "epochs": how.epochs, "n_images": n_images, "seed": subject.seed, **_told(how)}
    whole = (subject.candidate.id, RETRAINING, subject.attempt)
    folder.store.add_observations(
        [
            Observation(*whole, metric, value, {**conditions, **_spread([found[metric] for found in by_seed])})
            for metric, value in scores.items()
        ]
    )
    processes.told(None)  # that there is nothing more to train
    return scores


def follow(processes: Processes) -> None:
    """Take part in the trainings of the first process, until it has no more of them.

    Raises:
        EvaluationError: If one of them diverges.
        InputError: If this process has no device to train on.
        MachineError: If another process has ended.
    """
    nothing: _SharedTraining | None = None
    while (training := processes.told(nothing)) is not None:
        subject = Subject(training.candidate, training.space, training.signature)
        subject.model.load_state_dict(training.weights)
        _train(training.parts, subject, training.how, processes)


@dataclass(frozen=True)
class _SharedTraining:
    """What the first process tells the others of a training. Network and start are those of a `Subject`."""

    parts: RetrainingParts
    how: FullTraining
    candidate: Candidate
    space: SearchSpace
    signature: ModelSignature | None
    weights: Mapping[str, torch.Tensor]


def _train_once(
    parts: RetrainingParts,
    subject: Subject,
    folder: RunFolder,
    how: FullTraining,
    number: int,
    on_epoch: Callable[[EpochSummary], None] | None,
    processes: Processes,
) -> None:
    """Train the network of `subject` and keep its weights, unless an earlier call did."""
    candidate = subject.candidate
    path = folder.weights(candidate.id, how.weights_name(number))
    depends_on = _depends_on(parts, subject, how, processes)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint"), depends_on)
    if path.exists() and (folder.store.fact(_DONE) or {}).get(path.name) == _mark(path, depends_on):
        load_weights(subject.model, path)
        subject.model.eval()
        checkpoint.remove()
        return
    if how.start == "quick":
        load_weights(subject.model, folder.weights(candidate.id, "quick"))
    weights = subject.model.state_dict()
    processes.told(_SharedTraining(parts, how, candidate, subject.space, subject.signature, weights))
    _train(parts, subject, how, processes, on_epoch, checkpoint)
    save_weights(subject.model, path, with_checksum=True)
    folder.store.set_fact(_DONE, {**(folder.store.fact(_DONE) or {}), path.name: _mark(path, depends_on)})
    checkpoint.remove()


def _train(
    parts: RetrainingParts,
    subject: Subject,
    how: FullTraining,
    processes: Processes,
    on_epoch: Callable[[EpochSummary], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train the network of `subject` on this process's device, with its share of the machine's threads."""
    n_threads = max(1, parts.setting.n_threads // processes.local_count)
    parts = replace(parts, setting=replace(parts.setting, device=processes.device(parts.setting.device)))
    with torch_threads(n_threads):
        train(
            subject.model,
            replace(parts.recipe, epochs=how.epochs),
            task=parts.setting.task,
            data=_training_data(parts, holds_validation_out=how.patience is not None),
            seed=subject.seed,
            distillation=parts.distillation,
            teacher=parts.teacher.load() if parts.teacher else None,
            precision=parts.setting.precision,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
            plateau=_plateau(parts, how.patience) if processes.is_first else None,
            processes=processes,
        )


def _mark(path: Path, training: Mapping[str, Any]) -> str | None:
    """Return what tells these weights of this training from all others; `None` where there are none."""
    try:
        checksum = weights_metadata(path).get("sha256", "")
    except (FileNotFoundError, DamagedFileError):
        return None
    return hashlib.sha256(f"{json.dumps(training, sort_keys=True)}:{checksum}".encode()).hexdigest()


def _depends_on(parts: RetrainingParts, subject: Subject, how: FullTraining, processes: Processes) -> dict[str, Any]:
    """Return what the weights of a training depend on, as plain values."""
    return {
        **({"n_processes": processes.count} if processes.count > 1 else {}),
        **parts.setting.depends_on,
        "candidate": subject.candidate.id,
        "seed": subject.seed,
        "recipe": asdict(parts.recipe),
        "how": {**asdict(how), "n_seeds": None},
        "distillation": asdict(parts.distillation) if parts.distillation else None,
        "teacher_logits": [path.name for path in parts.teacher_logits],
        "teacher": parts.teacher.fingerprint if parts.teacher else None,
    }


def _counted(
    on_epoch: Callable[[EpochSummary], None] | None, number: int, how: FullTraining
) -> Callable[[EpochSummary], None] | None:
    """Return a callback that counts the epochs over all seeds."""
    if on_epoch is None or how.n_seeds == 1:
        return on_epoch
    return lambda summary: on_epoch(
        replace(summary, epoch=number * how.epochs + summary.epoch, n_epochs=how.n_seeds * how.epochs)
    )


def _told(how: FullTraining) -> dict[str, Any]:
    """Return what of the training is no default, for the conditions of its scores."""
    plain = FullTraining(how.epochs)
    return {name: value for name, value in asdict(how).items() if value != getattr(plain, name)}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"rounds": values, "spread": statistics.stdev(values)} if len(values) > 1 else {}


def _plateau(parts: RetrainingParts, patience: int | None) -> Plateau | None:
    """Return what ends a training whose score on the validation split no longer gets better."""
    if patience is None:
        return None
    setting, task = parts.setting, parts.setting.task
    validation = setting.validation_examples()
    direction = type(task).scores[task.main_metric].direction
    sign = -1.0 if direction is Direction.MINIMIZE else 1.0
    return Plateau(
        lambda model: (
            sign * score(model, task, validation, setting.normalization, device=setting.device)[task.main_metric]
        ),
        patience,
    )


def _training_data(parts: RetrainingParts, *, holds_validation_out: bool) -> TrainingData:
    """Return the training split, with or without the validation split."""
    setting = parts.setting
    if isinstance(setting.train, StreamedExamples):
        splits = (Split.TRAIN,) if holds_validation_out else (Split.TRAIN, Split.VALIDATION)
        return setting.streamed_data(replace(setting.train, splits=splits))
    n_parts = 1 if holds_validation_out else 2
    examples = [split.load() for split in (setting.train, setting.validation)[:n_parts]]
    logits = [load_array(path) for path in parts.teacher_logits[:n_parts]]
    return setting.image_data(examples, logits or None)
