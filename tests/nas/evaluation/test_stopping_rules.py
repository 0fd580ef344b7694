"""Candidates are compared with those that cost about the same."""

import numpy as np
import pytest

from nas.evaluation.stopping_rules import DropRule, interim_metric
from nas.values.records import Candidate, Record, RecordState
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


def test_who_is_as_good_as_the_front_at_its_cost_goes_on():
    """At the cheap end all peers are dearer: a rule on their scores alone would drop whom nobody beats."""
    rule = DropRule(quantile=0.25, n_peers=8)
    for n in (16, 24, 160):
        finished = front(n)
        for n_params in range(1000, 1000 * n + 1, 500):
            threshold = rule.thresholds({"n_params": n_params}, finished, COSTS, INTERIM)["mean_iou@1"]
            assert threshold <= (n_params / 1000 - 1) / n + 1e-12


def test_who_is_clearly_behind_is_dropped_wherever_somebody_costs_no_more():
    rule = DropRule(quantile=0.75, n_peers=4)
    cheaper, cheap, dear = (rule.thresholds({"n_params": n}, front(), COSTS, INTERIM) for n in (500, 2000, 50_000))
    assert cheaper == {}
    assert cheap == {"mean_iou@1": 0.05}  # the better of the two that cost no more, not 0.1125 of the peers
    assert dear["mean_iou@1"] > 0.8


def test_nobody_is_dropped_whom_no_finished_one_beats_at_the_same_or_lower_costs():
    rng = np.random.default_rng(0)
    finished = [record(i, a=a, b=b, mean_iou_at_1=y) for i, (a, b, y) in enumerate(rng.random((60, 3)))]
    rule = DropRule(quantile=0.9, n_peers=4)
    n_thresholds = 0
    for a, b in rng.random((300, 2)):
        threshold = rule.thresholds({"a": a, "b": b}, finished, ("a", "b"), INTERIM).get("mean_iou@1")
        beaten_by = [r.metrics["mean_iou@1"] for r in finished if r.metrics["a"] <= a and r.metrics["b"] <= b]
        assert (threshold is None) == (not beaten_by)
        if threshold is not None:
            assert threshold <= max(beaten_by)
            n_thresholds += 1
    assert n_thresholds > 200


def test_the_cheap_third_is_dropped_about_as_often_as_the_others():
    """As `quantile` of each, over 100 searches whose scores grow with the logarithm of the cost."""
    rule, n_asked, n_dropped = DropRule(), np.zeros(3), np.zeros(3)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        share = rng.random(64)
        costs = (8000 * 25**share)[:, np.newaxis]
        scores = 0.14 * share + rng.normal(0, 0.02, 64)
        for i in range(16, 64):
            n_finished = i // 16 * 16
            third = int(3 * share[i])
            threshold = rule._threshold(costs[i], costs[:n_finished], scores[:n_finished])
            n_asked[third] += 1
            n_dropped[third] += threshold is not None and scores[i] < threshold
    assert n_dropped / n_asked == pytest.approx([0.25] * 3, abs=0.08)


def test_nobody_is_dropped_before_there_are_enough_peers():
    rule = DropRule(n_peers=8)
    without = [record(30 + i, RecordState.INFEASIBLE, n_params=10) for i in range(10)]
    assert rule.thresholds({"n_params": 9000}, [*front(15), *without], COSTS, INTERIM) == {}
    assert rule.thresholds({"n_params": 9000}, front(16), COSTS, INTERIM).keys() == {"mean_iou@1"}
    assert rule.thresholds({}, front(16), COSTS, INTERIM) == {}


def test_pruned_records_are_peers_too():
    records = [record(i, RecordState.PRUNED, n_params=5, mean_iou_at_1=0.5) for i in range(16)]
    assert DropRule().thresholds({"n_params": 5}, records, COSTS, INTERIM) == {"mean_iou@1": 0.5}


def test_several_costs_count_by_rank():
    records = [record(i, a=10.0**i, b=5 * i, mean_iou_at_1=float(i)) for i in range(9)]
    rule = DropRule(quantile=0.5, n_peers=3)
    assert rule.thresholds({"a": 10.0**4, "b": 20}, records, ("a", "b"), INTERIM) == {"mean_iou@1": 4.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"quantile": 1.0}, "quantile must be more than 0 and less than 1"), ({"n_peers": 0}, "n_peers must be at least")],
)
def test_rules_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DropRule(**options)
