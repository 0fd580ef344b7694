import pytest
import torch
from torch import nn

from latency.counting.complexity import count_model
from nas.evaluation import ModelSignature
from nas.evaluation.known_costs import CountedCosts, bounds_check
from nas.values.objectives import Constraint
from search_spaces import NasBench201

SPACE = NasBench201(width=4, cells_per_stage=1)
SIGNATURE = ModelSignature(3, (16, 16), 5)


class Careful(NasBench201):
    """Reads its weights while it is built, which has to be done with real ones."""

    n_built = 0

    def build(self, genotype, **sizes):
        model = super().build(genotype, **sizes)
        type(self).n_built += 1
        assert float(next(model.parameters()).sum()) != 12.0
        return model


class Odd(nn.Module):
    def forward(self, x):
        return x + torch.linalg.matrix_exp(x[..., :1, :1])


class Uncounted(NasBench201):
    def build(self, genotype, **sizes):
        return Odd()


@pytest.mark.parametrize("cls", [NasBench201, Careful])
def test_counts_are_those_of_the_real_network_and_are_taken_once(cls):
    space = cls(width=4, cells_per_stage=1)
    genotype = space.genotype([3, 1, 2, 4, 0, 1])
    model = SPACE.build(genotype, in_channels=3, n_classes=5, seed=0).eval()
    exact = count_model(model, SIGNATURE.input_shape)
    costs = CountedCosts(space, SIGNATURE)
    assert costs(genotype) == {"n_params": exact.n_params, "n_macs": exact.n_macs}
    n_built = Careful.n_built
    costs(genotype)
    assert Careful.n_built == n_built


def test_what_cannot_be_counted_has_no_costs_and_breaks_no_bound():
    costs = CountedCosts(Uncounted(), SIGNATURE)
    genotype = SPACE.genotype([0] * 6)
    assert costs(genotype) == {}
    keeps = bounds_check(costs, [Constraint("n_params", max=1)], {"n_params", "n_macs"})
    assert keeps(genotype)


def test_only_bounds_on_known_costs_are_asked_about():
    costs = CountedCosts(SPACE, SIGNATURE)
    genotype = SPACE.genotype([0] * 6)
    assert bounds_check(None, [Constraint("latency_ms", max=1)], {"n_params"})(genotype)
    n_params = costs(genotype)["n_params"]
    assert bounds_check(costs, [Constraint("n_params", max=n_params)], {"n_params"})(genotype)
    assert not bounds_check(costs, [Constraint("n_params", max=n_params - 1)], {"n_params"})(genotype)
