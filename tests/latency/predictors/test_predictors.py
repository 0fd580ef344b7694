"""Predictors of latency on devices that are made up, whose truth is known."""

import numpy as np
import pytest

from latency.predictors import (
    Blend,
    BoostedTrees,
    Encodings,
    GaussianProcess,
    KnownDevices,
    Ridge,
    SequencePredictor,
    TableEncoder,
    most_informative,
)
from latency.predictors.blend import default_members

NAMES = ("none", "skip_connect", "conv_1x1", "conv_3x3", "pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
COSTS_MS = np.array([0.0, 0.1, 1.0, 3.0, 0.7])


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(0, 5, (n, 6))


def encoded(ops):
    arrays = {"ops": np.concatenate([ops, np.full((1, 6), 4)]), "op_names": np.array(NAMES), "edges": np.array(EDGES)}
    return TableEncoder.of(arrays).encode(ops)


def latencies(ops, noise=0.02, seed=1, costs=COSTS_MS):
    clean = 2 + costs[ops].sum(axis=1)
    return clean * np.random.default_rng(seed).normal(1, noise, len(ops))


def within(prediction, truth, share):
    return np.mean(np.abs(prediction.mean_ms / truth - 1) <= share)


def test_ten_readings_give_a_device_that_adds_up_its_operations():
    ops = rows(600)
    encodings, truth = encoded(ops), latencies(ops)
    chosen = most_informative(encodings, 10, measured=np.empty(0, int), rng=np.random.default_rng(0))
    process = GaussianProcess(encodings)
    process.fit(encodings.take(chosen), truth[chosen])
    said = process.predict(encodings)
    assert within(said, truth, 0.1) > 0.95
    assert np.corrcoef(said.mean_ms, truth)[0, 1] > 0.98


@pytest.mark.parametrize("make", [GaussianProcess, Ridge, BoostedTrees, Blend], ids=lambda make: make.__name__)
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_interval_holds_what_it_says_and_is_wider_for_noisier_readings(make, noise):
    ops = rows(700)
    encodings, truth = encoded(ops), latencies(ops, noise)
    predictor = make()
    predictor.fit(encodings.take(np.arange(200)), truth[:200])
    said = predictor.predict(encodings.take(np.arange(200, 700)))
    inside = np.mean((said.low_ms <= truth[200:]) & (truth[200:] <= said.high_ms))
    assert inside > (0.8 if make in (GaussianProcess, Blend) else 0.6)
    assert np.all(said.low_ms <= said.mean_ms)
    if make in (GaussianProcess, Blend):
        assert inside < 0.97
        assert np.median(said.spread_ms / said.mean_ms) == pytest.approx(noise, rel=0.5)


def test_one_reading_that_is_ten_times_off_changes_little():
    ops = rows(400)
    encodings, truth = encoded(ops), latencies(ops)
    disturbed = truth[:60].copy()
    disturbed[7] *= 10
    process = GaussianProcess()
    process.fit(encodings.take(np.arange(60)), disturbed)
    assert within(process.predict(encodings.take(np.arange(60, 400))), truth[60:], 0.1) > 0.9
    held_out = process.held_out()
    assert np.argmax(np.abs(disturbed - held_out.mean_ms) / held_out.spread_ms) == 7


def test_leave_one_out_is_what_a_process_without_that_reading_says():
    ops = rows(30)
    encodings, truth = encoded(ops), latencies(ops, 0.05)
    whole = GaussianProcess(encodings)
    whole.fit(encodings, truth)
    without = GaussianProcess(encodings)
    without.fit(encodings.take(np.arange(29)), truth[:29])
    said = without.predict(encodings.take([29]))
    assert whole.held_out().mean_ms[29] == pytest.approx(said.mean_ms[0], rel=0.1)


def test_choices_are_spread_and_beat_random_ones_in_the_mean():
    ops = rows(500)
    encodings = encoded(ops)
    errors = {"chosen": [], "random": []}
    for seed in range(8):
        truth = latencies(ops, 0.05, seed)
        rng = np.random.default_rng(seed)
        sets = {
            "chosen": most_informative(encodings, 10, measured=np.empty(0, int), rng=rng),
            "random": rng.permutation(500)[:10],
        }
        for name, chosen in sets.items():
            assert len(set(chosen)) == 10
            process = GaussianProcess(encodings)
            process.fit(encodings.take(chosen), truth[chosen])
            errors[name].append(np.abs(process.predict(encodings).mean_ms / truth - 1).mean())
    assert np.mean(errors["chosen"]) < np.mean(errors["random"])
    measured = np.arange(495)
    assert set(most_informative(encodings, 5, measured=measured, rng=np.random.default_rng(0))) == set(range(495, 500))
    with pytest.raises(ValueError, match="at most the 5 models that are left, got 6"):
        most_informative(encodings, 6, measured=measured, rng=np.random.default_rng(0))


def known(sources, shown):
    fitted = {}
    for name, readings in sources.items():
        fitted[name] = GaussianProcess(shown)
        fitted[name].fit(shown, readings)
    return KnownDevices(fitted, shown)


def test_near_devices_help_and_far_ones_do_no_harm():
    ops = rows(900)
    encodings = encoded(ops)
    rng = np.random.default_rng(0)
    odd = rng.normal(0, 0.4, (6, 5))[np.arange(6), ops].sum(axis=1)  # what takes how long where
    truth = latencies(ops, 0.02) + odd
    near = latencies(ops, 0.02, 5, 2 * COSTS_MS) + 2 * odd
    far = latencies(ops, 0.02, 6, np.array([3.0, 2.0, 0.1, 0.2, 5.0]))
    shown, scored = np.arange(300), np.arange(400, 900)
    measured = np.arange(300, 315)

    def error(sources):
        rows_ = known({k: v[shown] for k, v in sources.items()}, encodings.take(shown)).extended(encodings)
        rows_ = rows_ if sources else encodings
        blend = Blend(default_members(rows_))
        blend.fit(rows_.take(measured), truth[measured])
        return np.abs(blend.predict(rows_.take(scored)).mean_ms / truth[scored] - 1).mean()

    alone_blend = Blend(default_members(encodings))
    alone_blend.fit(encodings.take(measured), truth[measured])
    alone = np.abs(alone_blend.predict(encodings.take(scored)).mean_ms / truth[scored] - 1).mean()
    assert error({"near": near, "far": far}) < 0.6 * alone
    assert error({"far": far}) < 1.15 * alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "attention"])
def test_a_network_over_the_layers_learns_from_hundreds_of_readings(kind):
    ops = rows(800)
    encodings, truth = encoded(ops), latencies(ops)
    predictor = SequencePredictor(kind)
    predictor.fit(encodings.take(np.arange(400)), truth[:400])
    said = predictor.predict(encodings.take(np.arange(400, 800)))
    assert within(said, truth[400:], 0.1) > 0.9
    again = SequencePredictor(kind)
    again.fit(encodings.take(np.arange(400)), truth[:400])
    assert np.array_equal(again.predict(encodings.take(np.arange(400, 800))).mean_ms, said.mean_ms)


def test_a_network_over_the_layers_tells_sequences_of_unequal_length():
    lengths = np.random.default_rng(0).integers(1, 5, 60)
    tokens = np.zeros((60, 4, 2), np.float32)
    for row, n in enumerate(lengths):
        tokens[row, :n, 0] = 1
    encodings = Encodings({"operations": lengths[:, None].astype(float)}, tokens, lengths)
    predictor = SequencePredictor("lstm")
    predictor.fit(encodings, 1.0 + lengths)
    assert np.corrcoef(predictor.predict(encodings).mean_ms, lengths)[0, 1] > 0.95


def test_the_blend_takes_what_foretells_best():
    ops = rows(300)
    encodings, truth = encoded(ops), latencies(ops)
    blend = Blend()
    blend.fit(encodings.take(np.arange(80)), truth[:80])
    assert sum(blend.weights.values()) == pytest.approx(1)
    assert blend.weights["gaussian_process"] > 0.9
    assert "without_devices" not in blend.weights


def test_genes_that_are_numbers_are_read_as_numbers():
    rng = np.random.default_rng(0)
    ops = np.stack([rng.integers(1, 129, 200), rng.integers(0, 4, 200)], axis=1)
    truth = 1 + 0.05 * ops[:, 0] + np.array([0.0, 2.0, 0.5, 1.0])[ops[:, 1]]
    encoder = TableEncoder.of({"ops": ops})
    assert encoder.op_names == ()
    encodings = encoder.encode(ops)
    process = GaussianProcess(encodings)
    process.fit(encodings.take(np.arange(30)), truth[:30])
    assert within(process.predict(encodings), truth, 0.1) > 0.95


def test_operations_whose_result_nothing_reads_are_told_apart():
    ops = np.array([[3, 0, 0, 0, 0, 3], [3, 0, 0, 0, 3, 0]])  # a convolution into node 1 that leads nowhere, or on
    read = encoded(ops).groups["read"]
    assert read[:, 3].tolist() == [1.0, 2.0]  # the last edge's own convolution; both


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ops": np.zeros((3, 2))}, "ops must be integers"),
        ({"ops": np.array([[0, 3]]), "op_names": np.array(["a", "b"])}, "must name each of 4 values"),
        ({"ops": np.array([[0, 1]]), "edges": np.zeros((3, 2), int)}, r"edges must be of the shape \(2, 2\)"),
    ],
)
def test_tables_of_another_form_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        TableEncoder.of(arrays)


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        ([1.0, 2.0], "at least 3 readings, got 2"),
        ([1.0, 2.0, 0.0], "positive and finite, got 0.0 for model 2"),
        ([1.0, 2.0, np.nan], "positive and finite, got nan"),
    ],
)
@pytest.mark.parametrize("make", [GaussianProcess, Ridge, Blend])
def test_what_is_no_latency_is_refused(make, readings, message):
    with pytest.raises(ValueError, match=message):
        make().fit(encoded(rows(len(readings))), np.array(readings))
