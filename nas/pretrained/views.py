"""Varied copies of the training images, for stored features: an encoder's features cannot be varied afterwards."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nas.data.base import Examples
from nas.data.cache import ExamplesFile, write_examples
from nas.pretrained.artifact import Artifact, Timer, TrainingListener
from nas.training.augmentation import Augmentation

_N_AT_A_TIME = 64  # images


@dataclass(frozen=True, eq=False)
class Views(Artifact):
    """`n_views` varied copies of the training split, one after the other.

    What an encoder makes of an image does not commute with the image's variation, so that it is varied first.

    Attributes:
        split: The training split.
        augmentation: How it is varied.
        n_views: Of each image.
    """

    name = "views"
    kinds = ("view-images", "view-targets")
    split: ExamplesFile
    augmentation: Augmentation
    n_views: int

    @property
    def depends_on(self) -> dict[str, Any]:
        """The split, and how it is varied."""
        return {
            "examples": self.split.images.name,
            "augmentation": asdict(self.augmentation),
            "task": dict(self.setting.task_options),
            "seed": self.setting.seed,
            "n_views": self.n_views,
        }

    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Vary the images."""
        images, targets = paths
        examples = self.split.load()
        write_examples(images, targets, self.n_views * len(examples), self._varied(examples))

    def seconds(self, timer: Timer) -> float:
        """Return what varying costs."""

        def vary(part: Examples) -> None:
            self._vary(part, torch.Generator().manual_seed(0))

        return self.n_views * timer.pass_s(vary)

    def _varied(self, examples: Examples) -> Iterator[Examples]:
        generator = torch.Generator().manual_seed(self.setting.seed)
        for _ in range(self.n_views):
            for start in range(0, len(examples), _N_AT_A_TIME):
                rows = slice(start, start + _N_AT_A_TIME)
                yield self._vary(Examples(examples.images[rows], examples.targets[rows]), generator)

    def _vary(self, part: Examples, generator: torch.Generator) -> Examples:
        draw = self.augmentation.draw(len(part), generator)
        images, targets, _ = self.augmentation.apply(part.images, part.targets, None, draw, self.setting.task)
        return Examples(images, targets)


def decoded(images: ExamplesFile | Views) -> ExamplesFile:
    """Return the files of a split or of its views."""
    return ExamplesFile(*images.paths) if isinstance(images, Views) else images


def n_views(images: ExamplesFile | Views) -> int:
    """Return how many copies of each image there are."""
    return images.n_views if isinstance(images, Views) else 1
