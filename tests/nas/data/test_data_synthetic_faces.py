import numpy as np
import pytest
import torch

from nas.data.base import Split
from nas.data.face_drawing import CLASS_NAMES
from nas.data.synthetic_faces import SyntheticFaces

SMALL_CLASSES = ("left_eye", "right_eye", "left_brow", "right_brow", "mouth")


@pytest.fixture(scope="module")
def examples():
    return SyntheticFaces(n_train=120).load(Split.TRAIN)


def pixels_of(masks: torch.Tensor, name: str) -> np.ndarray:
    return (masks == CLASS_NAMES.index(name)).sum(dim=(1, 2)).numpy()


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_class_is_in_most_images(examples, name):
    assert (pixels_of(examples.targets, name) > 0).mean() > 0.8


def test_small_classes_are_small_but_large_enough_to_learn(examples):
    medians = {name: float(np.median(pixels_of(examples.targets, name))) for name in SMALL_CLASSES}
    assert all(12 <= median <= 80 for median in medians.values()), medians


def test_eyes_are_six_to_ten_pixels_wide(examples):
    is_eye = (examples.targets == CLASS_NAMES.index("left_eye")).numpy()
    columns = is_eye.any(axis=1).sum(axis=1)
    assert 6 <= np.median(columns[columns > 0]) <= 10


def test_left_is_the_image_s_left(examples):
    columns = torch.arange(64, dtype=torch.float32)
    for part in ("eye", "brow"):
        left, right = (examples.targets == CLASS_NAMES.index(f"{side}_{part}") for side in ("left", "right"))
        both = (left.sum(dim=(1, 2)) > 3) & (right.sum(dim=(1, 2)) > 3)
        centre_left, centre_right = (
            (side[both].sum(dim=1) * columns).sum(dim=1) / side[both].sum(dim=(1, 2)) for side in (left, right)
        )
        assert (centre_left < centre_right).all()


def test_colour_alone_does_not_find_the_small_classes(examples):
    colours = examples.images.permute(0, 2, 3, 1).reshape(-1, 3).float()
    targets = examples.targets.flatten().long()
    means = torch.stack([colours[targets == index].mean(dim=0) for index in range(len(CLASS_NAMES))])
    predicted = torch.cdist(colours, means).argmin(dim=1)
    for name in SMALL_CLASSES:
        index = CLASS_NAMES.index(name)
        hit = ((predicted == index) & (targets == index)).sum()
        union = ((predicted == index) | (targets == index)).sum()
        assert hit / union < 0.1, name


def test_an_example_depends_on_its_index_alone():
    few, more = (SyntheticFaces(n_train=n, seed=3).load(Split.TRAIN) for n in (3, 5))
    assert torch.equal(few.images, more.images[:3])
    assert torch.equal(few.targets, more.targets[:3])


def test_loaded_examples_are_the_caller_s_own():
    data = SyntheticFaces(n_train=2)
    data.load(Split.TRAIN).images.zero_()
    assert data.load(Split.TRAIN).images.any()


def test_splits_and_seeds_share_no_image():
    first = SyntheticFaces(n_train=4, n_validation=4, n_test=4)
    loaded = [first.load(split) for split in Split] + [SyntheticFaces(n_train=4, seed=1).load(Split.TRAIN)]
    images = {image.numpy().tobytes() for examples in loaded for image in examples.images}
    assert len(images) == 16


@pytest.mark.parametrize("image_size", [32, 48, 96])
def test_other_sizes(image_size):
    data = SyntheticFaces(image_size=image_size, n_test=20)
    examples = data.load(Split.TEST)
    assert examples.images.shape == (20, 3, image_size, image_size)
    assert set(examples.targets.unique().tolist()) == set(range(8))


def test_fingerprint_ignores_the_test_split():
    assert SyntheticFaces(n_test=1).fingerprint() == SyntheticFaces(n_test=2).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 16}, "image_size must be at least 32, got 16"),
        ({"n_train": 0}, "n_train must be at least 1, got 0"),
        ({"n_validation": 0}, "n_validation must be at least 1, got 0"),
        ({"n_test": -1}, "n_test must be at least 1, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SyntheticFaces(**options)
