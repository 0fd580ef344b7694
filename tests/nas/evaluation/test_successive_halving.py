import numpy as np
import pytest

from nas.evaluation.stopping_rules import SuccessiveHalving, _n_ahead
from nas.values.records import Candidate, Record, RecordState
from search_spaces.spaces.integers import Integers

SPACE = Integers(n_genes=2, n_values=5)


def record(**metrics):
    metrics = {name.replace("_at_", "@"): value for name, value in metrics.items()}
    candidate = Candidate.create(SPACE, SPACE.genotype([0, 0]), 0)
    return Record(candidate, RecordState.COMPLETE, metrics, number=0, batch=0)


def records(costs, scores):
    return [record(cost=cost, score_at_1=score) for cost, score in zip(costs, scores, strict=True)]


def threshold(rule, cost, finished):
    return rule.thresholds({"cost": cost}, finished, ["cost"], ["score@1"]).get("score@1")


def test_with_equal_costs_the_best_share_goes_on():
    finished = records([1.0] * 8, range(8))
    assert threshold(SuccessiveHalving(reduction=2.0), 1.0, finished) == 4.0  # 4, 5, 6, 7 go on
    assert threshold(SuccessiveHalving(reduction=4.0), 1.0, finished) == 6.0


def test_a_cheap_candidate_is_compared_with_what_is_no_dearer():
    finished = records(range(8), range(8))  # a front: nobody is ahead of anybody
    rule = SuccessiveHalving()
    assert threshold(rule, -1.0, finished) is None  # cheaper than all: nothing to be dropped for
    assert threshold(rule, 0.0, finished) == 0.0
    assert threshold(rule, 3.5, finished) == 3.0
    assert threshold(rule, 100.0, finished) == 7.0


def test_the_share_of_the_finished_that_goes_on_is_that_of_the_rule():
    rng = np.random.default_rng(0)
    costs, scores = rng.random(200), rng.random(200)
    finished, rule = records(costs, scores), SuccessiveHalving(reduction=3.0)
    goes_on = [score >= (threshold(rule, cost, finished) or -1.0) for cost, score in zip(costs, scores, strict=True)]
    assert np.mean(goes_on) == pytest.approx(1 / 3, abs=0.02)
    slow = [sum(c <= cost and s > score for c, s in zip(costs, scores, strict=True)) for cost, score in
            zip(costs, scores, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(_n_ahead(costs[:, np.newaxis], scores), slow)
    front = np.array(slow) == 0
    assert np.array(goes_on)[front].all()


def test_only_those_that_came_as_far_are_looked_at_and_enough_of_them():
    finished = [*records([1.0] * 7, range(7)), record(cost=1.0), record(score_at_1=3.0)]
    assert threshold(SuccessiveHalving(), 1.0, finished) is None
    assert threshold(SuccessiveHalving(n_finished=7), 1.0, finished) == 3.0
    assert SuccessiveHalving(n_finished=7).thresholds({}, finished, ["cost"], ["score@1"]) == {}


def test_each_stage_has_its_threshold():
    finished = [record(cost=1.0, score_at_1=i, score_at_2=10.0 + i) for i in range(8)]
    rule = SuccessiveHalving()
    assert rule.thresholds({"cost": 1.0}, finished, ["cost"], ["score@1", "score@2"]) == {"score@1": 4, "score@2": 14}


@pytest.mark.parametrize(("option", "value"), [("reduction", 1.0), ("n_finished", 0)])
def test_options_that_cannot_be_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        SuccessiveHalving(**{option: value})
