import dataclasses

import numpy as np
import pytest
import torch

from nas.artifacts import ArtifactCache
from nas.data import FashionMnist
from nas.data.base import Split
from nas.data.cache import cache_examples
from nas.errors import InputError
from nas.files import load_weights
from nas.tasks import Classification
from nas.teacher import TeacherSpec, TrainingSetting, make_teacher, teacher_logits
from nas.training import Normalization, TrainingRecipe, predict

SPEC = TeacherSpec("resnet", {"depth": 8, "width": 4}, TrainingRecipe(epochs=2, batch_size=8))


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "artifacts")


@pytest.fixture
def setting(tiny_config, cache):
    dataset = FashionMnist(tiny_config.parent / "data", n_train=40, n_validation=20)
    train, validation = (cache_examples(cache, dataset, split) for split in (Split.TRAIN, Split.VALIDATION))
    return TrainingSetting(
        data_fingerprint=dataset.fingerprint(),
        train=train,
        validation=validation,
        normalization=Normalization.of(train.load().images),
        task=Classification(dataset.class_names),
        task_options={},
        in_channels=1,
        n_classes=10,
        seed=0,
        device="cpu",
        n_threads=1,
    )


def test_it_is_trained_once_for_all_runs_that_agree(setting, cache):
    epochs = []
    first = make_teacher(SPEC, setting, cache, on_epoch=epochs.append)
    assert first.was_trained
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert first.n_params == sum(p.numel() for p in SPEC.build(1, 10).parameters())
    assert 0 <= first.scores["accuracy"] <= 1
    again = make_teacher(SPEC, setting, cache, on_epoch=epochs.append)
    assert again == dataclasses.replace(first, was_trained=False)
    assert len(epochs) == 2


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"data_fingerprint": "other"}, {"task_options": {"weight": 2}}, {"n_threads": 2}]
)
def test_another_setting_is_another_teacher(setting, cache, change):
    spec = dataclasses.replace(SPEC, recipe=TrainingRecipe(epochs=1, batch_size=8))
    first = make_teacher(spec, setting, cache)
    assert make_teacher(spec, dataclasses.replace(setting, **change), cache).weights != first.weights
    other = dataclasses.replace(spec, recipe=TrainingRecipe(epochs=1, batch_size=4))
    assert make_teacher(other, setting, cache).weights != first.weights


def test_given_weights_are_taken_as_they_are(setting, cache, tmp_path):
    trained = make_teacher(SPEC, setting, cache)
    trained.weights.rename(tmp_path / "mine.safetensors")
    given = make_teacher(dataclasses.replace(SPEC, weights=tmp_path / "mine.safetensors"), setting, cache)
    assert (given.was_trained, given.scores) == (False, trained.scores)


@pytest.mark.parametrize("content", [None, b"", b"no weights of anything" * 10])
def test_weights_of_something_else_are_the_users_fault(setting, cache, tmp_path, content):
    path = tmp_path / "mine.safetensors"
    if content is None:
        other = TeacherSpec("resnet", {"depth": 8, "width": 6}, SPEC.recipe)
        path = make_teacher(other, setting, cache).weights
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="these weights are not of the teacher that is configured"):
        make_teacher(dataclasses.replace(SPEC, weights=path), setting, cache)


def test_weights_that_are_not_there_are_the_users_fault(setting, cache, tmp_path):
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        make_teacher(dataclasses.replace(SPEC, weights=tmp_path / "gone.safetensors"), setting, cache)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALIDATION])
def test_logits_are_the_models_for_every_image_in_order(setting, cache, split):
    teacher = make_teacher(SPEC, setting, cache)
    path = teacher_logits(SPEC, teacher, setting, split, cache)
    logits = np.load(path)
    images = (setting.train if split is Split.TRAIN else setting.validation).load().images
    model = SPEC.build(1, 10)
    load_weights(model, teacher.weights)
    expected = torch.cat(list(predict(model.eval(), images, setting.normalization, batch_size=7)))
    assert (logits.shape, logits.dtype) == ((len(images), 10), np.float16)
    np.testing.assert_allclose(logits, expected, atol=5e-3, rtol=5e-3)
    before = path.stat().st_mtime_ns
    assert teacher_logits(SPEC, teacher, setting, split, cache).stat().st_mtime_ns == before
