"""The full training of a chosen candidate, and the only place where the test split is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nas.data.base import Dataset, Split
from nas.data.cache import load_array
from nas.data.stream import StreamedExamples
from nas.evaluation.base import Subject
from nas.pretrained.teacher import Teacher
from nas.store.folding import RETRAINING
from nas.store.run_folder import RunFolder
from nas.torch_tools import save_weights, torch_threads
from nas.training.batches import TrainingData
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.scoring import score
from nas.training.setting import TrainingSetting
from nas.values.recipes import EpochSummary, TrainingRecipe
from nas.values.records import Observation
from search_spaces.base import SearchSpace

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


def retrain(
    parts: RetrainingParts,
    subject: Subject,
    folder: RunFolder,
    *,
    epochs: int,
    on_epoch: Callable[[EpochSummary], None] | None = None,
) -> dict[str, float]:
    """Train the network of `subject` from scratch on all but the test split, then score it on that.

    The test split is decoded before the training, so that broken images cost no training; this reading of it is logged
    first. The weights are saved to the run's folder right after the training, the scores to its store.

    Args:
        parts: Data, task and recipe.
        subject: The candidate.
        folder: Its run, open for writing.
        epochs: Of the training.
        on_epoch: Called after each.

    Returns:
        Every metric of the task on the test split.

    Raises:
        EvaluationError: If the training diverges.
        DataError: If the test split is missing or broken.
    """
    if subject.space.name == parts.space.name:
        subject = replace(subject, space=parts.space)
    setting = parts.setting
    folder.store.log_test_reading(subject.candidate.id, f"{RETRAINING}, {epochs} epochs")
    n_images, test = parts.dataset.parts(Split.TEST, _N_AT_A_TIME)
    for _ in test:
        pass  # all of it decodes
    with torch_threads(setting.n_threads):
        train(
            subject.model,
            replace(parts.recipe, epochs=epochs),
            task=setting.task,
            data=_all_but_test(parts),
            seed=subject.seed,
            distillation=parts.distillation,
            teacher=parts.teacher.load() if parts.teacher else None,
            precision=setting.precision,
            on_epoch=on_epoch,
        )
    save_weights(subject.model, folder.weights(subject.candidate.id, "retrained"), with_checksum=True)
    _, test = parts.dataset.parts(Split.TEST, _N_AT_A_TIME)
    scores = score(subject.model, setting.task, test, setting.normalization, device=setting.device)
    conditions = {"split": "test", "epochs": epochs, "n_images": n_images, "seed": subject.seed}
    folder.store.add_observations(
        [
            Observation(subject.candidate.id, RETRAINING, subject.attempt, metric, value, conditions)
            for metric, value in scores.items()
        ]
    )
    return scores


def _all_but_test(parts: RetrainingParts) -> TrainingData:
    setting = parts.setting
    if isinstance(setting.train, StreamedExamples):
        return setting.streamed_data(replace(setting.train, splits=(Split.TRAIN, Split.VALIDATION)))
    examples = [split.load() for split in (setting.train, setting.validation)]
    logits = [load_array(path) for path in parts.teacher_logits]
    return setting.image_data(examples, logits or None)
