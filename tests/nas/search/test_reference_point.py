import pytest

from nas.errors import EvaluationError
from nas.search.reference_point import choose_reference_point
from nas.values.objectives import Constraint, Direction, Objective

SCORE = Objective("score", Direction.MAXIMIZE)
COST = Objective("cost", Direction.MINIMIZE)
SAMPLE = [{"cost": 4.0, "score": 1.0}, {"cost": 10.0}, {"cost": 6.0, "score": 3.0}, {}]


def choose(*objectives, constraints=(), given=None, chance_levels=None, sample=lambda metrics: SAMPLE):
    return choose_reference_point(
        objectives, constraints, given=given or {}, chance_levels=chance_levels or {}, sample=sample
    )


def never(metrics):
    raise AssertionError("nothing has to be measured")


def test_the_first_that_is_known_wins():
    bound = (Constraint("cost", max=8.0), Constraint("score", min=0.2))
    chance = {"score": 0.1}
    assert choose(SCORE, COST, constraints=bound, given={"cost": 7.0}, chance_levels=chance, sample=never) == {
        "score": 0.2,
        "cost": 7.0,
    }
    assert choose(SCORE, chance_levels=chance, sample=never) == {"score": 0.1}


def test_a_bound_on_the_good_side_is_none():
    bounds = (Constraint("cost", min=5.0), Constraint("score", max=0.9))
    assert choose(COST, constraints=bounds) == {"cost": pytest.approx(10.6)}
    assert choose(SCORE, constraints=bounds, chance_levels={"score": 0.0}, sample=never) == {"score": 0.0}


def test_a_given_zero_counts():
    assert choose(SCORE, given={"score": 0.0}, chance_levels={"score": 0.5}, sample=never) == {"score": 0.0}


def test_a_sample_gives_its_worst_and_a_tenth_of_its_range():
    assert choose(COST, SCORE) == {"cost": pytest.approx(10 + 0.6), "score": pytest.approx(1 - 0.2)}


def test_a_sample_without_a_range_gives_a_tenth_of_its_value():
    assert choose(COST, sample=lambda metrics: [{"cost": 5.0}, {"cost": 5.0}]) == {"cost": pytest.approx(5.5)}
    assert choose(COST, sample=lambda metrics: [{"cost": 0.0}]) == {"cost": pytest.approx(0.1)}
    assert choose(SCORE, sample=lambda metrics: [{"score": -5.0}]) == {"score": pytest.approx(-5.5)}


def test_it_is_measured_at_most_once_and_only_what_nothing_else_tells():
    calls = []
    choose(COST, SCORE, given={"score": 0.0}, sample=lambda metrics: calls.append(metrics) or SAMPLE)
    choose(COST, SCORE, sample=lambda metrics: calls.append(metrics) or SAMPLE)
    assert calls == [{"cost"}, {"cost", "score"}]


def test_a_sample_that_tells_nothing_is_an_error_that_says_what_to_do():
    with pytest.raises(EvaluationError, match="none of 1 sampled genotypes .* give one under reference_point"):
        choose(COST, sample=lambda metrics: [{"score": 1.0}])
