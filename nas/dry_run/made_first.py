"""What all candidates need made first: which of it is there already, and what the rest costs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nas import assembly
from nas.config import RunConfig
from nas.data.base import Examples
from nas.dry_run.timing import Stopwatch
from nas.pretrained.teacher import TeacherSpec, load_teacher
from nas.search.listener import SearchListener
from nas.store.artifacts import ArtifactCache
from nas.store.run_folder import RunFolder
from nas.torch_tools import torch_threads
from nas.training.scoring import predict
from search_spaces.base import PretrainableSpace, SearchSpace, StagedNetwork

_COSTLY = ("teacher", "teacher-logits", "encoder", "view-images", "view-targets", "features")


class NotMadeError(Exception):
    """An artifact is not there whose making is what is to be estimated."""


class LookingCache(ArtifactCache):
    """Finds the artifacts that runs made, and makes those that cost little in a folder of its own.

    Args:
        root: Its own folder.
        others: That of the runs; nothing is written there.
    """

    def __init__(self, root: Path, others: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []  # kinds, in order
        self.n_made = 0
        self._others = ArtifactCache(others)

    def path(self, kind: str, depends_on: Mapping[str, Any], suffix: str) -> Path:
        """Return where a run has it, or where it would be made here."""
        there = self._others.path(kind, depends_on, suffix)
        return there if there.exists() else super().path(kind, depends_on, suffix)

    def get_together(
        self, kinds: Sequence[str], depends_on: Mapping[str, Any], suffix: str, make: Callable[..., None]
    ) -> tuple[tuple[Path, ...], bool]:
        """Return the artifacts.

        Raises:
            NotMadeError: If they cost much, and no run has made them.
        """
        self.asked += kinds
        paths = tuple(self.path(kind, depends_on, suffix) for kind in kinds)
        if all(path.exists() for path in paths):
            return paths, False
        if not set(kinds).isdisjoint(_COSTLY):
            raise NotMadeError(kinds[0])
        self.n_made += 1
        return super().get_together(kinds, depends_on, suffix, make)


class _Part(NamedTuple):
    """One thing that is made first: its name for a person, its kind among artifacts, and what tells its seconds."""

    name: str
    kind: str
    seconds: Callable[[], float]


class MadeFirst:
    """Estimates what is made before the first candidate.

    Args:
        config: Of the run.
        inputs: Its data.
        stopwatch: Times short trainings on it.
    """

    def __init__(self, config: RunConfig, inputs: assembly.TrainingInputs, stopwatch: Stopwatch) -> None:
        self._config = config
        self._inputs = inputs
        self._stopwatch = stopwatch
        self._sizes = {"in_channels": inputs.signature.in_channels, "n_classes": inputs.signature.n_classes}

    def seconds(self, folder: RunFolder, cache: LookingCache) -> tuple[dict[str, float], tuple[str, ...]]:
        """Return the seconds of what is missing, and the names of what is there, in the order of their making.

        Args:
            folder: Stands for the run's; its artifacts are those of `cache`.
            cache: Knows what there is.
        """
        parts = self._parts(self._config.search_space.instance)
        n_found = self._n_found(parts, folder, cache)
        with torch_threads(self._inputs.setting.n_threads):
            missing = {part.name: part.seconds() for part in parts[n_found:]}
        return missing, tuple(part.name for part in parts[:n_found])

    def _n_found(self, parts: list[_Part], folder: RunFolder, cache: LookingCache) -> int:
        """Return how many of `parts` are there: each depends on those before it, so the first missing one tells."""
        n_before = len(cache.asked)
        try:
            assembly.candidate_training(self._config, self._inputs.setting, folder, SearchListener())
        except NotMadeError:
            position = 0
            for kind in cache.asked[n_before:]:
                later = [i for i in range(position, len(parts)) if parts[i].kind == kind]
                position = later[0] + 1 if later else position
            return max(0, position - 1)
        return len(parts)

    def _parts(self, space: SearchSpace) -> list[_Part]:
        """Return what this run needs, in the order of making."""
        config, training = self._config, self._config.training
        assert training is not None  # noqa: S101 - the reader refuses trained metrics without it
        parts = []
        method = assembly.distillation(config)
        teacher = config.teacher if method else None
        is_live = method is not None and method.teacher == "live"
        if teacher is not None:
            if teacher.given is None:
                parts.append(_Part("teacher", "teacher", lambda: self._teacher_s(teacher)))
            if not is_live:
                parts.append(_Part("its outputs", "teacher-logits", lambda: self._outputs_s(teacher)))
        if config.pretraining is None or not isinstance(space, PretrainableSpace):
            return parts
        parts.append(_Part("encoder", "encoder", lambda: self._encoder_s(space)))
        if any(stage.train == "decoder" for stage in training.stages):
            n_views = training.n_views if config.augmentation is not None else 1
            if config.augmentation is not None:
                parts.append(_Part("views", "view-images", lambda: n_views * self._views_s()))
            parts.append(_Part("features", "features", lambda: n_views * self._features_s(space)))
            if teacher is not None and (config.augmentation is not None or is_live):
                seconds = lambda: n_views * self._outputs_s(teacher)  # noqa: E731
                parts.append(_Part("for views", "teacher-logits", seconds))
        return parts

    def _teacher_s(self, teacher: TeacherSpec) -> float:
        return self._stopwatch.training_cost(lambda: teacher.build(**self._sizes), teacher.recipe, None).total_s

    def _encoder_s(self, space: PretrainableSpace) -> float:
        assert self._config.pretraining is not None  # noqa: S101 - else there is no such part
        return self._stopwatch.training_cost(
            lambda: space.build_for_pretraining(**self._sizes, seed=0),
            self._config.pretraining,
            assembly.distillation(self._config),
        ).total_s

    def _outputs_s(self, teacher: TeacherSpec) -> float:
        setting = self._inputs.setting
        given = teacher.given
        model: nn.Module = load_teacher(teacher, given, setting) if given else teacher.build(**self._sizes).eval()

        def say(part: Examples) -> None:
            for output in predict(model, part.images, setting.normalization, device=setting.device):
                output.half().cpu()

        return self._stopwatch.pass_s(say)

    def _views_s(self) -> float:
        setting, augmentation = self._inputs.setting, self._config.augmentation
        assert augmentation is not None  # noqa: S101 - else there is no such part

        def vary(part: Examples) -> None:
            draw = augmentation.draw(len(part), torch.Generator().manual_seed(0))
            augmentation.apply(part.images, part.targets, None, draw, setting.task)

        return self._stopwatch.pass_s(vary)

    def _features_s(self, space: PretrainableSpace) -> float:
        setting = self._inputs.setting
        network = space.build_for_pretraining(**self._sizes, seed=0)
        assert isinstance(network, StagedNetwork)  # noqa: S101 - stated in the space's contract
        network.to(setting.device).eval()

        @torch.inference_mode()
        def encode(part: Examples) -> None:
            for start in range(0, len(part), 64):
                images = part.images[start : start + 64].to(setting.device)
                for feature in network.encode(setting.normalization(images)):
                    feature.half().cpu()

        return self._stopwatch.pass_s(encode)
