import math

import pytest
import torch
from torch import nn

from nas.predictors.proxies import az_nas, gradient_norm, naswot, primary_blocks, synflow, zero_cost_proxies
from search_spaces import NasBench201

pytestmark = pytest.mark.trains

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)
    return layer


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


def test_synflow_of_linear_layers_is_what_ones_become_once_for_each_layer():
    model = nn.Sequential(linear((1.0, -2.0), (3.0, 0.5)), linear((2.0, -1.0)))
    assert synflow(model, torch.ones(5, 2)) == pytest.approx(math.log(2 * (2 * 3 + 1 * 3.5)))


def test_synflow_ignores_normalisation_and_sees_what_lets_nothing_through():
    model = nn.Sequential(linear((1.0, -2.0)), nn.BatchNorm1d(1), linear((4.0,)))
    assert synflow(model, torch.ones(5, 2)) == pytest.approx(math.log(2 * 12))
    assert synflow(nn.Sequential(linear((0.0, 0.0))), torch.ones(1, 2)) < -600


def test_naswot_counts_the_agreements_of_active_units():
    model = nn.Sequential(linear((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), nn.ReLU())
    images = torch.tensor([[1.0, 1.0], [1.0, -3.0]])  # active: all three; the first alone
    assert naswot(model, images) == pytest.approx(math.log(3**2 - 1**2), abs=1e-5)
    assert naswot(model, images[:1].repeat(2, 1)) < -10  # images that look alike


def test_gradient_norm_is_that_of_the_cross_entropy():
    model = linear((0.0, 0.0), (0.0, 0.0))  # both classes get a half: the gradient is (-1/2, 1/2) times the image
    assert gradient_norm(model, torch.tensor([[3.0, 4.0]]), torch.tensor([0])) == pytest.approx(5 * math.sqrt(0.5))


def test_az_nas_of_scaled_white_features():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])[:, :, None, None]  # white: log 2 each
    model = nn.Sequential(Scale(1.0), Scale(3.0))
    expressivity, progressivity, _ = az_nas(model, ["0", "1"], signs)
    assert expressivity == pytest.approx(2 * math.log(2))
    assert progressivity == pytest.approx(0, abs=1e-9)
    _, _, trainability = az_nas(model, ["0", "1"], signs[:, :1])  # one channel: the singular value is the factor
    assert trainability == pytest.approx(2 - 3 - 1 / 3, abs=1e-5)


def test_az_nas_wants_two_blocks():
    with pytest.raises(ValueError, match="blocks must name at least two modules, got 1"):
        az_nas(nn.Sequential(Scale(1.0)), ["0"], IMAGES)


def test_all_of_a_network_that_is_left_as_it_was_and_of_one_that_carries_nothing():
    space = NasBench201(width=4, cells_per_stage=1)
    good = space.from_string("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
    dead = space.genotype([0] * 6)
    found = {}
    for name, genotype in {"good": good, "dead": dead}.items():
        model = space.build(genotype, in_channels=3, n_classes=4, seed=0)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert primary_blocks(model)[0] == "features.0"
        found[name] = zero_cost_proxies(model, IMAGES, LABELS)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert found[name] == zero_cost_proxies(model, IMAGES, LABELS)
        assert all(math.isfinite(value) for value in found[name].values())
    assert all(found["good"][name] > found["dead"][name] for name in ("synflow", "naswot", "gradient_norm", "n_macs"))
