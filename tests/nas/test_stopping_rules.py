"""Candidates are compared with those that cost about the same."""

import numpy as np
import pytest

from nas.records import Candidate, Record, RecordState
from nas.stopping_rules import DropRule, interim_metric
from search_spaces import Integers

SPACE = Integers(n_genes=1, n_values=1000)
COSTS, INTERIM = ("n_params",), (interim_metric("mean_iou", 1),)


def record(number, state=RecordState.COMPLETE, **metrics):
    named = {name.replace("_at_1", "@1"): value for name, value in metrics.items()}
    return Record(Candidate.create(SPACE, SPACE.genotype((number,)), 0), state, named, number, batch=0)


def front(n=20):
    """Records whose score grows with their cost, as on a front."""
    return [record(i, n_params=1000 * (i + 1), mean_iou_at_1=i / n) for i in range(n)]


def test_the_threshold_is_the_quantile_of_the_nearest_in_cost():
    rule = DropRule(quantile=0.25, n_peers=4)
    found = rule.thresholds({"n_params": 10_500}, front(), COSTS, INTERIM)
    # Between the tenth and the eleventh: peers are those of 9,000 to 12,000 parameters.
    assert found == {"mean_iou@1": pytest.approx(np.quantile([0.40, 0.45, 0.50, 0.55], 0.25))}


def test_the_cheap_end_of_the_front_goes_on():
    rule = DropRule(quantile=0.25, n_peers=4)
    cheap, dear = (rule.thresholds({"n_params": n}, front(), COSTS, INTERIM)["mean_iou@1"] for n in (500, 50_000))
    assert cheap < 0.05  # a rule on the score alone would ask for 0.24 of it
    assert dear > 0.8


def test_nobody_is_dropped_before_there_are_enough_peers():
    rule = DropRule(n_peers=8)
    without = [record(30 + i, RecordState.INFEASIBLE, n_params=10) for i in range(10)]
    assert rule.thresholds({"n_params": 1}, [*front(7), *without], COSTS, INTERIM) == {}
    assert rule.thresholds({"n_params": 1}, front(8), COSTS, INTERIM).keys() == {"mean_iou@1"}
    assert rule.thresholds({}, front(8), COSTS, INTERIM) == {}


def test_pruned_records_are_peers_too():
    records = [record(i, RecordState.PRUNED, n_params=5, mean_iou_at_1=0.5) for i in range(8)]
    assert DropRule().thresholds({"n_params": 5}, records, COSTS, INTERIM) == {"mean_iou@1": 0.5}


def test_several_costs_count_by_rank():
    records = [record(i, a=10.0**i, b=-i, mean_iou_at_1=float(i)) for i in range(9)]
    rule = DropRule(quantile=0.5, n_peers=3)
    assert rule.thresholds({"a": 10.0**4, "b": -4}, records, ("a", "b"), INTERIM) == {"mean_iou@1": 4.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"quantile": 1.0}, "quantile must be more than 0 and less than 1"), ({"n_peers": 0}, "n_peers must be at least")],
)
def test_rules_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DropRule(**options)
