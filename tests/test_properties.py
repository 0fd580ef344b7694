"""What holds for all genotypes, fronts, controllers and configurations, looked for by hypothesis."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.config import load_config
from nas.config.yaml_source import YamlSource, to_yaml_text
from nas.controllers import CONTROLLERS, SearchProblem
from nas.errors import ConfigurationError
from nas.values.objectives import Direction, Objective, Violation
from nas.values.pareto import ParetoArchive, hypervolume, non_dominated
from nas.values.records import Candidate, Failure, Pruning, Record, RecordState
from search_spaces import SEARCH_SPACES
from search_spaces.genotype import Genotype
from search_spaces.spaces import Integers, NasBench201

OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))
SPACES = {kind: cls() for kind, cls in SEARCH_SPACES.items() if kind != "tabular"}  # which has no table to start from
EXTREMES = (0.0, -0.0, 1.0, 5e-324, -5e-324, 1.7e308, -1.7e308, math.ulp(1.0))
values = st.one_of(st.sampled_from(EXTREMES), st.integers(-3, 3).map(float), st.floats(-1e300, 1e300))
quickly = settings(deadline=None, database=None, derandomize=True)


@st.composite
def genotypes(draw, space):
    return space.genotype([draw(st.integers(0, gene.n_values - 1)) for gene in space.genes])


@pytest.mark.parametrize("kind", SPACES)
def test_canonical_genotypes_describe_the_same_network(kind):
    space = SPACES[kind]

    @quickly
    @given(genotypes(space))
    def holds(genotype):
        canonical = space.canonical(genotype)
        space.validate(canonical)
        assert space.canonical(canonical) == canonical
        assert space.describe(canonical)
        assert space.nearest(genotype.genes) == genotype
        assert (space.fingerprint(canonical) == space.fingerprint(genotype)) == (canonical == genotype)

    holds()


@quickly
@given(genotypes(SPACES["nasbench201"]))
def test_text_of_a_cell_names_its_genotype(genotype):
    space = NasBench201()
    assert space.from_string(space.describe(genotype)) == genotype


def record(number, state, score, cost):
    candidate = Candidate(f"r{number}", Genotype("space", ()), f"r{number}", 0, "")
    return Record(candidate, state, {"score": score, "cost": cost}, number=number, batch=0)


points = st.lists(st.tuples(st.sampled_from(RecordState), values, values), max_size=25)


@quickly
@given(points)
def test_the_archive_is_the_front_of_all_that_came(rows):
    records, archive = [record(number, *row) for number, row in enumerate(rows)], ParetoArchive(OBJECTIVES)
    for n_seen, new in enumerate(records, 1):
        stands = archive.add(new)
        complete = [(-r.metrics["score"], r.metrics["cost"], r) for r in records[:n_seen] if r.is_complete]
        slow = [
            r
            for score, cost, r in complete
            if not any(s <= score and c <= cost and (s < score or c < cost) for s, c, _ in complete)
        ]
        assert list(archive.front) == slow
        assert stands == (new in slow)


@quickly
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_hypervolume_counts_the_squares_that_are_dominated(rows):
    losses = np.array(rows, dtype=float).reshape(-1, 2)
    squares = {(x, y) for a, b in rows for x in range(a, 5) for y in range(b, 5)}
    assert hypervolume(losses, np.array([5.0, 5.0])) == pytest.approx(len(squares))
    assert hypervolume(losses[non_dominated(losses)], np.array([5.0, 5.0])) == pytest.approx(len(squares))


SMALL = {
    "nsga2": {"population_size": 4, "n_generations": 4},
    "nsga3": {"population_size": 4, "n_generations": 4},
    "sms_emoa": {"population_size": 4, "n_generations": 4},
    "ppo": {"n_candidates": 16, "batch_size": 4},
    "random": {"n_candidates": 16, "batch_size": 4},
    "regularized_evolution": {"n_candidates": 16, "batch_size": 4, "population_size": 4},
    "simulated_annealing": {"n_candidates": 16, "batch_size": 4},
    "surrogate_nsga2": {"n_candidates": 16, "batch_size": 4, "n_initial": 4},
}
readings = st.tuples(
    st.sampled_from([state for state in RecordState if state is not RecordState.ASKED]),
    st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
)


def told(candidate, number, state, score, cost):
    """Return how a candidate ended."""
    extra = {
        RecordState.COMPLETE: {"metrics": {"score": score, "cost": cost}},
        RecordState.PRUNED: {"metrics": {"cost": cost}, "pruning": Pruning("training", "score", score)},
        RecordState.INFEASIBLE: {
            "metrics": {"cost": cost + 1},
            "violations": (Violation("cost", cost + 1, None, cost, 1 / (cost + 1)),),
        },
        RecordState.FAILED: {"metrics": {}, "failure": Failure("training", "NaN", "")},
    }[state]
    return Record(candidate, state, number=number, batch=0, **extra)


def asked(kind, seed, batches):
    """Return what a controller asks for when it is told these endings."""
    controller, found = CONTROLLERS[kind](**SMALL[kind]), []
    controller.setup(SearchProblem(Integers(n_genes=4, n_values=3), OBJECTIVES, seed))
    for batch in batches:
        candidates = controller.ask(len(batch))
        controller.tell(
            [told(c, len(found) + i, *row) for i, (c, row) in enumerate(zip(candidates, batch, strict=True))]
        )
        found += candidates
    return [candidate.genotype for candidate in found]


def test_every_controller_is_here():
    assert SMALL.keys() == CONTROLLERS.keys()


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_controller_never_repeats_itself_and_can_be_replayed(kind):
    @settings(quickly, max_examples=20)
    @given(st.integers(0, 2**31), st.lists(st.lists(readings, min_size=4, max_size=4), min_size=1, max_size=4))
    def holds(seed, batches):
        genotypes = asked(kind, seed, batches)
        assert len(set(genotypes)) == len(genotypes) == 4 * len(batches)
        assert asked(kind, seed, batches) == genotypes

    holds()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@quickly
@given(st.dictionaries(st.from_regex(r"[a-w][a-z_]{0,8}", fullmatch=True), plain, min_size=1, max_size=5))
def test_what_is_written_as_yaml_is_read_back(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(to_yaml_text(data), encoding="utf-8")
    try:
        assert YamlSource.read(path).data == data
    except ConfigurationError as error:
        assert "character" in str(error) or "space" in str(error) or "key" in str(error)  # what we refuse on purpose


SEARCH = {
    "name": "x",
    "search_space": {"kind": "integers", "n_genes": 3, "n_values": 3},
    "objectives": [{"metric": "n_params", "direction": "minimize"}],
    "controller": {"kind": "random", "n_candidates": 4},
}
sections = st.sampled_from(
    [*SEARCH, "data", "task", "devices", "constraints", "execution", "budget", "training", "teacher"]
)


@quickly
@given(st.dictionaries(sections, plain, min_size=1, max_size=3))
def test_any_configuration_is_checked_or_its_faults_are_listed(changes):
    try:
        config = load_config(SEARCH | changes)
    except ConfigurationError as error:
        assert error.faults
        assert all(fault.strip() for fault in error.faults)
    else:
        assert load_config({**YamlSource.from_mapping(SEARCH | changes).data}) == config
