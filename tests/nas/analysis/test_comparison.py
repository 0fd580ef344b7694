"""Runs side by side: figures that can be checked by hand, and what the table's searches say."""

import json
from pathlib import Path

import numpy as np
import pytest

import nas
from nas import api
from nas.analysis.comparison import Comparison
from nas.errors import InputError
from tests.nas.store.test_analysis_run import OBJECTIVES, A, B, C, record, run

ROOT = Path(__file__).parents[3]
BEST = record(7, 4.0, 1.0)


def compared(*groups):
    pairs = [(name, one) for name, members in groups for one in members]
    return Comparison.of([one for _, one in pairs], [name for name, _ in pairs])


def test_hypervolume_is_a_share_of_all_fronts_together():
    # Of the point (score 0, cost 10): A covers 8, BEST 4 x 9 = 36 and with it all of A.
    found = compared(("good", [run(BEST)]), ("poor", [run(A)]))
    assert found.reference_point == {"score": 0.0, "cost": 10.0}
    assert [group.name for group in found.groups] == ["good", "poor"]
    assert [group.shares.tolist() for group in found.groups] == [[[1.0]], [[pytest.approx(8 / 36)]]]
    (duel,) = found.duels
    assert (duel.dominated, duel.dominated_back, duel.wins, duel.p_value) == (1.0, 0.0, 1.0, None)
    assert "too few runs" in duel.verdict


def test_runs_that_ended_earlier_keep_their_last_value():
    found = compared(("long", [run(C, A, B)]), ("short", [run(A)]))
    assert next(group for group in found.groups if group.name == "short").shares.shape == (1, 3)


def test_without_a_common_point_one_beyond_all_fronts_is_taken():
    found = compared(("a", [run(A, reference_point={"score": 0.0, "cost": 3.0})]), ("b", [run(B)]))
    # the worst of scores 1 and 3 and of costs 2 and 6, and a tenth of the range more
    assert found.reference_point == {"score": pytest.approx(0.8), "cost": pytest.approx(6.4)}


@pytest.mark.parametrize(("n", "is_clear"), [(2, None), (4, True)])
def test_a_difference_is_tested_against_seeds(n, is_clear):
    good = [run(record(10 + i, 3.5 + 0.1 * i, 1.0)) for i in range(n)]
    poor = [run(record(20 + i, 1.0 + 0.1 * i, 2.0)) for i in range(n)]
    (duel,) = compared(("good", good), ("poor", poor)).duels
    assert (duel.p_value is not None) is bool(is_clear)
    if is_clear:
        assert duel.p_value == pytest.approx(2 / 70)  # of the 70 ways to draw 4 of 8, these two are as extreme
        assert duel.verdict.startswith("good is ahead of poor by more than seeds")


def test_equal_groups_are_no_more_than_seeds():
    runs = [run(record(10 + i, 2.0 + 0.1 * i, 1.0)) for i in range(4)]
    (duel,) = compared(("a", runs), ("b", runs)).duels
    assert duel.wins == 0.5
    assert "no more than seeds" in duel.verdict


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="at least two runs"):
        Comparison.of([run(A)], ["a"])
    with pytest.raises(InputError, match="optimises score .*: runs are compared by the same objectives"):
        Comparison.of([run(A), run(A, objectives=OBJECTIVES[:1])], ["a", "b"])
    with pytest.raises(InputError, match="the front is empty"):
        Comparison.of([run(A), run()], ["a", "b"])


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """Three controllers on the table of the repository, three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    controllers = [
        {"kind": "nsga2", "population_size": 10, "n_generations": 4},
        {"kind": "random", "n_candidates": 40},
    ]
    for seed in range(3):
        for options in controllers:
            config = {
                "name": "compared", "seed": seed, "tensorboard": False, "controller": options,
                "search_space": {"kind": "tabular", "path": str(ROOT / "configs" / "toy_table.npz")},
                "objectives": [
                    {"metric": "accuracy", "direction": "maximize"}, {"metric": "latency_ms", "direction": "minimize"},
                ],
                "reference_point": {"accuracy": 0, "latency_ms": 100},
            }  # fmt: skip
            nas.run_search(config, folder / f"{options['kind']}{seed}")
    return sorted(folder.glob("*[0-9]"))


def test_runs_are_grouped_by_a_key_of_their_configurations(searches, tmp_path):
    found = api.compare(searches, by="controller", path=tmp_path / "compare.html")
    assert {group.name: len(group.runs) for group in found.groups} == {"nsga2": 3, "random": 3}
    assert all(0 < group.shares[:, -1].min() <= group.shares.max() <= 1 + 1e-9 for group in found.groups)
    assert all((np.diff(group.shares) >= -1e-12).all() for group in found.groups)
    assert json.loads(json.dumps(found.to_plain()))["duels"][0]["p_value"] is not None
    assert (tmp_path / "compare.html").stat().st_size > 1e6
    assert {group.name for group in api.compare(searches, by="seed").groups} == {"0", "1", "2"}
    with pytest.raises(InputError, match="has no key 'wrong'"):
        api.compare(searches, by="wrong")
