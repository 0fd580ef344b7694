"""Pretraining: the part that all candidates share is trained once, and every candidate starts from it."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nas.data import SyntheticFaces
from nas.pretrained.encoder import Encoder, PretrainedSpace
from nas.search.listener import SearchListener
from nas.tasks import Segmentation
from nas.values.recipes import TrainingRecipe
from search_spaces import SegmentationCell
from search_spaces.base import PretrainableSpace

SPACE = SegmentationCell(n_cells=1, n_branches=1)
RECIPE = TrainingRecipe(epochs=1, batch_size=4)
SIZES = {"in_channels": 3, "n_classes": 8, "seed": 5}


@pytest.fixture
def setting(make_setting):
    dataset = SyntheticFaces(image_size=32, n_train=8, n_validation=4)
    return make_setting(dataset, Segmentation(dataset.class_names, None))


def make(setting, cache, recipe=RECIPE, listener=None):
    encoder = Encoder(cache, setting, SPACE, recipe)
    encoder.make(listener or SearchListener())
    return encoder.path


def test_the_encoder_is_trained_once_and_another_recipe_is_another(setting, cache):
    messages, epochs = [], []
    listener = SearchListener()
    listener.on_message, listener.on_epoch = messages.append, lambda name, epoch: epochs.append((name, epoch.epoch))
    weights = make(setting, cache, listener=listener)
    assert make(setting, cache, listener=listener) == weights
    assert messages == ["Training the encoder that all candidates start from (1 epoch); kept for later runs."]
    assert epochs == [("encoder", 1)]
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


class Odd(SegmentationCell):
    """Answers every question otherwise than the base classes do."""

    n_genotypes = 7
    shares_encoder = True
    cell_graph = "graph"
    options = {"odd": True}

    def __getattribute__(self, name):
        if name in METHODS:
            return lambda *arguments, **options: (name, arguments, options)
        return super().__getattribute__(name)


CONTRACT = {name for name in dir(PretrainableSpace) if not name.startswith("_")} | {"name"}
PROPERTIES = {"name", "genes", "options", "cell_graph", "n_genotypes", "shares_encoder"}
METHODS = CONTRACT - PROPERTIES - {"build"}


def test_the_space_keeps_the_whole_contract_of_the_space_within(tmp_path):
    """A name that is added to the contract of spaces fails here until `PretrainedSpace` passes it on."""
    within = Odd(n_cells=1, n_branches=1)
    space = PretrainedSpace(within, tmp_path / "weights.safetensors")
    for name in PROPERTIES:
        assert getattr(space, name) is getattr(within, name) or getattr(space, name) == getattr(within, name), name
    for name in METHODS:
        assert getattr(space, name)(1, at=2) == (name, (1,), {"at": 2}), name
    assert isinstance(space, PretrainableSpace)


def test_the_space_is_the_same_in_everything_else(tmp_path):
    space = pickle.loads(pickle.dumps(PretrainedSpace(SPACE, tmp_path / "weights.safetensors")))  # noqa: S301
    genotype = SPACE.sample(np.random.default_rng(3))
    assert (space.name, space.genes, space.options) == (SPACE.name, SPACE.genes, SPACE.options)
    assert space.canonical(genotype) == SPACE.canonical(genotype)
    assert space.draw(genotype) == SPACE.draw(genotype)
    assert space.fingerprint(genotype) == SPACE.fingerprint(genotype)
    assert space.sample(np.random.default_rng(3)) == genotype
