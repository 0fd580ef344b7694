"""Decoders trained on the stored features of the encoder that all candidates share."""

import dataclasses

import numpy as np
import pytest
import torch

from nas.augmentation import Augmentation
from nas.data import SyntheticFaces
from nas.distillation import Distillation
from nas.features import StoredFeatures, store_features, store_views
from nas.pretraining import PretrainedSpace, pretrain
from nas.student import Student
from nas.tasks import Classification, Segmentation
from nas.training import TrainingRecipe, train
from search_spaces import NasBench201, SegmentationCell

pytestmark = pytest.mark.trains

SPACE = SegmentationCell(n_cells=2, n_branches=1)
RECIPE = TrainingRecipe(epochs=1, batch_size=4)
PAIRS = (("left_eye", "right_eye"), ("left_brow", "right_brow"))


@pytest.fixture
def setting(make_setting):
    dataset = SyntheticFaces(image_size=32, n_train=8, n_validation=4)
    return make_setting(dataset, Segmentation(dataset.class_names, None, flip_pairs=PAIRS))


@pytest.fixture
def weights(setting, cache):
    return pretrain(SPACE, RECIPE, setting, cache, distillation=None, teacher_logits=None)


def candidate(weights, seed=0):
    space = PretrainedSpace(SPACE, weights)
    genotype = space.canonical(space.sample(np.random.default_rng(seed)))
    return space.build(genotype, in_channels=3, n_classes=8, seed=1)


def stored(setting, cache, weights, n_views=1):
    views, n_views = store_views(setting, n_views, cache)
    path, shapes = store_features(SPACE, weights, views, setting, cache)
    return StoredFeatures(path, shapes, views, n_views)


def state(model, part):
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith("encoder.") == part}


def test_batches_are_the_encoders_features(setting, cache, weights):
    data = stored(setting, cache, weights).load("cpu", 0)
    rows = torch.tensor([5, 0, 3])
    batch = data.batch(rows, 1, torch.Generator())
    model = candidate(weights).eval()
    examples = setting.train.load()
    expected = model.encode(setting.normalization(examples.images[rows]))
    for found, feature in zip(batch.inputs, expected, strict=False):  # a candidate may use fewer stages
        torch.testing.assert_close(found, feature, atol=5e-3, rtol=5e-3)  # half precision
    assert torch.equal(batch.targets, examples.targets[rows])
    assert (len(data), len(batch.inputs)) == (8, 4)


def test_a_decoder_trained_on_features_leaves_the_encoder_as_it_was(setting, cache, weights):
    model = candidate(weights)
    encoder, rest = state(model, True), state(model, False)
    train(model, RECIPE, task=setting.task, data=stored(setting, cache, weights).load("cpu", 0), seed=0)
    assert all(torch.equal(value, encoder[name]) for name, value in state(model, True).items())
    changed = {name for name, value in state(model, False).items() if not torch.equal(value, rest[name])}
    assert {"head.1.weight"} <= changed
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_features_train_as_images_through_the_frozen_encoder_do(setting, cache, weights):
    """Up to half precision: the same images, in the same order, through an encoder that stays in eval mode."""
    data = stored(setting, cache, weights).load("cpu", 0)
    model, reference = candidate(weights), candidate(weights)
    reference.encoder.eval()
    batch = data.batch(torch.arange(4), 1, torch.Generator())
    images = setting.training_data().batch(torch.arange(4), 1, torch.Generator())
    on_features = Student(model.train(), data, 0.0, 0)
    loss = on_features.losses(batch, setting.task, None)[0]
    expected = setting.task.loss(reference(images.inputs), images.targets)
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-3)


def test_views_are_varied_copies_one_for_each_epoch_in_turn(setting, cache, weights):
    varied = dataclasses.replace(setting, augmentation=Augmentation(flip=True, shift=0.1))
    features = stored(varied, cache, weights, n_views=3)
    views = features.views.load()
    assert len(views) == 24
    parts = [views.images[8 * view : 8 * view + 8] for view in range(3)]
    assert not torch.equal(parts[0], parts[1])
    data = features.load("cpu", 0)
    rows = torch.arange(4)
    for epoch, view in ((1, 0), (2, 1), (3, 2), (4, 0)):
        batch = data.batch(rows, epoch, torch.Generator())
        assert torch.equal(batch.targets, views.targets[8 * view + rows])
    again = stored(varied, cache, weights, n_views=3)
    assert (again, store_views(varied, 3, cache)) == (features, (features.views, 3))
    assert store_views(dataclasses.replace(varied, seed=1), 3, cache) != (features.views, 3)


def test_mirrored_views_swap_classes(setting, cache):
    flipped = dataclasses.replace(setting, augmentation=Augmentation(flip=True))
    views = store_views(flipped, 1, cache)[0].load()
    plain = setting.train.load()
    names = SyntheticFaces(32, 8, 4).class_names
    left, right = names.index("left_eye"), names.index("right_eye")
    is_flipped = torch.tensor([not torch.equal(a, b) for a, b in zip(views.images, plain.images, strict=True)])
    assert 0 < is_flipped.sum() < 8
    assert torch.equal((views.targets == right)[is_flipped], (plain.targets == left).flip(-1)[is_flipped])


def test_auxiliary_heads_add_their_loss_and_leave_no_trace(setting, cache, weights):
    data = stored(setting, cache, weights).load("cpu", 0)
    genotype = SPACE.genotype((0, 3, 0, 0, 4, 3, 0, 0, 0, 0))  # two cells, one after the other
    model = SPACE.build(genotype, in_channels=3, n_classes=8, seed=1)
    names = set(model.state_dict())
    batch = data.batch(torch.arange(4), 1, torch.Generator())
    without = Student(model, data, 0.0, 0).losses(batch, setting.task, None)[0]
    with_heads = Student(model, data, 0.5, 0)
    features = batch.inputs
    heads = model.new_auxiliary_heads(0)
    logits, (said,) = model.decode_with_auxiliary(features, (32, 32), heads)
    expected = setting.task.loss(logits, batch.targets) + 0.5 * setting.task.loss(said, batch.targets)
    torch.testing.assert_close(with_heads.losses(batch, setting.task, None)[0], expected)
    assert with_heads.losses(batch, setting.task, None)[0] > without
    assert len(with_heads.parameters()) == len(Student(model, data, 0.0, 0).parameters()) + 2
    assert set(model.state_dict()) == names


def test_features_without_a_teacher_or_for_another_network_are_refused(setting, cache, weights):
    data = stored(setting, cache, weights).load("cpu", 0)
    with pytest.raises(ValueError, match="distillation needs a teacher's logits"):
        train(candidate(weights), RECIPE, task=setting.task, data=data, seed=0, distillation=Distillation())
    with pytest.raises(ValueError, match="teacher cannot be asked about stored features"):
        train(candidate(weights), RECIPE, task=setting.task, data=data, seed=0, teacher=candidate(weights))
    cell = NasBench201(width=4, cells_per_stage=1)
    model = cell.build(cell.genotype((0,) * 6), in_channels=3, n_classes=8, seed=0)
    with pytest.raises(ValueError, match="data must be images: "):
        train(model, RECIPE, task=Classification("ab"), data=data, seed=0)


@pytest.mark.gpu
def test_features_train_equally_wherever_they_lie(setting, cache, weights):
    features = stored(setting, cache, weights)
    found = []
    for n_bytes in (2**30, 0):
        model = candidate(weights)
        train(model, RECIPE, task=setting.task, data=features.load("cuda", n_bytes), seed=0)
        found.append(torch.cat([p.flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(*found)
