import os
from pathlib import Path

import numpy as np
import pytest

from nas.analysis.benchmark import TrueFront, median_of_reached
from search_spaces import Tabular

# A staircase (error, cost) with a broken network, a point dominated, and one front point twice.
LOSSES = np.array([[5.0, 4.0], [6.0, 2.0], [6.0, 2.0], [9.0, 1.0], [50.0, 0.0], [7.0, 3.0]])
TRUTH = TrueFront.of(LOSSES, usable=5.0)


def test_the_box_holds_what_is_usable():
    assert TRUTH.front.tolist() == [[5.0, 4.0], [6.0, 2.0], [9.0, 1.0]]
    assert TRUTH.ideal.tolist() == [5.0, 1.0]
    assert TRUTH.reference_point.tolist() == [10.0, 4.0]


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        ([0, 1, 2, 3, 4, 5], 1.0),
        ([1], 8 / 9),  # 4 x 2 of 4 x 2 + 1 x 1
        ([3], 3 / 9),
        ([5], 3 / 9),
        ([0, 4], 0.0),  # the largest cost and the broken one add no volume
    ],
)
def test_hypervolume_share_counts_the_volume_by_hand(rows, share):
    assert TRUTH.hypervolume_share(LOSSES[rows]) == pytest.approx(share)


def test_igd_plus_and_front_share_by_hand():
    assert TRUTH.igd_plus(LOSSES) == 0.0
    assert TRUTH.front_share(LOSSES) == 1.0
    # From (6, 2): 1/5 worse than (5, 4) in error; equal to itself; 1/3 worse than (9, 1) in cost.
    assert TRUTH.igd_plus(LOSSES[[1]]) == pytest.approx((1 / 5 + 0 + 1 / 3) / 3)
    assert TRUTH.front_share(LOSSES[[1]]) == pytest.approx(1 / 3)


def test_trainings_are_counted_to_the_one_that_reaches_it():
    order = LOSSES[[4, 5, 1, 0, 3]]
    counts = [TRUTH.trainings_to(order, share) for share in (0.2, 0.5, 0.95)]
    slow = [next(n for n in range(1, 6) if TRUTH.hypervolume_share(order[:n]) >= s) for s in (0.2, 0.5, 0.95)]
    assert counts == slow == [2, 3, 5]
    assert TRUTH.trainings_to(order[:4], 0.95) is None


def test_a_median_counts_those_that_never_got_there():
    assert median_of_reached([10, 30, 20]) == 20
    assert median_of_reached([10, 20, None]) == 20
    assert median_of_reached([10, 20, 30, None]) == 25
    assert median_of_reached([10, None, None]) is None
    assert median_of_reached([10, 20, None, None]) is None


def test_a_front_of_one_point_has_no_volume_and_counts_points():
    truth = TrueFront.of(np.array([[1.0, 1.0], [2.0, 2.0]]), usable=5.0)
    assert truth.hypervolume_share(np.array([[1.0, 1.0]])) == 1.0
    assert truth.hypervolume_share(np.array([[2.0, 2.0]])) == 0.0


def test_usable_must_be_positive():
    with pytest.raises(ValueError, match="usable must be positive, got 0"):
        TrueFront.of(LOSSES, usable=0)


@pytest.mark.realdata
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_random_search_on_the_published_table_is_where_an_independent_measurement_found_it():
    table = Tabular(Path(os.environ["NAS_DATA_ROOT"]) / "nasbench201" / "nasbench201_cifar10.npz")
    losses = np.column_stack([100 - table.columns["acc200_cifar10_valid"], table.columns["lat_ms_1080ti_1"]])
    truth = TrueFront.of(losses, usable=5.0)
    orders = [np.random.default_rng(seed).permutation(len(losses)) for seed in range(8)]
    shares = [np.median([truth.hypervolume_share(losses[order[:n]]) for order in orders]) for n in (50, 100, 200)]
    np.testing.assert_allclose(shares, [0.708, 0.745, 0.831], atol=0.0005)
