import numpy as np
import pytest

from nas.predictors import Prediction
from nas.predictors.quality import PredictorQuality


def quality(means, losses, k=2, spread=1.0):
    means = np.array(means, dtype=float)
    return PredictorQuality.of(Prediction(means, np.full(len(means), spread)), np.array(losses, dtype=float), k)


def test_ranks_by_hand():
    # Of six pairs one is the wrong way round; the expected best two are rows 1 and 0, the true ones 0 and 2.
    found = quality([2, 1, 3, 4], [1, 3, 2, 4])
    assert found.kendall_tau == pytest.approx((4 - 2) / 6)
    assert found.spearman == pytest.approx(1 - 6 * (1 + 4 + 1 + 0) / (4 * 15))
    assert found.precision_at_k == 0.5
    assert found.n_at_k == 1
    assert quality([2, 1, 3, 4], [1, 3, 2, 4], k=1).n_at_k == 3


def test_honest_spread_is_calibrated_and_a_boastful_one_is_not():
    rng = np.random.default_rng(0)
    means = rng.normal(size=20_000)
    losses = means + rng.normal(size=20_000)
    assert quality(means, losses).calibration_error < 0.01
    assert quality(means, losses, spread=0.1).calibration_error > 0.3


@pytest.mark.parametrize(("k", "message"), [(0, "k must lie in 1 .. 3, got 0"), (4, "k must lie in 1 .. 3, got 4")])
def test_k_outside_is_refused(k, message):
    with pytest.raises(ValueError, match=message):
        quality([1, 2, 3], [1, 2, 3], k=k)
