"""What a training reads, batch by batch, on the device that trains."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.tasks.base import Task
from nas.torch_tools import as_current
from nas.training.augmentation import Augmentation

_N_AHEAD = 2  # batches that are fetched before they are needed


class Batch(NamedTuple):
    """One step's worth of examples, on the training's device.

    Attributes:
        inputs: Normalised images `(B, C, H, W)`, or an encoder's features of them, from fine to coarse.
        targets: `(B,)` or `(B, H, W)`.
        teacher_logits: `(B, K)` or `(B, K, H, W)`; `None` without a teacher.
    """

    inputs: torch.Tensor | tuple[torch.Tensor, ...]
    targets: torch.Tensor
    teacher_logits: torch.Tensor | None


class TrainingData(ABC):
    """Examples that a training draws its batches from.

    Attributes:
        device: Where batches come to lie.
        image_size: Height and width of the images.
        has_teacher: Whether batches hold the teacher's logits.
        n_resident_bytes: What it holds of an accelerator's memory.
    """

    device: torch.device
    image_size: tuple[int, int]
    has_teacher: bool
    n_resident_bytes: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples in an epoch."""

    @abstractmethod
    def batch(self, rows: torch.Tensor, epoch: int, generator: torch.Generator) -> Batch:
        """Return the examples at `rows`, `(B,)` int64 on the CPU, as the `epoch`-th epoch (from 1) sees them.

        `generator`, on the CPU, gives all randomness.
        """

    def batches(self, order: torch.Tensor, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        On a GPU the next ones are fetched while a step runs: what is not resident comes from the host, or its disk.

        Args:
            order: `(n_batches, batch_size)` int64, on the CPU: the rows of each.
            epoch: From 1.
            generator: On the CPU; gives all randomness.
        """
        if self.device.type == "cpu":
            yield from (self.batch(rows, epoch, generator) for rows in order)
            return

        def fetch(rows: torch.Tensor) -> Batch:
            with as_current(self.device):  # each thread has a current GPU of its own
                return self.batch(rows, epoch, generator)

        # One thread, so that the generator's numbers are taken in order.
        with ThreadPoolExecutor(max_workers=1) as fetcher:
            coming: deque[Future[Batch]] = deque()
            for rows in order:
                coming.append(fetcher.submit(fetch, rows))
                if len(coming) > _N_AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


class ImagePreparation:
    """Makes a batch of decoded images: varies and normalises them on the device where they lie.

    Args:
        normalization: Of the images.
        augmentation: How they are varied; `None` for not at all.
        task: Says which classes swap in mirrored images; needed for an augmentation.
    """

    def __init__(self, normalization: Normalization, augmentation: Augmentation | None, task: Task | None) -> None:
        if augmentation is not None and task is None:
            raise ValueError("task must be given for an augmentation, got None")
        self._normalization = normalization
        self._augmentation, self._task = augmentation, task

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, logits: torch.Tensor | None, generator: torch.Generator
    ) -> Batch:
        """Return the batch; `generator`, on the CPU, gives all randomness."""
        if self._augmentation is not None and self._task is not None:
            draw = self._augmentation.draw(len(images), generator)
            images, targets, logits = self._augmentation.apply(images, targets, logits, draw, self._task)
        return Batch(self._normalization(images), targets, logits)


class ImageData(TrainingData):
    """Images, varied anew in each batch.

    Args:
        examples: Images and targets; or several of them, one after the other, which are not copied together.
        normalization: Of the images.
        teacher_logits: `(n, K)` or `(n, K, H, W)`, any floating type, usually a memory-mapped float16 array: what
            the teacher says of each image, or several as for `examples`; `None` to train without a teacher.
        augmentation: How batches are varied; `None` for not at all. The teacher's logits follow what moves; colours
            they can't follow.
        task: Says which classes swap in mirrored images; needed for an augmentation.
        device: Where to train.
        resident_bytes: How much memory of an accelerator the examples may take; what does not fit stays on the host
            and is sent batch by batch.
    """

    def __init__(
        self,
        examples: Examples | Sequence[Examples],
        normalization: Normalization,
        teacher_logits: np.ndarray | Sequence[np.ndarray] | None = None,
        *,
        augmentation: Augmentation | None = None,
        task: Task | None = None,
        device: torch.device | str = "cpu",
        resident_bytes: int = 0,
    ) -> None:
        self._prepare = ImagePreparation(normalization, augmentation, task)
        parts = [examples] if isinstance(examples, Examples) else examples
        said = [teacher_logits] if isinstance(teacher_logits, np.ndarray) else teacher_logits
        self.device = torch.device(device)
        self.image_size = (parts[0].images.shape[-2], parts[0].images.shape[-1])
        self.has_teacher = said is not None
        place = _Placement(self.device, resident_bytes)
        self._images = place(*(part.images for part in parts))
        self._targets = place(*(part.targets for part in parts))
        self._teacher_logits = None if said is None else place(*map(torch.from_numpy, said))
        self.n_resident_bytes = place.n_bytes

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, rows: torch.Tensor, epoch: int, generator: torch.Generator) -> Batch:
        """Return normalised images."""
        images, targets = self._images[rows], self._targets[rows]
        logits = None if self._teacher_logits is None else self._teacher_logits[rows]
        return self._prepare(images, targets, logits, generator)


class FeatureData(TrainingData):
    """An encoder's stored features of one or more views of each image: the encoder need not run.

    Args:
        features: `(n_views * n, D)`, half precision: of each view the features, flattened and joined; all images
            of the first view come first.
        shapes: `(C, H, W)` of each feature.
        targets: `(n_views * n, H, W)`, those of the views.
        teacher_logits: Likewise, `(n_views * n, K, H, W)`; `None` to train without a teacher.
        image_size: Height and width of the images.
        n_views: Of each image; epochs take turns with them.
        device: Where to train.
        resident_bytes: As for `ImageData`.
    """

    def __init__(
        self,
        features: torch.Tensor,
        shapes: tuple[tuple[int, int, int], ...],
        targets: torch.Tensor,
        teacher_logits: np.ndarray | None = None,
        *,
        image_size: tuple[int, int],
        n_views: int = 1,
        device: torch.device | str = "cpu",
        resident_bytes: int = 0,
    ) -> None:
        self.device = torch.device(device)
        self.image_size = image_size
        self.has_teacher = teacher_logits is not None
        self._shapes = shapes
        self._n_views = n_views
        place = _Placement(self.device, resident_bytes)
        self._features, self._targets = place(features), place(targets)
        self._teacher_logits = None if teacher_logits is None else place(torch.from_numpy(teacher_logits))
        self.n_resident_bytes = place.n_bytes

    def __len__(self) -> int:
        return len(self._features) // self._n_views

    def batch(self, rows: torch.Tensor, epoch: int, generator: torch.Generator) -> Batch:
        """Return features, float32 and channels last."""
        rows = rows + (epoch - 1) % self._n_views * len(self)
        joined = self._features[rows].float()
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        features = tuple(
            part.view(-1, *shape).contiguous(memory_format=torch.channels_last)
            for part, shape in zip(torch.split(joined, sizes, dim=1), self._shapes, strict=True)
        )
        logits = None if self._teacher_logits is None else self._teacher_logits[rows]
        return Batch(features, self._targets[rows], logits)


class _Placement:
    """Puts tensors on an accelerator as long as they fit what is left of its share; `n_bytes` is what they take."""

    def __init__(self, device: torch.device, resident_bytes: int) -> None:
        self._device = device
        self._resident_bytes = resident_bytes
        self.n_bytes = 0

    def __call__(self, *parts: torch.Tensor) -> "_Rows":
        n_bytes = sum(part.nbytes for part in parts)
        if self._device.type != "cpu" and self.n_bytes + n_bytes <= self._resident_bytes:
            self.n_bytes += n_bytes
            parts = (_joined(parts, self._device),)
        return _Rows(parts, self._device)


class _Rows:
    """The rows of one tensor after the other, gathered on a device wherever the tensors themselves lie."""

    def __init__(self, parts: Sequence[torch.Tensor], device: torch.device) -> None:
        self._parts = tuple(parts)
        self._device = device

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        first = self._parts[0]
        if first.device.type != "cpu":
            return first[rows.to(self._device, non_blocking=True)]
        gathered = first[rows] if len(self._parts) == 1 else self._gathered(rows)
        if self._device.type == "cuda":
            return gathered.pin_memory().to(self._device, non_blocking=True)
        return gathered.to(self._device)

    def _gathered(self, rows: torch.Tensor) -> torch.Tensor:
        first = self._parts[0]
        gathered = torch.empty((len(rows), *first.shape[1:]), dtype=first.dtype)
        start = 0
        for part in self._parts:
            here = ((rows >= start) & (rows < start + len(part))).nonzero()[:, 0]
            gathered[here] = part[rows[here] - start]
            start += len(part)
        return gathered


def _joined(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Return one tensor on `device`, without a copy of all together on the host."""
    joined = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype, device=device)
    for place, part in zip(torch.split(joined, [len(part) for part in parts]), parts, strict=True):
        place.copy_(part)
    return joined
