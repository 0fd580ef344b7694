import itertools
import logging

import numpy as np
import pytest

from nas.controllers import RandomSearch, SearchProblem, SurrogateNsga2
from nas.controllers.expected_gain import Outlook, by_expected_gain, expected_gain, points_beyond
from nas.values.objectives import Direction, Objective
from nas.values.pareto import hypervolume
from nas.values.records import Record, RecordState
from search_spaces.spaces.integers import Integers

OBJECTIVES = (Objective("score", Direction.MAXIMIZE), Objective("cost", Direction.MINIMIZE))
SPACE = Integers(n_genes=6, n_values=4)
REFERENCE = np.array([0.0, 40.0])


def metrics(genotype):
    """A score that saturates with what it costs, and turns on which genes hold it."""
    genes = np.array(genotype.genes)
    weights = np.array([5, 4, 3, 2, 1, 0])
    return {"score": float(np.sqrt(weights @ genes)), "cost": float((weights[::-1] + 1) @ genes)}


def known_costs(genotype):
    return {"cost": metrics(genotype)["cost"]}


def volume(controller, n, space=SPACE, seed=0, known=known_costs):
    controller.setup(SearchProblem(space, OBJECTIVES, seed, known_costs=known))
    losses = []
    while len(losses) < n:
        records = [
            Record(c, RecordState.COMPLETE, metrics(c.genotype), 0, 0) for c in controller.ask(controller.batch_size)
        ]
        controller.tell(records)
        losses += [(-r.metrics["score"], r.metrics["cost"]) for r in records]
    return hypervolume(np.array(losses), REFERENCE)


TRUE_VOLUME = hypervolume(
    np.array([(-m["score"], m["cost"]) for m in map(metrics, SPACE.enumerate())]), REFERENCE
)  # 4,096 genotypes


def test_forty_trainings_come_closer_to_the_true_front_than_four_hundred_at_random():
    assert volume(SurrogateNsga2(40), 40) > 0.95 * TRUE_VOLUME
    assert volume(RandomSearch(400), 400) < volume(SurrogateNsga2(40), 40)


@pytest.mark.parametrize("known", [known_costs, lambda genotype: {}], ids=["known costs", "no known costs"])
def test_a_space_too_large_to_score_is_searched_by_an_inner_nsga2(known):
    inner = volume(SurrogateNsga2(24, max_pool=100), 24, known=known)
    assert inner > volume(RandomSearch(24), 24) * 1.1


def expected_gain_by_sampling(outlook, rows, front, reference, n=4000):
    rng = np.random.default_rng(1)
    before = hypervolume(front, reference)
    draws = outlook.means[rows] + outlook.spreads[rows] * rng.normal(size=(n, len(rows), len(reference)))
    lives = rng.random((n, len(rows))) < outlook.chances[rows]
    return np.mean(
        [hypervolume(np.vstack([front, d[a]]), reference) - before for d, a in zip(draws, lives, strict=True)]
    )


def test_a_batch_is_the_one_that_gains_most_by_sampling():
    rng = np.random.default_rng(0)
    front = np.array([[0.2, 0.7], [0.6, 0.3]])
    reference = np.ones(2)
    means = rng.uniform(0, 1, (8, 2))
    outlook = Outlook(means, np.column_stack([np.full(8, 0.1), np.zeros(8)]), np.linspace(0.5, 1, 8))
    points = points_beyond(front, np.array([-0.4, 0.0]), reference, rng)
    first = next(by_expected_gain(outlook, front, points))
    gains = [expected_gain_by_sampling(outlook, [row], front, reference) for row in range(8)]
    assert gains[first] > 0.98 * max(gains)
    pair = list(itertools.islice(by_expected_gain(outlook, front, points), 2))
    pairs = [
        expected_gain_by_sampling(outlook, list(p), front, reference, 800) for p in itertools.combinations(range(8), 2)
    ]
    assert expected_gain_by_sampling(outlook, pair, front, reference) > 0.95 * max(pairs)
    box = np.prod(reference - np.array([-0.4, 0.0]))
    assert expected_gain(outlook, front, points, 2) == pytest.approx(
        max(pairs) / hypervolume(front, reference), rel=0.1
    )
    assert points.share == pytest.approx(1 - hypervolume(front, reference) / box, abs=0.01)


def test_nothing_is_proposed_where_nothing_is_to_gain():
    front = np.zeros((1, 2))
    outlook = Outlook(np.full((3, 2), 0.5), np.zeros((3, 2)), np.ones(3))
    points = points_beyond(front, np.full(2, -0.1), np.ones(2), np.random.default_rng(0))
    assert list(by_expected_gain(outlook, front, points)) == []


def test_an_unpredictable_score_is_searched_by_plain_nsga2_and_that_is_logged(caplog):
    controller = SurrogateNsga2(60, batch_size=10, n_initial=20)
    controller.setup(SearchProblem(SPACE, OBJECTIVES, 0, known_costs=known_costs))
    noise = np.random.default_rng(3)
    with caplog.at_level(logging.INFO):
        for _ in range(6):
            candidates = controller.ask(10)
            scores = [float(noise.normal()) for _ in candidates]
            controller.tell(
                [
                    Record(c, RecordState.COMPLETE, {"score": score, **known_costs(c.genotype)}, 0, 0)
                    for c, score in zip(candidates, scores, strict=True)
                ]
            )
    assert "the predictor ranks no better than chance: an NSGA-II step" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"interest": {"score": 0.0}}, "interest must be positive, got 0.0 for score"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SurrogateNsga2(**options)


@pytest.mark.parametrize(("n_told", "n", "n_bold"), [(12, 4, 1), (12, 3, 0), (15, 1, 1), (12, 9, 2)])
def test_every_fourth_candidate_is_chosen_by_doubting_the_model_more(monkeypatch, n_told, n, n_bold):
    doubts = []

    def fake_gain(outlook, front, points):
        doubts.append(outlook.spreads.max())
        first_row = 1000 * len(doubts)  # of the sober view, then of the bold one
        return iter(range(first_row, first_row + 50))

    monkeypatch.setattr("nas.controllers.surrogate_nsga2.by_expected_gain", fake_gain)
    controller = SurrogateNsga2(100)
    controller.setup(SearchProblem(SPACE, OBJECTIVES, 0, known_costs=known_costs))
    for size in (n_told, n):
        candidates = controller.ask(size)
        controller.tell([Record(c, RecordState.COMPLETE, metrics(c.genotype), 0, 0) for c in candidates])
    rows = [list(SPACE.enumerate()).index(candidate.genotype) for candidate in candidates]
    assert sum(row >= 2000 for row in rows) == n_bold
    assert doubts[1:] == [] or doubts[1] == pytest.approx(4 * doubts[0])
