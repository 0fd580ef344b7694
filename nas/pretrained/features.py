"""Stored features of the encoder that all candidates share: a decoder trained on them never runs it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.data.base import Examples
from nas.data.cache import ExamplesFile, load_array, new_array
from nas.pretrained.artifact import Artifact, Timer, TrainingListener
from nas.pretrained.encoder import Encoder
from nas.pretrained.teacher import TeacherOutputs
from nas.pretrained.views import Views, decoded, n_views
from nas.torch_tools import load_part
from nas.training.batches import FeatureData
from search_spaces.base import StagedNetwork

_N_AT_A_TIME = 64  # images


@dataclass(frozen=True, eq=False)
class Features(Artifact):
    """The encoder's features, `(n_views * n, D)` float16, of the training images or of their views.

    Attributes:
        encoder: Gives them.
        images: Of what.
        teacher_outputs: For the same images, read beside the features but no part of their file; `None` for no teacher.
    """

    name = "features"
    kinds = ("features",)
    encoder: Encoder
    images: ExamplesFile | Views
    teacher_outputs: TeacherOutputs | None = None

    @property
    def needs(self) -> tuple[Artifact, ...]:
        """The encoder, and the views."""
        return (self.encoder, self.images) if isinstance(self.images, Views) else (self.encoder,)

    @property
    def depends_on(self) -> dict[str, Any]:
        """The encoder and the images."""
        return {
            "encoder": self.encoder.path.name,
            "space": [self.encoder.space.name, self.encoder.space.options],
            "examples": decoded(self.images).images.name,
            "normalization": asdict(self.setting.normalization),
            "device": self.setting.device,
        }

    def write(self, paths: tuple[Path, ...], listener: TrainingListener) -> None:
        """Run the encoder."""
        network, images = self._untrained(), decoded(self.images).load().images
        load_part(network.encoder, self.encoder.path)
        array = new_array(paths[0], np.float16, (len(images), sum(map(prod, self.shapes))))
        start = 0
        for features in self._encoded(network, images):
            joined = torch.cat([feature.flatten(1) for feature in features], dim=1)
            array[start : start + len(joined)] = joined.half().cpu().numpy()
            start += len(joined)
        array.flush()

    def seconds(self, timer: Timer) -> float:
        """Return what running the encoder costs."""
        network = self._untrained()

        def encode(part: Examples) -> None:
            for features in self._encoded(network, part.images):
                for feature in features:
                    feature.half().cpu()

        return n_views(self.images) * timer.pass_s(encode)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a training on features reads."""
        logits = (self.teacher_outputs.path,) if self.teacher_outputs else ()
        return (self.path, *decoded(self.images).files, *logits)

    @property
    def n_bytes(self) -> int:
        """Of all that such a training keeps at hand: features, targets, the teacher's logits."""
        return sum(path.stat().st_size for path in self.files if path != decoded(self.images).images)

    @property
    def place(self) -> str:
        """Where trainings find them, in a sentence."""
        device, resident_bytes = self.setting.device, self.setting.resident_bytes
        if device == "cpu":
            place = "memory-mapped, as always on a CPU"
        elif self.n_bytes <= resident_bytes:
            place = f"kept on {device} while a process trains"
        else:
            place = f"memory-mapped as far as they exceed training.resident_gib ({resident_bytes / 2**30:g})"
        n = n_views(self.images)
        amount = f"{n} view{'s' if n > 1 else ''} of each training image, {self.n_bytes / 2**20:,.0f} MiB"
        return f"The encoder's features of {amount}: {place}."

    @cached_property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """`(C, H, W)` of each feature, from fine to coarse."""
        (features,) = self._encoded(self._untrained(), self.setting.train.first(1).images)
        return tuple((part.shape[1], part.shape[2], part.shape[3]) for part in features)

    def load(self, device: torch.device | str, resident_bytes: int) -> FeatureData:
        """Return them for a training: on its device as far as they fit, otherwise memory-mapped."""
        examples = decoded(self.images).load()
        return FeatureData(
            torch.from_numpy(load_array(self.path)),
            self.shapes,
            examples.targets,
            load_array(self.teacher_outputs.path) if self.teacher_outputs else None,
            image_size=(examples.images.shape[-2], examples.images.shape[-1]),
            n_views=n_views(self.images),
            device=device,
            resident_bytes=resident_bytes,
        )

    def _untrained(self) -> StagedNetwork:
        network = self.encoder.untrained(seed=0)
        assert isinstance(network, StagedNetwork)  # noqa: S101 - stated in the space's contract
        network.to(self.setting.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return network

    @torch.inference_mode()
    def _encoded(self, network: StagedNetwork, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        for part in torch.split(images, _N_AT_A_TIME):
            yield network.encode(self.setting.normalization(part.to(self.setting.device)))
