"""Controllers that follow one number: what they find, and what they refuse."""

import numpy as np
import pytest
import torch

from nas.config import load_config
from nas.controllers import CONTROLLERS, SearchProblem, SimulatedAnnealing
from nas.controllers.ppo import GenePolicy, Ppo
from nas.errors import ConfigurationError
from nas.values.objectives import Direction, Objective
from nas.values.records import Record, RecordState
from nas.values.scalarization import ScalarizationKind
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=5, n_values=6)
OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))


def judged(candidate):
    """Return a record whose score grows with the root of its cost, better the more its genes are alike."""
    genes = np.array(candidate.genotype.genes)
    metrics = {"score": float(1 + np.sqrt(genes.sum()) - 0.3 * np.ptp(genes)), "cost": float(1 + genes.sum())}
    return Record(candidate, RecordState.COMPLETE, metrics, number=0, batch=0)


def search(controller, n_batches):
    controller.setup(SearchProblem(SPACE, OBJECTIVES, 0))
    records = []
    for _ in range(n_batches):
        records.append([judged(candidate) for candidate in controller.ask(controller.batch_size)])
        controller.tell(records[-1])
    return records


def median_costs(controller, n_batches):
    return [float(np.median([r.metrics["cost"] for r in batch])) for batch in search(controller, n_batches)]


@pytest.mark.parametrize("kind", ["regularized_evolution", "simulated_annealing"])
def test_a_soft_constraint_brings_the_costs_to_its_target(kind):
    options = {"scalarization": ScalarizationKind.SOFT_CONSTRAINT, "targets": {"cost": 9.0}}
    costs = median_costs(CONTROLLERS[kind](n_candidates=500, **options), 50)
    assert np.median(costs[:3]) > 11  # random genotypes cost 13.5 on average
    assert abs(np.median(costs[-5:]) - 9.0) <= 1.5


def test_each_walk_of_annealing_steps_to_neighbours_of_its_own_place():
    controller = SimulatedAnnealing(n_candidates=200, batch_size=6, end_temperature=1e-6, start_temperature=1e-6)
    controller.setup(SearchProblem(SPACE, OBJECTIVES, 0))
    n_steps = 0
    for _ in range(20):
        places = list(controller._places)
        batch = controller.ask(6)
        steps = dict(controller._steps)
        for candidate in batch:
            place = places[steps[candidate.genotype]] if candidate.genotype in steps else None
            if place is not None:
                differences = np.array(candidate.genotype.genes) - place.genotype.genes
                assert np.abs(differences).sum() == 1  # one step of one ordinal gene
                n_steps += 1
        controller.tell([judged(candidate) for candidate in batch])
    assert n_steps > 80


def test_the_policy_follows_the_score_until_the_exponent_has_grown():
    options = {"scalarization": ScalarizationKind.SOFT_CONSTRAINT, "targets": {"cost": 9.0}}
    costs = median_costs(Ppo(n_candidates=300, batch_size=20, **options), 15)
    assert max(costs) > 19
    assert costs[-1] < max(costs) - 4


def test_the_policy_learns_what_is_good():
    controller = Ppo(n_candidates=300, batch_size=10)
    batches = search(controller, 20)
    spreads = [[np.ptp(r.candidate.genotype.genes) for r in batch] for batch in batches]
    assert np.mean(spreads[-5:]) < np.mean(spreads[:5]) - 1.0


def test_the_policys_probabilities_are_those_that_it_samples_by():
    torch.manual_seed(0)
    policy = GenePolicy([2, 3], 2)
    for head in policy._heads:
        torch.nn.init.normal_(head.weight)
    weights = torch.tensor([[0.3, 0.7]])
    every = torch.tensor([[a, b] for a in range(2) for b in range(3)])
    with torch.no_grad():
        probabilities = policy(every, weights.expand(6, 2))[0].exp().double()
        drawn = policy.sample(weights.expand(20_000, 2), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=6) / 20_000
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(counts, probabilities, atol=0.012)  # more than three standard errors


def test_an_untrained_policy_is_uniform():
    log_probability, entropy = GenePolicy([4, 5], 1)(torch.tensor([[3, 1]]), torch.ones(1, 1))
    assert log_probability.item() == pytest.approx(np.log(1 / 20), abs=1e-5)
    assert entropy.item() == pytest.approx((np.log(4) + np.log(5)) / 2, abs=1e-5)


def test_the_policy_leaves_torchs_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    search(Ppo(), 2)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"n_updates": 0}, "n_updates must be positive, got 0"),
        ({"entropy": -1.0}, "entropy must be at least 0, got -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"targets": {"cost": 1.0}}, "targets are only for scalarization: soft_constraint, got chebyshev"),
        ({"scalarization": ScalarizationKind.SOFT_CONSTRAINT}, "targets must be given for scalarization: soft_constr"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Ppo(**options)


def test_a_configuration_whose_targets_fit_no_objective_is_faulty():
    config = {
        "name": "x",
        "search_space": {"kind": "integers"},
        "metrics": {name: {"function": "math:fsum"} for name in ("score", "cost")},
        "objectives": [{"metric": o.metric, "direction": str(o.direction)} for o in OBJECTIVES],
        "controller": {"kind": "ppo", "scalarization": "soft_constraint", "targets": {"costs": 3.0}},
    }
    with pytest.raises(ConfigurationError, match=r"controller\.targets must name objectives that are minimised, got"):
        load_config(config, trust_code=True)
    config["controller"]["targets"] = {"cost": 3}
    assert load_config(config, trust_code=True).controller.options["targets"] == {"cost": 3.0}
