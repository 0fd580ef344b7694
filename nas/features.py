"""Stored features of the encoder that all candidates share: a decoder trained on them never runs it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.artifacts import ArtifactCache
from nas.augmentation import Augmentation
from nas.data.base import Examples
from nas.data.cache import ExamplesFile, load_array, new_array, write_examples
from nas.files import load_part
from nas.tasks.base import Task
from nas.training_data import FeatureData
from nas.training_layout import lay_out
from nas.training_setting import TrainingSetting
from search_spaces.base import PretrainableSpace, StagedNetwork

_N_AT_A_TIME = 64  # images


@dataclass(frozen=True)
class StoredFeatures:
    """Features on disk, with the views of the images that they are of.

    Attributes:
        path: `.npy`, `(n_views * n, D)` float16: all images of the first view come first.
        shapes: `(C, H, W)` of each feature, from fine to coarse.
        views: What the encoder saw, and the targets.
        n_views: Of each image.
        teacher_logits: `.npy`: what the teacher says of the views; `None` for no teacher.
    """

    path: Path
    shapes: tuple[tuple[int, int, int], ...]
    views: ExamplesFile
    n_views: int
    teacher_logits: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it consists of."""
        logits = (self.teacher_logits,) if self.teacher_logits else ()
        return (self.path, self.views.images, self.views.targets, *logits)

    @property
    def n_bytes(self) -> int:
        """Of all that a training keeps at hand: features, targets, the teacher's logits."""
        return sum(path.stat().st_size for path in self.files if path != self.views.images)

    def load(self, device: torch.device | str, resident_bytes: int) -> FeatureData:
        """Return them for a training: on its device as far as they fit, otherwise memory-mapped."""
        examples = self.views.load()
        return FeatureData(
            torch.from_numpy(load_array(self.path)),
            self.shapes,
            examples.targets,
            load_array(self.teacher_logits) if self.teacher_logits else None,
            image_size=(examples.images.shape[-2], examples.images.shape[-1]),
            n_views=self.n_views,
            device=device,
            resident_bytes=resident_bytes,
        )


def store_views(setting: TrainingSetting, n_views: int, cache: ArtifactCache) -> tuple[ExamplesFile, int]:
    """Return `n_views` varied copies of the training split, one after the other, and how many there are.

    What an encoder makes of an image does not commute with the image's variation, so that it is varied first.
    Without an augmentation there is one view: the training split itself.
    """
    train = setting.train
    assert isinstance(train, ExamplesFile)  # noqa: S101 - the reader refuses stored features of streamed images
    if setting.augmentation is None:
        return train, 1
    depends_on = {
        "examples": train.images.name,
        "augmentation": asdict(setting.augmentation),
        "task": dict(setting.task_options),
        "seed": setting.seed,
        "n_views": n_views,
    }
    augmentation = setting.augmentation

    def write(images: Path, targets: Path) -> None:
        examples = train.load()
        views = _views(examples, augmentation, setting.task, n_views, setting.seed)
        write_examples(images, targets, n_views * len(examples), views)

    paths, _ = cache.get_together(("view-images", "view-targets"), depends_on, ".npy", write)
    return ExamplesFile(*paths), n_views


def store_features(
    space: PretrainableSpace, weights: Path, views: ExamplesFile, setting: TrainingSetting, cache: ArtifactCache
) -> tuple[Path, tuple[tuple[int, int, int], ...]]:
    """Return a file of the features of `views`, made now if no run did before, and the features' shapes.

    Args:
        space: Whose networks share the encoder.
        weights: Of the encoder, a safetensors file.
        views: The images.
        setting: Where to compute, and what networks map to what.
        cache: Where the features are kept.
    """
    network = space.build_for_pretraining(in_channels=setting.in_channels, n_classes=setting.n_classes, seed=0)
    assert isinstance(network, StagedNetwork)  # noqa: S101 - stated in the space's contract
    load_part(network.encoder, weights)
    lay_out(network, setting.device).eval()
    images = views.load().images
    shapes = _shapes(network, setting, images[:1])

    def write(path: Path) -> None:
        array = new_array(path, np.float16, (len(images), sum(map(prod, shapes))))
        for start in range(0, len(images), _N_AT_A_TIME):
            features = _features(network, setting, images[start : start + _N_AT_A_TIME])
            joined = torch.cat([feature.flatten(1) for feature in features], dim=1)
            array[start : start + len(joined)] = joined.half().cpu().numpy()
        array.flush()

    depends_on: Mapping[str, Any] = {
        "encoder": weights.name,
        "space": [space.name, space.options],
        "examples": views.images.name,
        "normalization": asdict(setting.normalization),
        "device": setting.device,
    }
    return cache.get("features", depends_on, ".npy", write)[0], shapes


def _views(examples: Examples, augmentation: Augmentation, task: Task, n_views: int, seed: int) -> Iterator[Examples]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_views):
        for start in range(0, len(examples), _N_AT_A_TIME):
            rows = slice(start, start + _N_AT_A_TIME)
            draw = augmentation.draw(len(examples.images[rows]), generator)
            images, targets, _ = augmentation.apply(examples.images[rows], examples.targets[rows], None, draw, task)
            yield Examples(images, targets)


@torch.inference_mode()
def _features(network: StagedNetwork, setting: TrainingSetting, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return network.encode(setting.normalization(images.to(setting.device)))


def _shapes(network: StagedNetwork, setting: TrainingSetting, images: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    shapes = (feature.shape[1:] for feature in _features(network, setting, images))
    return tuple((channels, height, width) for channels, height, width in shapes)
