"""The rule by which examples are set aside."""

import numpy as np
import pytest

from nas.data import Split
from nas.data.splits import SplitRule, choose_validation


def test_validation_takes_its_share_of_each_class():
    labels = [0] * 20 + [1] * 50 + [2] * 2 + [3]
    chosen = choose_validation(labels, 0.1, seed=0)
    assert np.bincount(np.array(labels)[chosen], minlength=4).tolist() == [2, 5, 1, 0]
    assert np.array_equal(chosen, choose_validation(labels, 0.1, seed=0))
    assert not np.array_equal(chosen, choose_validation(labels, 0.1, seed=1))


def test_both_sides_of_a_class_keep_an_example():
    assert choose_validation([7, 7, 7], 0.99, seed=0).sum() == 2


@pytest.mark.parametrize("has_validation", [True, False])
def test_every_example_goes_to_one_split(has_validation):
    labels = [0] * 30 + [1] * 10
    rows = SplitRule(0.2, 0.1, seed=3).divide(labels, has_validation=has_validation)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(40))
    n_test = [3, 1]
    n_validation = [0, 0] if has_validation else [5, 2]  # a fifth of the 27 and 9 that are left
    for split, expected in ((Split.TEST, n_test), (Split.VALIDATION, n_validation)):
        assert np.bincount(np.array(labels)[rows[split]], minlength=2).tolist() == expected


def test_a_test_share_leaves_the_choice_without_one_as_it_was():
    labels = [0] * 30 + [1] * 10
    chosen = choose_validation(labels, 0.1, seed=5)
    rows = SplitRule(0.1, 0.0, seed=5).divide(labels, has_validation=False)
    assert rows[Split.VALIDATION].tolist() == np.flatnonzero(chosen).tolist()
    assert rows[Split.TEST].tolist() == []


def test_the_rule_is_told():
    rule = SplitRule(0.2, 0.1, seed=3)
    numbers = {Split.TRAIN: 29, Split.VALIDATION: 7, Split.TEST: 4}
    assert rule.sentence("train/", numbers, {}) == (
        "Data: 29 for training (train/), 7 for validation (0.2 of train/, chosen by seed 3); "
        "4 for the test (0.1 of train/, chosen by seed 3)."
    )
    assert SplitRule().sentence("train/", numbers, {Split.VALIDATION: "val/", Split.TEST: "test/"}) == (
        "Data: 29 for training (train/), 7 for validation (val/); the test is in test/."
    )
    assert "no test split" in SplitRule().sentence("train/", numbers, {})
