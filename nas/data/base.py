"""The contract of a data set: images and targets by split, whole and in memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from nas.errors import DataError, DataFault


class Split(StrEnum):
    """The three parts of a data set. The search never reads `TEST`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Examples:
    """Decoded images with their targets.

    Attributes:
        images: `(n, C, H, W)` uint8.
        targets: `(n,)` int64 class indices, or `(n, H, W)` uint8 class of each pixel.
    """

    images: torch.Tensor
    targets: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.targets):
            raise ValueError(f"{len(self.images)} images but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_bytes(self) -> int:
        """Of images and targets."""
        return self.images.nbytes + self.targets.nbytes


class Dataset(ABC):
    """Images of one size with targets, in three splits; validation is a part of the training data.

    Constructors are cheap: they read no files and raise `ValueError` for an option that cannot be, with
    a message that starts with the option's name. Properties may read file names and training labels,
    never the test split.
    """

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in order of their index."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """1 for grey, 3 for colour."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def ignore_index(self) -> int | None:
        """The target value that stands for "no class"; `None` if there is none."""
        return None

    @property
    @abstractmethod
    def is_dense(self) -> bool:
        """Whether targets are a class for each pixel (segmentation) or for each image."""

    @abstractmethod
    def check(self) -> None:
        """Look for missing or broken files without decoding more than is needed to find them.

        Raises:
            DataError: Naming all faults that were found.
        """

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of how the data was read, a line each: called after `check`.

        How it was split, what was left out, what is doubtful. Shown when a search starts.
        """
        return ()

    @abstractmethod
    def load(self, split: Split) -> Examples:
        """Return the whole split, equal at each call.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """

    def parts(self, split: Split, n_at_a_time: int) -> tuple[int, Iterator[Examples]]:
        """Return how many examples a split has, and all of them in order, in parts of `n_at_a_time`.

        Classes whose files allow it keep no more than one part in memory.

        Raises:
            DataError: As `load` does; the iterator raises it too, instead of its last part.
        """
        examples = self.load(split)
        images, targets = (torch.split(part, n_at_a_time) for part in (examples.images, examples.targets))
        return len(examples), map(Examples, images, targets)

    @abstractmethod
    def fingerprint(self) -> str:
        """Return hex digits that change when train or validation examples do; file contents count."""


class IndexedDataset(Dataset):
    """A data set any of whose examples can be decoded without the others."""

    @abstractmethod
    def n_examples(self, split: Split) -> int:
        """Return how many examples a split has, decoding none.

        Raises:
            DataError: If the split is missing.
        """

    @abstractmethod
    def read(self, split: Split, rows: Sequence[int]) -> Examples:
        """Return the examples of a split at `rows`, in that order.

        Raises:
            DataError: If files of theirs are missing or broken, naming them all.
        """

    def load(self, split: Split) -> Examples:
        """Return the whole split, in its order.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """
        return self.read(split, range(self.n_examples(split)))

    def parts(self, split: Split, n_at_a_time: int) -> tuple[int, Iterator[Examples]]:
        """Return how many examples a split has, and all of them in order, never more than `n_at_a_time` in memory."""
        n = self.n_examples(split)
        return n, decoded_in_parts(n, n_at_a_time, lambda rows: self.read(split, rows))


def decoded_in_parts(n: int, n_at_a_time: int, read: Callable[[range], Examples]) -> Iterator[Examples]:
    """Yield what `read` returns for the rows 0 .. n - 1, at most `n_at_a_time` of them at once.

    Raises:
        DataError: In the end, naming all that is broken.
    """
    faults: list[DataFault] = []
    for start in range(0, max(n, 1), n_at_a_time):  # where there is none, `read` says why
        try:
            part = read(range(start, min(start + n_at_a_time, n)))
        except DataError as error:
            faults += error.details
            continue
        if not faults:
            yield part
    if faults:
        raise DataError(tuple(dict.fromkeys(faults)))  # a part may name faults that are all parts'
