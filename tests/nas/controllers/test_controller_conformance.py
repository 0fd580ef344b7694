"""What every controller keeps. A new entry of CONTROLLERS is covered unasked, or fails the first test."""

from dataclasses import dataclass

import numpy as np
import pytest

from nas.controllers import CONTROLLERS, SearchProblem
from nas.errors import SpaceExhaustedError
from nas.values.objectives import Direction, Objective, Violation
from nas.values.records import Candidate, Failure, Pruning, Record, RecordState
from search_spaces.base import SearchSpace
from search_spaces.genotype import Gene, GeneKind, Genotype
from search_spaces.spaces.integers import Integers

OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))
SMALL = {
    "nsga2": {"population_size": 8, "n_generations": 10},
    "nsga3": {"population_size": 8, "n_generations": 10},
    "sms_emoa": {"population_size": 8, "n_generations": 10},
    "ppo": {"n_candidates": 80, "batch_size": 8},
    "random": {"n_candidates": 80, "batch_size": 8},
    "regularized_evolution": {"n_candidates": 80, "batch_size": 8, "population_size": 16},
    "simulated_annealing": {"n_candidates": 80, "batch_size": 8},
    "surrogate_nsga2": {"n_candidates": 80, "batch_size": 8, "n_initial": 8},
}
SPACE = Integers(n_genes=6, n_values=5)


@dataclass(frozen=True)
class Mirrored(SearchSpace):
    """Genotypes whose reversal builds the same thing: 3**4 = 81 genotypes, (81 + 9) / 2 = 45 distinct."""

    name = "mirrored"

    @property
    def genes(self):
        return tuple(Gene(f"g{i}", ("a", "b", "c"), GeneKind.CATEGORICAL) for i in range(4))

    def canonical(self, genotype):
        return Genotype(self.name, min(genotype.genes, genotype.genes[::-1]))


def start(kind, space=SPACE, seed=0, **problem):
    controller = CONTROLLERS[kind](**SMALL[kind])
    controller.setup(SearchProblem(space, OBJECTIVES, seed, **problem))
    return controller


def judge(candidate: Candidate, state=RecordState.COMPLETE, number=0) -> Record:
    genes = np.array(candidate.genotype.genes)
    metrics = {"score": float(np.sin(genes).sum()), "cost": float(genes.sum())}
    extra = {
        RecordState.COMPLETE: {"metrics": metrics},
        RecordState.PRUNED: {
            "metrics": {"cost": metrics["cost"]},
            "pruning": Pruning("training", "score", 0.1),
        },
        RecordState.INFEASIBLE: {
            "metrics": {"cost": metrics["cost"]},
            "violations": (Violation("cost", metrics["cost"], None, 1.0, metrics["cost"]),),
        },
        RecordState.FAILED: {"metrics": {}, "failure": Failure("training", "NaN", "")},
    }[state]
    return Record(candidate, state, number=number, batch=0, **extra)


def mixed_state(candidate: Candidate) -> RecordState:
    states = [RecordState.COMPLETE] * 4 + [RecordState.PRUNED, RecordState.INFEASIBLE, RecordState.FAILED]
    return states[candidate.seed % len(states)]


def search(controller, n_batches, state=mixed_state):
    asked = []
    for _ in range(n_batches):
        batch = controller.ask(controller.batch_size)
        controller.tell([judge(candidate, state(candidate)) for candidate in batch])
        asked.append(batch)
    return asked


def test_every_controller_is_tested():
    assert SMALL.keys() == CONTROLLERS.keys()


@pytest.fixture(params=CONTROLLERS)
def kind(request):
    return request.param


def test_equal_seeds_and_tells_give_equal_asks_and_other_seeds_others(kind):
    assert search(start(kind), 6) == search(start(kind), 6)
    assert search(start(kind), 1) != search(start(kind, seed=1), 1)


def test_a_replay_goes_on_as_the_first_run_did(kind):
    whole = search(start(kind), 8)
    replayed = start(kind)
    for batch in whole[:5]:
        assert replayed.ask(len(batch)) == batch
        replayed.adopt(batch)
        replayed.tell([judge(candidate, mixed_state(candidate)) for candidate in batch])
    assert search(replayed, 3) == whole[5:]


def test_stored_asks_win_over_those_of_the_replay(kind):
    controller = start(kind)
    controller.ask(8)
    others = tuple(Candidate.create(SPACE, SPACE.genotype([4, 4, 4, 4, 4, i]), 0) for i in range(5))
    controller.adopt(others)
    controller.tell([judge(candidate) for candidate in others])
    later = {candidate.id for batch in search(controller, 8) for candidate in batch}
    assert later.isdisjoint(candidate.id for candidate in others)


def steady_search(controller, n, n_at_work=3):
    """Ask for one whenever one is told, the told one being in the middle of those at work."""
    at_work, asked = [], []
    for _ in range(n):
        (candidate,) = controller.ask(1)
        asked.append(candidate)
        at_work.append(candidate)
        if len(at_work) == n_at_work:
            ended = at_work.pop(n_at_work // 2)
            controller.tell([judge(ended, mixed_state(ended))])
    return asked


def test_copes_with_one_at_a_time_and_is_a_function_of_asks_and_tells(kind):
    asked = steady_search(start(kind), 40)
    assert len({candidate.id for candidate in asked}) == 40
    assert steady_search(start(kind), 40) == asked


def test_never_asks_twice_and_only_canonical_genotypes(kind):
    space = Mirrored()
    controller = start(kind, space)
    asked = [candidate.genotype for batch in search(controller, 4) for candidate in batch]
    assert len(set(asked)) == len(asked) == 32
    assert all(space.canonical(genotype) == genotype for genotype in asked)


def test_a_finite_space_is_used_up_to_the_last_network_and_then_says_so(kind):
    controller = start(kind, Mirrored())
    sizes = [len(batch) for batch in search(controller, 6)]
    assert sizes == [8, 8, 8, 8, 8, 5]
    with pytest.raises(SpaceExhaustedError):
        controller.ask(8)


@pytest.mark.parametrize("state", [s for s in RecordState if s is not RecordState.ASKED])
def test_goes_on_when_every_record_is_of_one_state(kind, state):
    asked = search(start(kind), 5, lambda candidate: state)
    assert sum(len(batch) for batch in asked) == 40


def test_does_not_change_what_it_is_told(kind):
    controller = start(kind)
    records = [judge(candidate, mixed_state(candidate)) for candidate in controller.ask(8)]
    before = [repr(record) for record in records]
    controller.tell(records)
    assert [repr(record) for record in records] == before


def test_asks_only_inside_the_cheap_bounds_while_there_is_something(kind):
    controller = start(kind, keeps_cheap_bounds=lambda genotype: sum(genotype.genes) <= 8)
    asked = [candidate for batch in search(controller, 5) for candidate in batch]
    assert all(sum(candidate.genotype.genes) <= 8 for candidate in asked)


def test_asks_outside_the_cheap_bounds_rather_than_stop(kind):
    controller = start(kind, Mirrored(), keeps_cheap_bounds=lambda genotype: sum(genotype.genes) == 0)
    first = controller.ask(8)
    assert len(first) == 8
    assert sum(sum(candidate.genotype.genes) == 0 for candidate in first) == 1


def test_asks_first_for_what_it_is_given_and_goes_on_from_there(kind):
    first = tuple(SPACE.genotype([i % 5, 1, 2, 3, 4, i // 5]) for i in range(11))
    asked = [candidate.genotype for batch in search(start(kind, first=first), 4) for candidate in batch]
    assert tuple(asked[:11]) == first
    assert len(set(asked)) == 32
    replayed = start(kind, first=first)
    assert [candidate.genotype for batch in search(replayed, 4) for candidate in batch] == asked


def test_asks_for_batches_that_add_up_to_its_candidates(kind):
    controller = start(kind)
    assert controller.n_candidates == 80
    assert controller.batch_size == 8
