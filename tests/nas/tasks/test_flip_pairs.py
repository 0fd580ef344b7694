"""Networks that see mirrored images still tell left from right, if the classes swap too."""

import numpy as np
import pytest
import torch
from torch import nn

from nas.data import Split, SyntheticFaces
from nas.data.base import Examples
from nas.data.face_drawing import LEFT_EYE, RIGHT_EYE
from nas.data.normalization import Normalization
from nas.tasks import Segmentation
from nas.training.augmentation import Augmentation
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.scoring import predict
from nas.values.recipes import TrainingRecipe
from search_spaces import SegmentationCell

FLIP = Augmentation(flip=True)


class Columns(nn.Module):
    """Says for each column on its own what a bright pixel there is."""

    def __init__(self, n_classes, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, 1, width))
        self.bias = nn.Parameter(torch.zeros(n_classes, 1, 1))

    def forward(self, images):
        return images * self.weight + self.bias


def dots(n):
    """Return grey images with one bright pixel each: class 1 in the left half, class 2 in the right one."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 8, n)
    images = np.zeros((n, 1, 4, 8), dtype=np.uint8)
    images[np.arange(n), 0, rng.integers(0, 4, n), columns] = 255
    masks = np.where(images[:, 0] > 0, np.where(columns < 4, 1, 2)[:, None, None], 0).astype(np.uint8)
    return Examples(torch.from_numpy(images), torch.from_numpy(masks))


def share_of_right_sides(model, examples, normalization, sides):
    """Return among pixels of both `sides` that are taken for one of them the share that is taken for its own."""
    predicted = torch.cat([out.argmax(dim=1) for out in predict(model, examples.images, normalization)])
    left, right = sides
    target = examples.targets.long()
    is_side = ((target == left) | (target == right)) & ((predicted == left) | (predicted == right))
    assert is_side.sum() > 30
    return float((predicted == target)[is_side].float().mean())


@pytest.mark.parametrize("has_pairs", [True, False])
def test_dots_left_and_right(has_pairs):
    task = Segmentation(("nothing", "left", "right"), flip_pairs=(("left", "right"),) if has_pairs else ())
    examples = dots(128)
    normalization = Normalization((0.0,), (0.1,))
    data = ImageData(examples, normalization, augmentation=FLIP, task=task)
    model = Columns(3, 8)
    train(model, TrainingRecipe(epochs=8, learning_rate=0.1), task=task, data=data, seed=0)
    share = share_of_right_sides(model, examples, normalization, (1, 2))
    assert (share == 1.0) == has_pairs


@pytest.mark.slow
@pytest.mark.parametrize("has_pairs", [True, False])
def test_eyes_left_and_right(has_pairs):
    faces = SyntheticFaces(64, 512, 128)
    pairs = (("left_eye", "right_eye"), ("left_brow", "right_brow"))
    task = Segmentation(
        faces.class_names, class_weights=(1, 1, 1, 5, 5, 5, 5, 3), flip_pairs=pairs if has_pairs else ()
    )
    examples = faces.load(Split.TRAIN)
    normalization = Normalization.of(examples.images)
    data = ImageData(examples, normalization, augmentation=FLIP, task=task)
    space = SegmentationCell(n_cells=2, n_branches=2)
    genotype = space.sample(np.random.default_rng(1))
    model = space.build(genotype, in_channels=3, n_classes=8, seed=0)
    recipe = TrainingRecipe(epochs=8, batch_size=8, learning_rate=0.02)
    train(model, recipe, task=task, data=data, seed=0)
    share = share_of_right_sides(model, faces.load(Split.VALIDATION), normalization, (LEFT_EYE, RIGHT_EYE))
    assert share > 0.95 if has_pairs else share < 0.8
