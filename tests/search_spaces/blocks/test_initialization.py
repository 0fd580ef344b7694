import math

import pytest
import torch
from torch import nn

from search_spaces.blocks.initialization import initialize
from search_spaces.blocks.operations import LearnedUpsampling, resize


@pytest.mark.parametrize(
    ("module", "variance"),
    [
        (nn.Conv2d(64, 128, 3, bias=False), 2 / (9 * 128)),
        (nn.Conv2d(2048, 2048, 3, groups=2048, bias=False), 2 / 9),
        (nn.Conv2d(64, 128, 3), 1 / (9 * 64)),
        (nn.ConvTranspose2d(64, 128, 2, stride=2, bias=False), 2 / 128),
        (nn.ConvTranspose2d(64, 128, 2, stride=2), 1 / 64),
        (nn.Linear(256, 64), 1 / 256),
    ],
)
def test_variance_follows_the_formula(module, variance):
    initialize(module, seed=0)
    assert module.weight.std().item() == pytest.approx(math.sqrt(variance), rel=0.03)
    assert module.weight.mean().item() == pytest.approx(0, abs=0.03 * math.sqrt(variance))
    if module.bias is not None:
        assert not module.bias.any()


def test_weights_depend_on_what_stands_before_only():
    def weights(*widths):
        model = nn.Sequential(*(nn.Linear(3, width) for width in widths))
        initialize(model, seed=5)
        return [layer.weight for layer in model]

    alone, followed, preceded = weights(4), weights(4, 7), weights(7, 4)
    assert torch.equal(alone[0], followed[0])
    assert not torch.equal(alone[0], preceded[1])


def test_normalisation_becomes_the_identity():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.fill_(3)
    initialize(norm, seed=0)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm.eval()(x), x, atol=1e-4, rtol=1e-4)


def test_a_module_without_a_rule_is_refused():
    with pytest.raises(TypeError, match="no rule to initialise a LayerNorm"):
        initialize(nn.Sequential(nn.LayerNorm(4)), seed=0)


def test_learned_upsampling_starts_as_interpolation():
    x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    upsampling = LearnedUpsampling(5)
    nn.init.ones_(upsampling.weight)
    initialize(upsampling, seed=0)
    inner = (..., slice(1, -1), slice(1, -1))  # it sees zeros outside
    torch.testing.assert_close(upsampling(x)[inner], resize(x, (12, 14))[inner])
