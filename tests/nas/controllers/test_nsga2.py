import numpy as np
import pytest

from nas.controllers import Nsga2, RandomSearch, SearchProblem
from nas.controllers.nsga2 import GeneMutation
from nas.values.objectives import Direction, Objective, Violation
from nas.values.records import Failure, Pruning, Record, RecordState
from search_spaces.genotype import Gene, GeneKind
from search_spaces.spaces.integers import Integers

OBJECTIVES = (Objective("near_zero", Direction.MINIMIZE), Objective("near_four", Direction.MINIMIZE))


def test_mutation_steps_ordinal_genes_and_redraws_categorical_ones():
    genes = [
        Gene("ordinal", tuple("abcdefg"), GeneKind.ORDINAL),
        Gene("categorical", tuple("abcdefg"), GeneKind.CATEGORICAL),
        Gene("fixed", ("a",), GeneKind.CATEGORICAL),
    ]
    start = np.tile([3, 3, 0], (4000, 1))
    mutated = GeneMutation(genes, 0.5)._do(None, start, random_state=np.random.default_rng(0))
    assert set(mutated[:, 0]) == {2, 3, 4}
    assert set(mutated[:, 1]) == set(range(7))
    assert set(mutated[:, 2]) == {0}
    changed = (mutated != start).mean(axis=0)
    np.testing.assert_allclose(changed, [0.5, 0.5, 0.0], atol=0.03)  # a change is never to the same value
    edges = GeneMutation(genes, 1.0)._do(None, np.array([[0, 0, 0], [6, 6, 0]]), random_state=np.random.default_rng(0))
    assert edges[:, 0].tolist() == [1, 5]


def evaluate(candidates):
    genes = np.array([candidate.genotype.genes for candidate in candidates])
    values = np.stack([genes.sum(axis=1), ((genes - 4) ** 2).sum(axis=1)], axis=1)
    return [
        Record(c, RecordState.COMPLETE, dict(zip(("near_zero", "near_four"), map(float, v), strict=True)), 0, 0)
        for c, v in zip(candidates, values, strict=True)
    ]


def best_distance(controller, n_batches):
    """Return how near the best candidate came to all genes being 0, after so many batches."""
    controller.setup(SearchProblem(Integers(n_genes=12, n_values=5), OBJECTIVES, seed=1))
    best = np.inf
    for _ in range(n_batches):
        records = evaluate(controller.ask(20))
        controller.tell(records)
        best = min(best, *(record.metrics["near_zero"] for record in records))
    return best


def test_finds_the_ends_of_a_front_that_random_search_misses():
    assert best_distance(Nsga2(20, 30), 30) <= 4
    assert best_distance(RandomSearch(600, 20), 30) >= 8


def test_told_one_by_one_it_finds_the_ends_as_well():
    controller = Nsga2(20, 30)
    controller.setup(SearchProblem(Integers(n_genes=12, n_values=5), OBJECTIVES, seed=1))
    best = np.inf
    for _ in range(600):
        records = evaluate(controller.ask(1))
        controller.tell(records)
        best = min(best, records[0].metrics["near_zero"])
    assert best <= 4


def population(controller):
    return {tuple(int(gene) for gene in genes) for genes in controller._algorithm.pop.get("X")}


def test_ranks_complete_before_pruned_before_infeasible_and_ignores_failed():
    controller = Nsga2(population_size=4, n_generations=10)
    controller.setup(SearchProblem(Integers(n_genes=6, n_values=5), OBJECTIVES, seed=0))
    first, second = controller.ask(4), controller.ask(4)
    complete = evaluate(first[:2])
    pruned = Record(first[2], RecordState.PRUNED, {}, 0, 0, pruning=Pruning("training", "score", 0.0))

    def infeasible(candidate, amount):
        violation = Violation("n_params", 1.0, None, 1.0, amount)
        return Record(candidate, RecordState.INFEASIBLE, {}, 0, 0, violations=(violation,))

    failed = Record(first[3], RecordState.FAILED, {}, 0, 0, failure=Failure("training", "NaN", ""))
    controller.tell([failed, complete[0], pruned, complete[1]])
    controller.tell([infeasible(second[0], 0.9), infeasible(second[1], 0.1), infeasible(second[2], 0.5)])
    kept = {candidate.genotype.genes for candidate in (*first[:3], second[1])}
    assert population(controller) == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 7}, "population_size must be at least 4 and a multiple of 2, got 7"),
        ({"n_generations": 0}, "n_generations must be at least 1, got 0"),
        ({"mutation_probability": 1.5}, r"mutation_probability must be more than 0 and at most 1, got 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Nsga2(**options)
