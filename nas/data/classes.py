"""How often each class occurs in the training and the validation split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.data.base import Split
from nas.data.cache import load_array
from nas.data.faults import shown_list
from nas.data.stream import StreamedExamples
from nas.store.artifacts import ArtifactCache

_N_AT_A_TIME = 64  # targets
_N_TARGETS = 256  # values of a dense target
_MAX_LISTED = 12


@dataclass(frozen=True)
class ClassCounts:
    """Counts of one split.

    Attributes:
        n_examples: Of the split.
        examples: By class, how many show it; of classification, how many are of it.
        pixels: By class, its pixels; of classification equal to `examples`.
        n_ignored: Targets of no class.
    """

    n_examples: int
    examples: tuple[int, ...]
    pixels: tuple[int, ...]
    n_ignored: int = 0

    @classmethod
    def of(cls, targets: Iterable[torch.Tensor], n_classes: int, ignore_index: int | None) -> "ClassCounts":
        """Count targets that come in parts, `(n,)` int64 or `(n, H, W)` uint8.

        A class that `ignore_index` names counts as ignored.
        """
        n_examples, n_targets = 0, 0
        examples, pixels = np.zeros(n_classes, dtype=np.int64), np.zeros(n_classes, dtype=np.int64)
        for part in targets:
            n_examples += len(part)
            n_targets += part.numel()
            for start in range(0, len(part), _N_AT_A_TIME):
                counts = _counts_by_example(part[start : start + _N_AT_A_TIME], n_classes)
                examples += (counts > 0).sum(axis=0)
                pixels += counts.sum(axis=0)
        if ignore_index is not None and ignore_index < n_classes:
            examples[ignore_index] = pixels[ignore_index] = 0
        return cls(n_examples, tuple(examples.tolist()), tuple(pixels.tolist()), n_targets - int(pixels.sum()))

    @property
    def absent(self) -> frozenset[int]:
        """The classes that no target is of."""
        return frozenset(index for index, n in enumerate(self.examples) if not n)

    @property
    def share_ignored(self) -> float:
        """Of all targets."""
        n_targets = sum(self.pixels) + self.n_ignored
        return self.n_ignored / n_targets if n_targets else 0.0


def _counts_by_example(targets: torch.Tensor, n_classes: int) -> np.ndarray:
    """Return how many targets of each example are of each class, `(n, n_classes)`."""
    flat = targets.reshape(len(targets), -1).numpy().astype(np.int64)
    n_values = max(n_classes, _N_TARGETS)
    rows = np.arange(len(flat))[:, None] * n_values
    counts = np.bincount((rows + flat).ravel(), minlength=len(flat) * n_values)
    found: np.ndarray = counts.reshape(len(flat), n_values)[:, :n_classes]
    return found


@dataclass(frozen=True)
class SplitCounts:
    """Counts of the two splits that a search reads."""

    train: ClassCounts
    validation: ClassCounts

    def line(self, class_names: Sequence[str], ignore_index: int | None, *, is_dense: bool) -> str:
        """Return one line with the counts of each class; of many classes those that are rarest in training."""
        train, validation = self.train, self.validation
        indices = [index for index in range(len(class_names)) if index != ignore_index]
        heading = "Images of each class, training / validation"
        if is_dense:
            heading = "Images that show each class, training / validation, and its share of the training pixels"
        if len(indices) > _MAX_LISTED:
            indices = sorted(indices, key=lambda index: (train.pixels[index], index))[:_MAX_LISTED]
            heading += f" (the {_MAX_LISTED} rarest of {len(class_names)})"
        n_pixels = max(sum(train.pixels), 1)
        parts = []
        for index in indices:
            share = f" ({train.pixels[index] / n_pixels:.2%})" if is_dense else ""
            parts.append(f"{class_names[index]} {train.examples[index]} / {validation.examples[index]}{share}")
        return f"{heading}: {', '.join(parts)}."


def streamed_counts(
    cache: ArtifactCache, fingerprint: str, train: StreamedExamples, n_classes: int, ignore_index: int | None
) -> ClassCounts:
    """Return the counts of a split that is not kept decoded; they are kept, as all its targets are decoded for them."""

    def write(path: Path) -> None:
        parts = (part.targets for part in train.dataset.parts(Split.TRAIN, _N_AT_A_TIME)[1])
        found = ClassCounts.of(parts, n_classes, ignore_index)
        np.save(path, np.array([found.n_examples, found.n_ignored, *found.examples, *found.pixels]))

    depends_on = {"data": fingerprint, "n_classes": n_classes, "ignore_index": ignore_index}
    n_examples, n_ignored, *counts = load_array(cache.get("class_counts", depends_on, ".npy", write)[0]).tolist()
    return ClassCounts(n_examples, tuple(counts[:n_classes]), tuple(counts[n_classes:]), n_ignored)


def shown_classes(class_names: Sequence[str], indices: Iterable[int]) -> str:
    """Return the names of classes, in order, the first few of many."""
    return shown_list(class_names[index] for index in sorted(indices))
