"""What the networks of all runs in a folder share: files that are made once, in the order of what they need."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from nas.data.base import Examples
from nas.store.artifacts import ArtifactCache
from nas.torch_tools import torch_threads
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.setting import TrainingSetting
from nas.values.recipes import EpochSummary, TrainingRecipe


class TrainingListener(Protocol):
    """Follows the training of a shared network; every `SearchListener` is one."""

    def on_message(self, text: str) -> None:
        """Something that a person should know."""

    def on_epoch(self, candidate: str, epoch: EpochSummary) -> None:
        """A training, named by the artifact that it makes, finished an epoch."""


class Timer(Protocol):
    """Estimates from short samples how long the making of an artifact takes."""

    def training_s(
        self, make: Callable[[], nn.Module], recipe: TrainingRecipe, distillation: Distillation | None
    ) -> float:
        """Return the seconds of training, and scoring once, a network that `make` returns."""

    def pass_s(self, work: Callable[[Examples], object]) -> float:
        """Return the seconds of `work` on the whole training split."""


@dataclass(frozen=True, eq=False)
class Artifact(ABC):
    """One or several files, made once for all runs that share a cache.

    A subclass declares the cache key, how the files are made, and what that costs; its fields are what the files are
    made from, other artifacts among them.

    Attributes:
        cache: Keeps the files.
        setting: On what data, and where, they are computed.
        kinds: The kind of each file, as the cache names it.
        suffix: Of the files' names.
    """

    kinds: ClassVar[tuple[str, ...]]
    suffix: ClassVar[str] = ".npy"
    cache: ArtifactCache
    setting: TrainingSetting

    @property
    @abstractmethod
    def name(self) -> str:
        """What a person calls it."""

    @property
    def needs(self) -> tuple["Artifact", ...]:
        """The artifacts that it is made from."""
        return ()

    @property
    @abstractmethod
    def depends_on(self) -> dict[str, Any]:
        """The cache key, as plain values; only there once `needs` are made."""

    @abstractmethod
    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Make the files, one for each of `kinds`; `needs` are made."""

    @abstractmethod
    def seconds(self, timer: Timer) -> float:
        """Return what making it costs; `needs` may be missing."""

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Its files, made or not; known once `needs` are made, and sent along to other processes."""
        return self.cache.paths(self.kinds, self.depends_on, self.suffix)

    @property
    def path(self) -> Path:
        """The first of its files."""
        return self.paths[0]

    @property
    def is_made(self) -> bool:
        """Whether it is there, and all that it needs."""
        return all(artifact.is_made for artifact in self.needs) and all(path.exists() for path in self.paths)

    def make(self, listener: TrainingListener) -> bool:
        """Make it unless some run did; `needs` are made. Return whether this call made it.

        Raises:
            EvaluationError: If a training diverges.
            InputError: If the disk has no place for it.
        """

        def write(*paths: Path) -> None:
            self.write(paths, listener)

        return self.cache.get_together(self.kinds, self.depends_on, self.suffix, write, listener.on_message)[1]


def in_order(wanted: Iterable[Artifact | None]) -> tuple[Artifact, ...]:
    """Return the wanted artifacts and all that they need, each once, in the order of making; `None` is left out."""
    found: dict[Artifact, None] = {}
    for artifact in wanted:
        if artifact is not None:
            found |= dict.fromkeys((*in_order(artifact.needs), artifact))
    return tuple(found)


def train_shared(
    artifact: Artifact,
    model: nn.Module,
    recipe: TrainingRecipe,
    listener: TrainingListener,
    *,
    what: str,
    distillation: Distillation | None = None,
    teacher_logits: Path | None = None,
    teacher: nn.Module | None = None,
) -> None:
    """Train the network of an artifact, called `what` in a message, with all CPU threads of its setting.

    It learns from the stored `teacher_logits` of the training split, or from `teacher`, asked about each batch.
    """
    listener.on_message(f"Training {what}; kept for later runs.")
    setting = artifact.setting
    with torch_threads(setting.n_threads):
        train(
            model,
            recipe,
            task=setting.task,
            data=setting.training_data(teacher_logits),
            seed=setting.seed,
            distillation=distillation,
            teacher=teacher,
            precision=setting.precision,
            on_epoch=lambda epoch: listener.on_epoch(artifact.name, epoch),
        )
