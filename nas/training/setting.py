"""On what, for what and where the networks of a run are trained: the same for candidates and shared networks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.data.base import Examples
from nas.data.cache import ExamplesFile, load_array
from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.tasks.base import Task
from nas.training.augmentation import Augmentation
from nas.training.batches import ImageData, TrainingData
from nas.training.streaming import StreamData


@dataclass(frozen=True)
class TrainingSetting:
    """What the networks of a run are trained on, for what, and where.

    Attributes:
        data_fingerprint: Of the data set.
        train: The training split, decoded on disk, or to be decoded batch by batch.
        validation: The validation split. The test split is not here: no shared network may see it.
        normalization: Of the images.
        task: Loss and scores.
        task_options: What the task was made with, as plain values.
        in_channels: Of an image.
        n_classes: Channels of the logits.
        seed: The run's.
        device: A torch device.
        n_threads: CPU threads of trainings that have the machine to themselves.
        augmentation: How the images of a batch are varied; `None` for not at all.
        precision: Of convolutions and the like in trainings.
        resident_bytes: How much of an accelerator's memory the examples of a training may take, in the process that
            trains: those of all its stages and of the validation split together.
    """

    data_fingerprint: str
    train: ExamplesFile | StreamedExamples
    validation: ExamplesFile
    normalization: Normalization
    task: Task
    task_options: Mapping[str, Any]
    in_channels: int
    n_classes: int
    seed: int
    device: str
    n_threads: int
    augmentation: Augmentation | None = None
    precision: torch.dtype = torch.float32
    resident_bytes: int = 0

    @property
    def depends_on(self) -> dict[str, Any]:
        """Parts of the cache key shared by every network trained in this setting."""
        return {
            "data": self.data_fingerprint,
            "task": dict(self.task_options),
            "seed": self.seed,
            "device": self.device,
            "precision": str(self.precision),
            "n_threads": self.n_threads,
            "augmentation": asdict(self.augmentation) if self.augmentation else None,
        }

    def training_data(self, teacher_logits: Path | None = None) -> TrainingData:
        """Return the training split, varied as configured."""
        if isinstance(self.train, StreamedExamples):
            return self.streamed_data(self.train)
        return self.image_data(self.train.load(), load_array(teacher_logits) if teacher_logits else None)

    def validation_examples(self) -> Examples:
        """Return the validation split, on the device that trains if it fits, to be scored again and again."""
        examples = self.validation.load()
        if self.device == "cpu" or examples.n_bytes > self.resident_bytes:
            return examples
        return Examples(examples.images.to(self.device), examples.targets.to(self.device))

    def image_data(
        self, examples: Examples | Sequence[Examples], teacher_logits: np.ndarray | Sequence[np.ndarray] | None = None
    ) -> ImageData:
        """Return `examples` for a training in this setting."""
        return ImageData(
            examples,
            self.normalization,
            teacher_logits,
            augmentation=self.augmentation,
            task=self.task,
            device=self.device,
            resident_bytes=self.resident_bytes,
        )

    def streamed_data(self, examples: StreamedExamples) -> StreamData:
        """Return `examples` for a training in this setting, decoded batch by batch."""
        return StreamData(
            examples, self.normalization, augmentation=self.augmentation, task=self.task, device=self.device
        )
