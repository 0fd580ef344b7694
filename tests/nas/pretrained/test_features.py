"""Decoders trained on the stored features of the encoder that all candidates share."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from nas.data import SyntheticFaces
from nas.pretrained.encoder import Encoder, PretrainedSpace
from nas.pretrained.features import Features
from nas.pretrained.plan import Plan
from nas.pretrained.teacher import TeacherSpec
from nas.pretrained.views import Views, decoded
from nas.search.listener import SearchListener
from nas.tasks import Classification, Segmentation
from nas.torch_tools import save_weights
from nas.training.augmentation import Augmentation
from nas.training.distillation import Distillation
from nas.training.engine import train
from nas.training.student import Student
from nas.values.recipes import TrainingRecipe
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
def encoder(setting, cache):
    encoder = Encoder(cache, setting, SPACE, RECIPE)
    encoder.make(SearchListener())
    return encoder


def candidate(encoder, seed=0):
    space = PretrainedSpace(SPACE, encoder.path)
    genotype = space.canonical(space.sample(np.random.default_rng(seed)))
    return space.build(genotype, in_channels=3, n_classes=8, seed=1)


def stored(setting, cache, encoder, n_views=1):
    images = views(setting, cache, n_views) if setting.augmentation else setting.train
    features = Features(cache, setting, encoder, images)
    features.make(SearchListener())
    return features


def views(setting, cache, n_views=1):
    made = Views(cache, setting, setting.train, setting.augmentation, n_views)
    made.make(SearchListener())
    return made


def state(model, part):
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith("encoder.") == part}


def test_batches_are_the_encoders_features(setting, cache, encoder):
    data = stored(setting, cache, encoder).load("cpu", 0)
    rows = torch.tensor([5, 0, 3])
    batch = data.batch(rows, 1, torch.Generator())
    model = candidate(encoder).eval()
    examples = setting.train.load()
    expected = model.encode(setting.normalization(examples.images[rows]))
    for found, feature in zip(batch.inputs, expected, strict=False):  # a candidate may use fewer stages
        torch.testing.assert_close(found, feature, atol=5e-3, rtol=5e-3)  # half precision
    assert torch.equal(batch.targets, examples.targets[rows])
    assert (len(data), len(batch.inputs)) == (8, 4)


def test_a_decoder_trained_on_features_leaves_the_encoder_as_it_was(setting, cache, encoder):
    model = candidate(encoder)
    frozen, rest = state(model, True), state(model, False)
    train(model, RECIPE, task=setting.task, data=stored(setting, cache, encoder).load("cpu", 0), seed=0)
    assert all(torch.equal(value, frozen[name]) for name, value in state(model, True).items())
    changed = {name for name, value in state(model, False).items() if not torch.equal(value, rest[name])}
    assert {"head.1.weight"} <= changed
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_features_train_as_images_through_the_frozen_encoder_do(setting, cache, encoder):
    """Up to half precision: the same images, in the same order, through an encoder that stays in eval mode."""
    data = stored(setting, cache, encoder).load("cpu", 0)
    model, reference = candidate(encoder), candidate(encoder)
    reference.encoder.eval()
    batch = data.batch(torch.arange(4), 1, torch.Generator())
    images = setting.training_data().batch(torch.arange(4), 1, torch.Generator())
    on_features = Student(model.train(), data, 0.0, 0)
    loss = on_features.losses(batch, setting.task, None)[0]
    expected = setting.task.loss(reference(images.inputs), images.targets)
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-3)


def test_views_are_varied_copies_one_for_each_epoch_in_turn(setting, cache, encoder):
    varied = dataclasses.replace(setting, augmentation=Augmentation(flip=True, shift=0.1))
    features = stored(varied, cache, encoder, n_views=3)
    examples = decoded(features.images).load()
    assert len(examples) == 24
    parts = [examples.images[8 * view : 8 * view + 8] for view in range(3)]
    assert not torch.equal(parts[0], parts[1])
    data = features.load("cpu", 0)
    rows = torch.arange(4)
    for epoch, view in ((1, 0), (2, 1), (3, 2), (4, 0)):
        batch = data.batch(rows, epoch, torch.Generator())
        assert torch.equal(batch.targets, examples.targets[8 * view + rows])
    again = stored(varied, cache, encoder, n_views=3)
    assert again.files == features.files
    assert views(dataclasses.replace(varied, seed=1), cache, 3).paths != features.images.paths


def test_mirrored_views_swap_classes(setting, cache):
    flipped = dataclasses.replace(setting, augmentation=Augmentation(flip=True))
    varied = decoded(views(flipped, cache)).load()
    plain = setting.train.load()
    names = SyntheticFaces(32, 8, 4).class_names
    left, right = names.index("left_eye"), names.index("right_eye")
    is_flipped = torch.tensor([not torch.equal(a, b) for a, b in zip(varied.images, plain.images, strict=True)])
    assert 0 < is_flipped.sum() < 8
    assert torch.equal((varied.targets == right)[is_flipped], (plain.targets == left).flip(-1)[is_flipped])


def test_auxiliary_heads_add_their_loss_and_leave_no_trace(setting, cache, encoder):
    data = stored(setting, cache, encoder).load("cpu", 0)
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


def test_features_without_a_teacher_or_for_another_network_are_refused(setting, cache, encoder):
    data = stored(setting, cache, encoder).load("cpu", 0)
    with pytest.raises(ValueError, match="distillation needs a teacher's logits"):
        train(candidate(encoder), RECIPE, task=setting.task, data=data, seed=0, distillation=Distillation())
    with pytest.raises(ValueError, match="teacher cannot be asked about stored features"):
        train(candidate(encoder), RECIPE, task=setting.task, data=data, seed=0, teacher=candidate(encoder))
    cell = NasBench201(width=4, cells_per_stage=1)
    model = cell.build(cell.genotype((0,) * 6), in_channels=3, n_classes=8, seed=0)
    with pytest.raises(ValueError, match="data must be images: "):
        train(model, RECIPE, task=Classification("ab"), data=data, seed=0)


def test_features_are_sent_to_other_processes_without_what_they_were_made_from(setting, cache, tmp_path):
    """A cluster node is given `files` and nothing else."""
    spec = TeacherSpec("unet", {"width": 4}, weights=tmp_path / "mine.safetensors")
    save_weights(spec.build(3, 8), spec.weights)
    options = {"space": SPACE, "teacher": spec, "distillation": Distillation(), "pretraining": RECIPE, "n_views": 2}
    plan = Plan.of(cache, dataclasses.replace(setting, augmentation=Augmentation(flip=True)), **options)
    for artifact in plan.artifacts:
        artifact.make(SearchListener())
    expected = plan.features.load("cpu", 0)
    sent = pickle.dumps(plan.features)
    for path in (spec.weights, plan.encoder.path):
        path.unlink()
    found = pickle.loads(sent).load("cpu", 0)  # noqa: S301
    rows = torch.arange(4)
    torch.testing.assert_close(tuple(found.batch(rows, 2, None)), tuple(expected.batch(rows, 2, None)), rtol=0, atol=0)
    assert len(sent) < 20_000


@pytest.mark.gpu
def test_features_train_equally_wherever_they_lie(setting, cache, encoder):
    features = stored(setting, cache, encoder)
    found = []
    for n_bytes in (2**30, 0):
        model = candidate(encoder)
        train(model, RECIPE, task=setting.task, data=features.load("cuda", n_bytes), seed=0)
        found.append(torch.cat([p.flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(*found)
