"""Splits that are decoded from their files whenever they are read: for data sets that fit nowhere decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.data.base import Examples, IndexedDataset, Split


@dataclass(frozen=True)
class StreamedExamples:
    """Splits of a data set, one after the other, none of which is kept decoded.

    Attributes:
        dataset: Whose.
        n_workers: Processes that decode for a training.
        splits: Which.
    """

    dataset: IndexedDataset
    n_workers: int
    splits: tuple[Split, ...] = (Split.TRAIN,)

    @property
    def files(self) -> tuple[Path, ...]:
        """None: another machine has to have the data set itself."""
        return ()

    def __len__(self) -> int:
        return sum(self.dataset.n_examples(split) for split in self.splits)

    def load(self) -> Examples:
        """Decode all, into memory."""
        return self.read(range(len(self)))

    def first(self, n: int) -> Examples:
        """Return the first `n` examples, all if there are fewer."""
        return self.read(range(min(n, len(self))))

    def read(self, rows: Sequence[int]) -> Examples:
        """Decode the examples at `rows`, in that order.

        Raises:
            DataError: If files of theirs are missing or broken, naming them all.
        """
        parts: list[Examples] = []
        places: list[int] = []
        start = 0
        for split in self.splits:
            end = start + self.dataset.n_examples(split)
            here = [place for place, row in enumerate(rows) if start <= row < end]
            if here:
                parts.append(self.dataset.read(split, [rows[place] - start for place in here]))
                places += here
            start = end
        order = torch.tensor(places).argsort()
        images, targets = torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts])
        return Examples(images[order], targets[order])
