import numpy as np
import pytest

from nas.predictors import FeatureEncoder, FeatureGroups, GaussianProcess, Predictor, Trees
from nas.predictors.gaussian_process import _negative_log_posterior
from search_spaces import Integers, NasBench201

PREDICTORS = {
    "gaussian_process": GaussianProcess,
    "trees": Trees,
}
every_predictor = pytest.mark.parametrize("make", PREDICTORS.values(), ids=PREDICTORS)


def smooth_problem(n, seed=0):
    inputs = np.random.default_rng(seed).uniform(-1, 1, (n, 3))
    return FeatureGroups({"a": inputs[:, :2], "b": inputs[:, 2:]}), np.sin(2 * inputs[:, 0]) + inputs[:, 2] ** 2


@every_predictor
def test_ranks_what_it_has_not_seen(make):
    predictor: Predictor = make()
    predictor.fit(*smooth_problem(80))
    features, values = smooth_problem(200, seed=1)
    prediction = predictor.predict(features)
    assert np.corrcoef(prediction.mean, values)[0, 1] > 0.9
    assert (prediction.spread > 0).all()


@every_predictor
def test_held_out_means_are_worse_than_fitted_ones_and_better_than_none(make):
    features, values = smooth_problem(60)
    predictor: Predictor = make()
    predictor.fit(features, values)
    fitted, held_out = predictor.predict(features).mean, predictor.held_out()
    assert np.abs(fitted - values).mean() < np.abs(held_out - values).mean() < np.abs(values - values.mean()).mean()


@every_predictor
def test_is_a_function_of_what_it_was_fitted_to_and_changes_none_of_it(make):
    features, values = smooth_problem(30)
    kept = features.matrix.copy(), values.copy()
    predictions = []
    for _ in range(2):
        predictor = make()
        predictor.fit(features, values)
        predictions.append(predictor.predict(features).mean)
    np.testing.assert_array_equal(*predictions)
    np.testing.assert_array_equal(features.matrix, kept[0])
    np.testing.assert_array_equal(values, kept[1])


@every_predictor
def test_copes_with_equal_values_and_constant_features(make):
    predictor = make()
    features = FeatureGroups({"a": np.ones((4, 2))})
    predictor.fit(features, np.full(4, 3.0))
    np.testing.assert_allclose(predictor.predict(features).mean, 3.0)


def test_leave_one_out_agrees_with_leaving_one_out():
    features, values = smooth_problem(12)
    process = GaussianProcess()
    process.fit(features, values)
    parameters, held_out = process._parameters, process.held_out()
    kernel = np.linalg.inv(process._precision)
    targets = (values - values.mean()) / values.std()
    for left in range(12):
        rest = np.arange(12) != left
        mean = kernel[left, rest] @ np.linalg.solve(kernel[np.ix_(rest, rest)], targets[rest])
        assert held_out[left] == pytest.approx(mean * values.std() + values.mean())
    assert len(parameters) == 5  # two amplitudes, two lengths, noise


def test_the_posterior_has_the_gradient_that_differences_give():
    rng = np.random.default_rng(0)
    distances = [((a[:, np.newaxis] - a) ** 2) for a in rng.normal(size=(2, 8))]
    rest = (distances, rng.normal(size=8), np.zeros(5), np.ones(5))
    start = rng.normal(size=5) * 0.3
    _, gradient = _negative_log_posterior(start, *rest)
    for index in range(5):
        step = np.eye(5)[index] * 1e-5
        slope = (
            _negative_log_posterior(start + step, *rest)[0] - _negative_log_posterior(start - step, *rest)[0]
        ) / 2e-5
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_learns_from_the_smallest_values_and_from_all_ranks_behind_them_where_there_are_too_many():
    features, values = smooth_problem(50)
    process = GaussianProcess(n_max=20)
    process.fit(features, values)
    known = np.flatnonzero(np.isfinite(process.held_out()))
    ranks = sorted(np.argsort(np.argsort(values))[known].tolist())
    assert ranks[:10] == list(range(10))
    assert len(ranks) == 20
    assert ranks[10] == 10 and ranks[-1] == 49 and max(np.diff(ranks)) <= 5


def test_equal_cells_have_equal_features_and_others_do_not():
    space = NasBench201()
    encoder = FeatureEncoder(space)
    text = "|{}~0|+|none~0|{}~1|+|nor_conv_3x3~0|none~1|none~2|"
    dead = [text.format("nor_conv_1x1", "avg_pool_3x3"), text.format("none", "none")]
    live = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|"
    rows = encoder.encode([space.from_string(cell) for cell in (*dead, live)]).matrix
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()


def test_features_of_a_grid_are_its_genes():
    space = Integers(n_genes=2, n_values=5)
    features = FeatureEncoder(space).encode([space.genotype([0, 4]), space.genotype([2, 2])])
    np.testing.assert_array_equal(features.columns["genes"], [[0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(features.columns["operations"], [[1, 0, 0, 0, 1], [0, 0, 2, 0, 0]])
    assert features.columns.keys() == {"genes", "operations"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Trees(n_trees=0), "n_trees must be at least 1, got 0"),
        (lambda: GaussianProcess(n_max=1), "n_max must be at least 2, got 1"),
    ],
)
def test_options_that_cannot_be_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_gene_of_many_integers_that_nobody_marked_is_one_number():
    space = Integers(n_genes=2, n_values=129, ordinal=False)
    features = FeatureEncoder(space).encode([space.genotype([0, 128]), space.genotype([64, 64])])
    assert {name: columns.tolist() for name, columns in features.columns.items()} == {"genes": [[0, 1], [0.5, 0.5]]}
    few = Integers(n_genes=2, n_values=4, ordinal=False)
    groups = FeatureEncoder(few).encode([few.genotype([0, 3])]).columns
    assert {name: columns.shape for name, columns in groups.items()} == {"genes": (1, 8), "operations": (1, 4)}
