"""Training on images that are decoded from their files batch by batch, by processes of their own."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nas.data.normalization import Normalization
from nas.data.stream import StreamedExamples
from nas.errors import DataError, DataFault
from nas.tasks.base import Task
from nas.training.augmentation import Augmentation
from nas.training.batches import Batch, ImagePreparation, TrainingData


class StreamData(TrainingData):
    """Images that are decoded when they are needed; the batches are those of `ImageData`, to the last bit.

    What the processes do depends on no random number: order and variation are drawn where the training runs.

    Args:
        source: The images and their targets.
        normalization: Of the images.
        augmentation: How batches are varied; `None` for not at all.
        task: As for `ImageData`.
        device: Where to train.
    """

    def __init__(
        self,
        source: StreamedExamples,
        normalization: Normalization,
        *,
        augmentation: Augmentation | None = None,
        task: Task | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.image_size = source.dataset.image_size
        self.has_teacher = False
        self._source = source
        self._prepare = ImagePreparation(normalization, augmentation, task)
        self._order = _Order()

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, rows: torch.Tensor, epoch: int, generator: torch.Generator) -> Batch:
        """Return normalised images, decoded in this process."""
        examples = self._source.read(rows.tolist())
        return self._prepared(examples.images, examples.targets, generator)

    def batches(self, order: torch.Tensor, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch, of which the next are decoded while a step runs.

        Raises:
            DataError: If files are missing or broken, naming those of the first such batch.
        """
        self._order.batches = order.tolist()
        for decoded in self._loader:
            if isinstance(decoded, _Faults):
                raise DataError(decoded.faults)
            images, targets = decoded
            yield self._prepared(images, targets, generator)

    def _prepared(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        images, targets = (part.to(self.device, non_blocking=True) for part in (images, targets))
        return self._prepare(images, targets, None, generator)

    @functools.cached_property
    def _loader(self) -> "DataLoader[_Decoded]":
        """The processes, which start with the first epoch and stay."""
        n_workers = self._source.n_workers
        return DataLoader(
            _Batches(self._source),
            batch_size=None,  # batches are decoded as wholes
            sampler=self._order,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
            multiprocessing_context="spawn" if n_workers else None,  # a fork would copy torch's threads half
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would take numbers that dropout is to have
        )


@dataclass(frozen=True)
class _Faults:
    """What is broken of a batch. An error raised in a process would come back as text."""

    faults: tuple[DataFault, ...]


_Decoded = tuple[torch.Tensor, torch.Tensor] | _Faults


class _Batches(Dataset[_Decoded]):
    """Decodes batches by their rows. Lives in the processes."""

    def __init__(self, source: StreamedExamples) -> None:
        self._source = source

    def __getitem__(self, rows: list[int]) -> _Decoded:
        try:
            examples = self._source.read(rows)
        except DataError as error:
            return _Faults(error.details)
        return examples.images, examples.targets


class _Order(Sampler[list[int]]):
    """The rows of each batch of the epoch that comes."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
