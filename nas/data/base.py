"""The contract of a data set: images and targets by split, whole and in memory."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

import torch


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

    @abstractmethod
    def load(self, split: Split) -> Examples:
        """Return the whole split, equal at each call.

        Raises:
            DataError: If files are missing or broken, naming them all.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return hex digits that change when train or validation examples do; file contents count."""
