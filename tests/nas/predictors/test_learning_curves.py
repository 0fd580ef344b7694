import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.predictors.learning_curves import CurvePredictor, LearningCurve, training_speed


def curves(n, seed=0, n_epochs=4):
    """Return trainings of different speeds and levels, and scores that both of them set."""
    rng = np.random.default_rng(seed)
    speed, level = rng.uniform(0.2, 1.0, n), rng.uniform(0.1, 0.5, n)
    epochs = np.arange(1, n_epochs + 1)
    made = [
        LearningCurve(tuple((b + 2.0 * np.exp(-a * epochs)).tolist()), (float(1 - b - np.exp(-2 * a)),))
        for a, b in zip(speed, level, strict=True)
    ]
    return made, 1.0 - level - 0.2 * np.exp(-5 * speed)


def test_training_speed_is_the_papers():
    assert training_speed([3.0, 2.0, 1.0]) == 6.0
    assert training_speed([3.0, 2.0, 1.0], fading=0.5) == 3.0 * 0.25 + 2.0 * 0.5 + 1.0


def test_it_ranks_trainings_that_it_has_not_seen():
    predictor = CurvePredictor()
    predictor.fit(*curves(40))
    unseen, finals = curves(60, seed=1)
    prediction = predictor.predict(unseen)
    assert kendalltau(prediction.mean, finals).statistic > 0.9
    assert np.abs(prediction.mean - finals).mean() < 2 * prediction.spread[0]


def test_held_out_is_what_a_fit_to_the_others_expects():
    seen, finals = curves(12)
    noisy = finals + np.random.default_rng(2).normal(0, 0.1, 12)
    predictor = CurvePredictor()
    predictor.fit(seen, noisy)
    held_out = predictor.held_out()
    assert np.abs(held_out - noisy).mean() > np.abs(predictor.predict(seen).mean - noisy).mean()
    other = noisy.copy()
    other[3] += 0.01  # its own score does not move what is expected of it but through the shared penalty
    predictor.fit(seen, other)
    assert predictor.held_out()[3] == pytest.approx(held_out[3], abs=1e-3)


def test_a_curve_of_one_epoch_and_no_score_will_do():
    predictor = CurvePredictor()
    predictor.fit([LearningCurve((loss,)) for loss in (1.0, 2.0, 3.0, 4.0)], np.array([0.9, 0.6, 0.4, 0.2]))
    mean = predictor.predict([LearningCurve((1.5,)), LearningCurve((3.5,))]).mean
    assert mean[0] > mean[1]


def test_equal_finals_are_expected_again():
    predictor = CurvePredictor()
    predictor.fit(curves(5)[0], np.full(5, 0.5))
    prediction = predictor.predict(curves(3, seed=4)[0])
    np.testing.assert_allclose(prediction.mean, 0.5)
    assert (prediction.spread > 0).all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="losses must hold at least one epoch's, got none"):
        LearningCurve(())
    with pytest.raises(ValueError, match="losses and scores must be finite"):
        LearningCurve((1.0, float("nan")))
    with pytest.raises(ValueError, match="curves must be at least 3, got 2"):
        CurvePredictor().fit(*[part[:2] for part in curves(3)])
    with pytest.raises(ValueError, match=r"equally many losses and equally many scores, got \[\(1, 0\), \(2, 0\)\]"):
        CurvePredictor().fit([LearningCurve((1.0,)), LearningCurve((1.0, 0.5)), LearningCurve((1.0,))], np.ones(3))
    predictor = CurvePredictor()
    predictor.fit(*curves(5))
    with pytest.raises(ValueError, match=r"curves must hold \(4, 1\) losses and scores, as fitted, got \(3, 1\)"):
        predictor.predict(curves(2, n_epochs=3)[0])
