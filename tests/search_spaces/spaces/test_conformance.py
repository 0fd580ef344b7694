"""What every search space keeps. A new entry of SEARCH_SPACES is covered unasked, or fails the first test."""

import copy
import dataclasses
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces import SEARCH_SPACES, GenotypeError, ModelSpace
from search_spaces.spaces.mobile import MobileStage

FILES = tempfile.TemporaryDirectory()


def table(name, n_rows):
    """Write a table of cells with three edges and return its path."""
    path = Path(FILES.name) / name
    ops = np.random.default_rng(0).permutation(27)[:n_rows, np.newaxis] // [9, 3, 1] % 3
    np.savez(path, ops=ops, op_names=["none", "skip", "conv"], edges=[(0, 1), (0, 2), (1, 2)], score=np.arange(n_rows))
    return path


# Small enough to be built many times; the second differs in one option.
SPACES = {
    "nasbench201": ({"width": 4, "cells_per_stage": 1}, {"width": 8, "cells_per_stage": 1}),
    "segmentation_cell": (
        {"n_cells": 2, "n_branches": 2, "decoder_widths": (8, 16), "encoder_width": 8},
        {"n_cells": 2, "n_branches": 2, "decoder_widths": (8, 24), "encoder_width": 8},
    ),
    "mobile": (
        {"stages": (MobileStage(widths=(8, 16), stride=2), MobileStage(widths=(16,))), "resolutions": (24, 32)},
        {"stages": (MobileStage(widths=(8, 16), stride=2), MobileStage(widths=(24,))), "resolutions": (24, 32)},
    ),
    "integers": ({"n_genes": 6, "n_values": 5}, {"n_genes": 6, "n_values": 5, "ordinal": False}),
    "tabular": ({"path": table("first.npz", 20)}, {"path": table("second.npz", 21)}),
}
HAVE_NO_DEFAULTS = {"tabular"}  # there is no table to start from
N_SAMPLES = 60

every_space = pytest.mark.parametrize("kind", SEARCH_SPACES)
every_model_space = pytest.mark.parametrize(
    "kind", [kind for kind, cls in SEARCH_SPACES.items() if issubclass(cls, ModelSpace)]
)


def space_of(kind, variant=0):
    return SEARCH_SPACES[kind](**SPACES[kind][variant])


def samples(space, n=N_SAMPLES, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal_states(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def loss_of(space, model, n_classes):
    logits = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    target = torch.zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.long)
    assert logits.shape[1] == n_classes
    return F.cross_entropy(logits, target)


def test_every_space_is_tested():
    assert SPACES.keys() == SEARCH_SPACES.keys()


@every_space
def test_is_registered_under_its_name_and_is_a_frozen_value(kind):
    space = space_of(kind)
    assert space.name == kind
    assert space == space_of(kind)
    assert space != space_of(kind, variant=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(space, dataclasses.fields(space)[0].name, 1)


@pytest.mark.parametrize("kind", sorted(SEARCH_SPACES.keys() - HAVE_NO_DEFAULTS))
def test_every_option_has_a_default_and_the_defaults_are_valid(kind):
    space = SEARCH_SPACES[kind]()
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(space))
    assert space.options == dataclasses.asdict(space)


@every_space
def test_gene_names_are_unique_and_all_genes_can_vary(kind):
    genes = space_of(kind).genes
    assert len({gene.name for gene in genes}) == len(genes)
    assert all(gene.n_values == len(set(gene.choices)) > 1 for gene in genes)


@every_space
def test_sampling_depends_on_the_generator_only_and_reaches_every_value(kind):
    space = space_of(kind)
    assert samples(space) == samples(space)
    assert samples(space) != samples(space, seed=1)
    drawn = samples(space, n=400)
    for genotype in drawn:
        space.validate(genotype)
    for index, gene in enumerate(space.genes):
        assert {genotype.genes[index] for genotype in drawn} == set(range(gene.n_values))


@every_space
def test_canonical_is_idempotent_in_the_space_and_merges_by_description(kind):
    space = space_of(kind)
    forms = [space.canonical(genotype) for genotype in samples(space, n=200)]
    for form in forms:
        space.validate(form)
        assert space.canonical(form) == form
    assert len({space.describe(form) for form in forms}) == len(set(forms))
    assert all(space.describe(form).strip() and "\n" not in space.describe(form) for form in forms)


@every_space
def test_a_drawing_is_an_svg_document_and_tells_networks_apart(kind):
    space = space_of(kind)
    forms = {space.canonical(genotype) for genotype in samples(space)}
    drawings = {space.draw(form) for form in forms}
    assert len(drawings) == len(forms)
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"


@every_space
def test_fingerprint_covers_space_options_and_genes(kind):
    space = space_of(kind)
    drawn = set(samples(space))
    prints = {space.fingerprint(genotype) for genotype in drawn}
    assert len(prints) == len(drawn)
    assert prints == {space_of(kind).fingerprint(genotype) for genotype in drawn}
    assert prints.isdisjoint(space_of(kind, variant=1).fingerprint(genotype) for genotype in drawn)


@every_space
def test_a_genotype_of_another_kind_is_refused_by_all(kind):
    space = space_of(kind)
    genes = samples(space, n=1)[0].genes
    wrong = [
        dataclasses.replace(samples(space, n=1)[0], space="another"),
        dataclasses.replace(samples(space, n=1)[0], genes=genes[:-1]),
        dataclasses.replace(samples(space, n=1)[0], genes=(*genes[:-1], space.genes[-1].n_values)),
        dataclasses.replace(samples(space, n=1)[0], genes=(-1, *genes[1:])),
        dataclasses.replace(samples(space, n=1)[0], genes=()),
    ]
    for genotype in wrong:
        with pytest.raises(GenotypeError):
            space.validate(genotype)
        with pytest.raises(GenotypeError):
            space.describe(genotype)
        with pytest.raises(GenotypeError):
            space.draw(genotype)
        if isinstance(space, ModelSpace):
            with pytest.raises(GenotypeError):
                space.build(genotype, in_channels=3, n_classes=4, seed=0)


@every_model_space
def test_build_depends_on_its_seed_only_and_leaves_the_global_generator_alone(kind):
    space = space_of(kind)
    for genotype in samples(space, n=5):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        first = space.build(genotype, in_channels=3, n_classes=4, seed=7)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert equal_states(first.state_dict(), space.build(genotype, in_channels=3, n_classes=4, seed=7).state_dict())
        other = space.build(genotype, in_channels=3, n_classes=4, seed=8)
        assert not equal_states(first.state_dict(), other.state_dict())
        assert first.training
        assert isinstance(first, nn.Module)


@every_model_space
def test_a_training_step_gives_finite_gradients_and_a_finite_loss_after_it(kind):
    space = space_of(kind)
    for genotype in samples(space, n=25):
        model = space.build(genotype, in_channels=3, n_classes=4, seed=0)
        loss = loss_of(space, model, n_classes=4)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        torch.optim.AdamW(model.parameters(), lr=1e-3).step()
        assert torch.isfinite(loss_of(space, model, n_classes=4))


@every_model_space
def test_inference_treats_each_image_of_a_batch_alone(kind):
    space = space_of(kind)
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for genotype in samples(space, n=5):
        model = space.build(genotype, in_channels=1, n_classes=5, seed=0).eval()
        with torch.no_grad():
            whole = model(images)
            single = torch.cat([model(image[None]) for image in images])
        assert whole.shape[:2] == (3, 5)
        torch.testing.assert_close(whole, single, atol=1e-4, rtol=1e-4)


@every_model_space
def test_models_share_nothing_and_building_changes_no_module_level_value(kind):
    space = space_of(kind)
    genotype = samples(space, n=1)[0]
    modules = [module for name, module in sys.modules.items() if name.startswith("search_spaces")]
    values = {
        (module.__name__, name): copy.copy(value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, dict | list | set | tuple | int | str) and not name.startswith("__")
    }
    first = space.build(genotype, in_channels=3, n_classes=4, seed=0)
    second = space.build(genotype, in_channels=3, n_classes=4, seed=0)
    before = state_of(second)
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.add_(1)
    assert equal_states(state_of(second), before)
    for (module, name), value in values.items():
        assert getattr(sys.modules[module], name) == value
