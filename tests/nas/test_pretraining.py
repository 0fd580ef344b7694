"""Pretraining: the part that all candidates share is trained once, and every candidate starts from it."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nas.data import SyntheticFaces
from nas.pretraining import PretrainedSpace, pretrain
from nas.tasks import Segmentation
from nas.training import TrainingRecipe
from search_spaces import SegmentationCell

pytestmark = pytest.mark.trains

SPACE = SegmentationCell(n_cells=1, n_branches=1)
RECIPE = TrainingRecipe(epochs=1, batch_size=4)
SIZES = {"in_channels": 3, "n_classes": 8, "seed": 5}


@pytest.fixture
def setting(make_setting):
    dataset = SyntheticFaces(image_size=32, n_train=8, n_validation=4)
    return make_setting(dataset, Segmentation(dataset.class_names, None))


def make(setting, cache, recipe=RECIPE, **options):
    return pretrain(SPACE, recipe, setting, cache, distillation=None, teacher_logits=None, **options)


def test_the_encoder_is_trained_once_and_another_recipe_is_another(setting, cache):
    epochs = []
    weights = make(setting, cache, on_epoch=epochs.append)
    assert make(setting, cache, on_epoch=epochs.append) == weights
    assert len(epochs) == 1
    assert make(setting, cache, dataclasses.replace(RECIPE, learning_rate=1e-3)) != weights
    assert make(dataclasses.replace(setting, seed=1), cache) != weights


def test_candidates_start_from_the_trained_encoder_and_their_own_decoder(setting, cache):
    weights = make(setting, cache)
    trained = load_file(weights)
    space = PretrainedSpace(SPACE, weights)
    untrained = SPACE.build_for_pretraining(in_channels=3, n_classes=8, seed=0).get_submodule("encoder").state_dict()
    assert any(not torch.equal(trained[name], untrained[name]) for name in trained)
    rng = np.random.default_rng(0)
    for _ in range(4):
        genotype = SPACE.canonical(SPACE.sample(rng))
        model, plain = space.build(genotype, **SIZES).state_dict(), SPACE.build(genotype, **SIZES).state_dict()
        assert model.keys() == plain.keys()
        for name, weight in model.items():
            part, _, rest = name.partition(".")
            assert torch.equal(weight, trained[rest] if part == "encoder" else plain[name]), name


def test_the_space_is_the_same_in_everything_else(setting, cache):
    space = PretrainedSpace(SPACE, make(setting, cache))
    genotype = SPACE.sample(np.random.default_rng(3))
    assert (space.name, space.genes) == (SPACE.name, SPACE.genes)
    assert space.canonical(genotype) == SPACE.canonical(genotype)
    assert space.describe(genotype) == SPACE.describe(genotype)
