"""A trained network with all that whoever uses it must know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.evaluation.base import ModelSignature
from nas.tasks.base import Scorer, Task

Run = Callable[[np.ndarray], np.ndarray]
"""Maps images `(B, C, H, W)`, float32 in 0 .. 1, to logits: a network in some runtime."""

_N_COMPARED = 32  # images
_N_SCORED_AT_A_TIME = 64
SIZE_STEP = 32
"""Height and width of images of another size must be multiples of it: no network of ours has a larger stride."""


class ImageNetwork(nn.Module):
    """A network behind the normalisation that it was trained with.

    Maps images `(B, C, H, W)`, float32 in 0 .. 1, to the network's logits.
    """

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of `image`."""
        logits: torch.Tensor = self.network((image - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class DataAtHand:
    """The run's images, where they can be read.

    Attributes:
        validation: The split that networks are compared and scored on.
        training: Images of the training split, `(n, C, H, W)` uint8, to calibrate on.
        task: Gives the scores.
    """

    validation: Examples
    training: torch.Tensor
    task: Task

    def score(self, run: Run) -> dict[str, float]:
        """Return every score of a network on the validation split."""
        scorer = self.task.new_scorer()
        self.add_to(scorer, run)
        return scorer.compute()

    def add_to(self, scorer: Scorer, run: Run) -> None:
        """Let `scorer` see what a network says of the validation split."""
        images, targets = self.validation.images, self.validation.targets
        for start in range(0, len(images), _N_SCORED_AT_A_TIME):
            part = slice(start, start + _N_SCORED_AT_A_TIME)
            scorer.update(torch.from_numpy(run(scaled(images[part]))), targets[part])


@dataclass(frozen=True)
class Product:
    """What a format writes.

    Attributes:
        network: Trained, in eval mode, on the CPU; takes normalised images.
        signature: Of its input and output.
        normalization: Of images.
        class_names: In the order of the logits.
        is_dense: Whether it labels each pixel.
        origin: Texts on where it comes from: the run, the candidate, the training.
        recipe: What builds the network without its weights: the kind of its space, options, genes.
        scores: By metric, as the run knows them; those on the test split start with `test_`.
        data: The run's images; `None` where they cannot be read.
    """

    network: nn.Module
    signature: ModelSignature
    normalization: Normalization
    class_names: tuple[str, ...]
    is_dense: bool
    origin: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    data: DataAtHand | None = None

    def image_network(self) -> ImageNetwork:
        """Return the network with its normalisation."""
        return ImageNetwork(self.network, self.normalization).eval()

    def images(self) -> tuple[np.ndarray, str]:
        """Return images to compare outputs on, `(n, C, H, W)` float32 in 0 .. 1, and what they are."""
        if self.data is None:
            shape = (_N_COMPARED, *self.signature.input_shape)
            return np.random.default_rng(0).random(shape, dtype=np.float32), f"{_N_COMPARED} images of noise"
        images = self.data.validation.images[:_N_COMPARED]
        return scaled(images), f"{len(images)} validation images"

    def other_size(self) -> tuple[int, int]:
        """Return another height and width that the network takes."""
        height, width = (-(-side // SIZE_STEP) * SIZE_STEP for side in self.signature.image_size)
        return height + SIZE_STEP, width + 2 * SIZE_STEP

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits by torch."""
        with torch.inference_mode():
            return np.asarray(self.image_network()(torch.from_numpy(images)))


def scaled(images: torch.Tensor) -> np.ndarray:
    """Return uint8 images as float32 in 0 .. 1."""
    return (images.float() / 255).numpy()


def class_list(names: Sequence[str]) -> str:
    """Return the class names as a text, the first and the last of many."""
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:6])}, ... {names[-1]} ({len(names)})"
