"""Encoding models against a slow, literal transcription of the published protocol."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.linear_model import Ridge

from analysis_lib import data, device, encoding
from analysis_lib.encoding import PAPER_ALPHAS, aggregate, nested_cv_ridge
from analysis_lib.errors import (
    AlignmentError,
    DataError,
    MemoryBudgetError,
    ParameterError,
    UnknownNameError,
)


def r2(y, predicted):
    """Squared Pearson correlation, 0 where it is negative or undefined."""
    if np.std(y) == 0 or np.std(predicted) < 1e-12 * np.std(y):
        return 0.0
    return max(0.0, np.corrcoef(y, predicted)[0, 1]) ** 2


def fit_predict(x, y, train, test, alpha):
    x_mean, y_mean = x[train].mean(axis=0), y[train].mean()
    ridge = Ridge(alpha=alpha).fit(x[train] - x_mean, y[train] - y_mean)
    return ridge.predict(x[test] - x_mean) + y_mean


def literal_protocol(layers, y, folds, alphas=PAPER_ALPHAS, greedy=True):
    """One voxel, one configuration, one fold at a time.

    Returns the score, the out-of-fold predictions, and the (layer, alpha) of each outer fold.
    """
    prediction, chosen = np.full(len(y), np.nan), []
    for outer in np.unique(folds):
        training = folds != outer

        def inner_score(layer, alpha, outer=outer, training=training):
            held_out = np.full(len(y), np.nan)
            for inner in np.unique(folds[training]):
                test = folds == inner
                held_out[test] = fit_predict(layers[layer], y, training & ~test, test, alpha)
            return r2(y[training], held_out[training])

        best_score, best_alpha, best_layer = -1.0, None, None
        for alpha in alphas:
            for layer in layers:
                score = inner_score(layer, alpha)
                if score > best_score:
                    best_score, best_alpha, best_layer = score, alpha, layer
        for edge, factor in ((min(alphas), 0.5), (max(alphas), 2.0)):
            while greedy and best_alpha == edge and 1e-49 < edge < 1e50:
                edge *= factor
                score = inner_score(best_layer, edge)
                if score > best_score * (1 + 1e-12):
                    best_score, best_alpha = score, edge
        prediction[~training] = fit_predict(layers[best_layer], y, training, ~training, best_alpha)
        chosen.append((best_layer, best_alpha))
    return r2(y, prediction), prediction, chosen


def assert_literal(result, layers, responses, folds, targets, rounding=1e-6, **options):
    """Compare; penalties below ``rounding`` all predict the same, and chance picks one of them."""
    for target in targets:
        y = responses[:, target]
        score, prediction, chosen = literal_protocol(layers, y, folds, **options)
        ours = result.isel(target=target)
        assert abs(float(ours["score"]) - score) <= 1e-6
        assert np.abs(ours["prediction"].values - prediction).max() <= 1e-6 * y.std()
        assert ours["layer"].values.tolist() == [layer for layer, _ in chosen]
        literal = np.array([alpha for _, alpha in chosen])
        decided = literal > rounding
        np.testing.assert_allclose(ours["alpha"].values[decided], literal[decided], rtol=1e-9)


@pytest.fixture(scope="module")
def simulated():
    """Planted layers, voxels of four areas with their repetitions, and folds, all plain."""
    sounds = data.simulated_sounds()
    layers = data.planted_features(sounds)
    voxels = data.plant(layers, sounds.names, n_subjects=1, n_voxels=8, n_null=4)
    return layers, voxels, data.folds("stratified", sounds)


@pytest.fixture(scope="module")
def small():
    """Three random layers; responses driven by the second, by all, and by none."""
    rng = np.random.default_rng(0)
    layers = {f"layer{i}": rng.standard_normal((40, d)) for i, d in enumerate((5, 12, 60))}
    driven = layers["layer1"] @ rng.standard_normal((12, 4))
    both = sum(x @ rng.standard_normal((x.shape[1], 2)) / x.shape[1] for x in layers.values())
    y = np.c_[driven, both, np.zeros((40, 2))]
    return layers, y + 0.5 * rng.standard_normal(y.shape), np.arange(40) % 4


@pytest.fixture(scope="module")
def natural():
    """Three layers of the natural sounds, and the published folds."""
    sounds = data.natural_sounds()
    return data.planted_features(sounds), data.folds("pepino", sounds).values


@pytest.mark.parametrize("name, targets", [
    ("nh2015-components", range(6)), ("nh2015-reconstructed", range(0, 11_065, 1100)),
])  # fmt: skip
def test_literal_protocol_on_the_published_responses(real_data, request, name, targets):
    layers, folds = request.getfixturevalue("natural")
    responses = data.responses(name).values[:, list(targets)]
    result = nested_cv_ridge(layers, responses, folds)
    assert_literal(result, layers, responses, folds, range(responses.shape[1]))


def test_literal_protocol_on_simulated_voxels(simulated):
    layers, voxels, folds = simulated
    result = nested_cv_ridge(layers, voxels, folds)
    mean = voxels.mean("repetition").values
    assert_literal(result, layers, mean, folds.values, [0, 8, 16, 24, 32])


@pytest.mark.parametrize("scales", [(1, 1, 1), (1e-4, 1, 1e4), (1e4, 1e-4, 1e-2)])
def test_literal_protocol_whatever_the_scale_of_the_features(small, scales):
    layers, y, folds = small
    layers = {name: c * x for c, (name, x) in zip(scales, layers.items(), strict=True)}
    result = nested_cv_ridge(layers, 100 + 1e-3 * y, folds)
    assert_literal(result, layers, 100 + 1e-3 * y, folds, [0, 4, 6], rounding=1.0)


def test_literal_protocol_with_unequal_folds_within_the_grid(small):
    layers, y, _ = small
    folds = np.repeat([7, 3, 11, 2, 5], [2, 6, 9, 11, 12])
    options = dict(alphas=(10.0, 0.1, 1.0), extend="none")
    result = nested_cv_ridge(layers, y, folds, **options)
    assert_literal(result, layers, y, folds, [1, 5, 7], alphas=(10.0, 0.1, 1.0), greedy=False)
    assert set(np.unique(result["alpha"])) <= {0.1, 1.0, 10.0}


def test_penalties_beyond_the_grid_are_reached_only_when_asked(small):
    layers, _, folds = small
    exact = layers["layer1"] @ np.ones((12, 1))  # no noise: the smaller the penalty the better
    noise = np.random.default_rng(3).standard_normal((40, 20))
    y = np.c_[exact, noise]
    greedy, none = (nested_cv_ridge(layers, y, folds, extend=rule) for rule in ("greedy", "none"))
    assert (greedy["alpha"][:, 0] < 1e-3).all() and (none["alpha"][:, 0] == 0.01).all()
    assert float(greedy["alpha"].max()) > 50 and float(none["alpha"].max()) == 50
    improved = greedy["inner_score"].values - none["inner_score"].values
    assert (improved >= 0).all() and (improved[greedy["alpha"] > 50] > 0).all()
    at_edges = nested_cv_ridge(layers, y, folds, alphas=[1.0])  # a grid that is all edge
    assert_literal(at_edges, layers, y, folds, [0, 3], alphas=(1.0,))


def test_planted_layers_are_recovered(simulated):
    layers, voxels, folds = simulated
    result = nested_cv_ridge(layers, voxels, folds)
    driven = result["planted_layer"] != "none"
    hits = (result["layer"] == result["planted_layer"]).sel(target=driven)
    assert float(hits.mean()) > 0.9
    assert (hits.groupby("roi").mean().mean("fold") > 0.8).all()
    assert float(result["score"].sel(target=driven).median()) > 0.4
    assert float(result["score"].sel(target=~driven).median()) < 0.1
    assert (result["score"] <= 1).all()


def test_scores_are_those_of_the_predictions_that_are_returned(small):
    layers, y, folds = small
    result = nested_cv_ridge(layers, y, folds)
    expected = [r2(y[:, v], result["prediction"].values[:, v]) for v in range(y.shape[1])]
    np.testing.assert_allclose(result["score"], expected, atol=1e-12)
    assert result["layer"].dims == result["alpha"].dims == ("fold", "target")
    assert result.sizes == {"sound": 40, "target": 8, "fold": 4}


def assert_same(one, other, targets=slice(None), other_targets=slice(None)):
    one, other = one.isel(target=targets), other.isel(target=other_targets)
    np.testing.assert_allclose(one["score"], other["score"], atol=1e-12)
    np.testing.assert_allclose(one["prediction"], other["prediction"], atol=1e-10)
    np.testing.assert_array_equal(one["layer"], other["layer"])


def test_nan_and_constant_targets_do_not_touch_the_others(small, caplog):
    layers, y, folds = small
    spoilt = y.copy()
    spoilt[3, 2], spoilt[:, 5] = np.nan, 0.1
    result = nested_cv_ridge(layers, spoilt, folds)
    others = [0, 1, 3, 4, 6, 7]
    assert_same(result, nested_cv_ridge(layers, y, folds), others, others)
    nan, constant = result.isel(target=2), result.isel(target=5)
    for name in ("score", "prediction", "alpha", "inner_score"):
        assert nan[name].isnull().all()
    assert (nan["layer"] == "").all() and (constant["layer"] == "").all()
    assert float(constant["score"]) == 0 and (constant["prediction"] == 0.1).all()
    assert "1 of 8 targets hold NaN: their results are NaN" in caplog.text
    assert "1 targets are constant: their score is 0" in caplog.text


def test_nothing_to_predict():
    with pytest.raises(DataError, match="every target is constant or holds NaN"):
        nested_cv_ridge({"a": np.eye(9)}, np.full((9, 2), np.nan), np.arange(9) % 3)


def test_rows_in_another_order_give_the_same_result_by_name(simulated):
    layers, voxels, folds = simulated
    voxels = voxels.mean("repetition")
    rng = np.random.default_rng(0)
    named = {
        layer: xr.DataArray(x, dims=("sound", "unit"), coords={"sound": voxels["sound"]})
        for layer, x in layers.items()
    }
    shuffled = {layer: x.isel(sound=rng.permutation(60)) for layer, x in named.items()}
    expected = nested_cv_ridge(layers, voxels.values, folds.values)
    result = nested_cv_ridge(shuffled, voxels, folds.isel(sound=rng.permutation(60)))
    assert_same(result, expected)
    backwards = nested_cv_ridge(named, voxels[::-1], folds)
    np.testing.assert_allclose(backwards["prediction"][::-1], expected["prediction"], atol=1e-8)
    assert list(result["sound"].values) == list(voxels["sound"].values)
    assert list(result["roi"].values) == list(voxels["roi"].values)


def test_a_sound_without_features_or_fold_is_named(simulated):
    layers, voxels, folds = simulated
    with pytest.raises(AlignmentError, match="folds lacks 1 of 60 sounds: speech_03"):
        nested_cv_ridge(layers, voxels, folds.drop_sel(sound="speech_03"))
    renamed = folds.assign_coords(sound=[f"{name}x" for name in folds["sound"].values])
    with pytest.raises(AlignmentError, match="folds lacks 60 of 60 sounds: speech_01"):
        nested_cv_ridge(layers, voxels, renamed)


@pytest.mark.parametrize("n_targets_batch", [1, 3, 8, 100])
def test_the_number_of_targets_at_a_time_does_not_matter(small, n_targets_batch):
    layers, y, folds = small
    batched = nested_cv_ridge(layers, y, folds, n_targets_batch=n_targets_batch)
    assert_same(batched, nested_cv_ridge(layers, y, folds))


def test_repetitions_are_averaged(small):
    layers, y, folds = small
    wobble = np.random.default_rng(1).standard_normal(y.shape)
    repeated = np.stack([y + wobble, y - wobble], axis=2)
    assert_same(nested_cv_ridge(layers, repeated, folds), nested_cv_ridge(layers, y, folds))


def test_the_first_of_equal_layers_is_chosen(small):
    layers, y, folds = small
    twice = {"first": layers["layer1"], "second": layers["layer1"].copy()}
    assert (nested_cv_ridge(twice, y, folds)["layer"] == "first").all()


def test_features_that_say_nothing_score_zero(small):
    _, y, folds = small
    result = nested_cv_ridge({"a": np.ones((40, 3)), "b": np.zeros((40, 2))}, y, folds)
    assert (result["layer"] == "a").all() and (result["alpha"] == 0.01).all()
    assert (result["inner_score"] == 0).all() and (result["score"] < 1e-12).all()


def test_gram_is_that_of_centred_rows_in_float64():
    x = (1e4 + np.random.default_rng(0).standard_normal((7, 50))).astype(np.float32)
    centred = x.astype(float) - x.astype(float).mean(axis=0)
    whole, blocks = encoding.gram(x), encoding.gram(x, block=8)
    np.testing.assert_allclose(whole, centred @ centred.T, rtol=1e-12)
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)


@pytest.mark.parametrize(
    "folds, error, message",
    [
        (np.arange(40) % 2, ParameterError, "needs at least 3 folds, not 2"),
        (np.r_[2, np.arange(39) % 2], ParameterError, "fold 2 has a single sound; 2 are needed"),
        (np.r_[np.nan, np.arange(39) % 3], AlignmentError, "one finite number for each sound"),
        (np.arange(39) % 3, AlignmentError, "folds has 39 rows, the responses have 40"),
        (np.ones((40, 2)), AlignmentError, "one finite number for each sound"),
    ],
)
def test_impossible_folds(small, folds, error, message):
    layers, y, _ = small
    with pytest.raises(error, match=message):
        nested_cv_ridge(layers, y, folds)


@pytest.mark.parametrize("alphas", [(), (1.0, 0.0), (-1.0,), (np.nan,), (np.inf,)])
def test_impossible_penalties(small, alphas):
    layers, y, folds = small
    with pytest.raises(ParameterError, match="alphas must be positive numbers, at least one"):
        nested_cv_ridge(layers, y, folds, alphas=alphas)


def test_unknown_extension_rule(small):
    layers, y, folds = small
    with pytest.raises(UnknownNameError, match="extension rule 'gready'. Did you mean 'greedy'"):
        nested_cv_ridge(layers, y, folds, extend="gready")


def test_more_than_the_memory_is_refused_before_it_starts(small, monkeypatch):
    layers, y, folds = small
    monkeypatch.setattr(device, "available_memory", lambda _: 10_000)
    message = "encoding 8 targets from 3 layers needs about .* Lower n_targets_batch"
    with pytest.raises(MemoryBudgetError, match=message):
        nested_cv_ridge(layers, y, folds, device="cpu")


def scored(**coords):
    scores = [0.1, 0.3, 0.5, 0.2, 0.6, np.nan]
    return xr.Dataset(
        {"score": ("target", scores)}, {name: ("target", c) for name, c in coords.items()}
    )


def test_aggregate_is_median_over_voxels_then_mean_over_subjects():
    # Subject a: median(.1, .3, .5) = .3; b: median(.2, .6, NaN) = .4. Mean .35, population
    # standard deviation .05, standard error .05 / sqrt(2 - 1).
    summary = aggregate(scored(subject=list("aaabbb")))
    expected = {"score": 0.35, "error": 0.05, "n_subjects": 2, "n_targets": 5}
    expected = pd.DataFrame(expected, index=pd.Index(["all"], name="group"))
    pd.testing.assert_frame_equal(summary, expected, check_dtype=False)


def test_aggregate_by_area_leaves_unlabelled_targets_out():
    areas = ["A", "A", "B", "A", "", "B"]
    summary = aggregate(scored(subject=list("aaabbb"), roi=areas), by="roi")
    assert summary.index.name == "roi" and summary.index.tolist() == ["A", "B"]
    np.testing.assert_allclose(summary["score"], [0.2, 0.5])  # A: mean(median(.1, .3), .2)
    np.testing.assert_allclose(summary["error"], [0, np.nan])
    assert summary["n_subjects"].tolist() == [2, 1] and summary["n_targets"].tolist() == [3, 1]


def test_aggregate_without_subjects_has_no_error():
    summary = aggregate(scored())
    assert summary.loc["all", "score"] == 0.3 and np.isnan(summary.loc["all", "error"])


def test_aggregate_by_an_unknown_coordinate():
    with pytest.raises(
        UnknownNameError, match="coordinate of the targets 'rio'. Did you mean 'roi'"
    ):
        aggregate(scored(roi=["A"] * 6), by="rio")


def test_explainable_recovers_the_planted_ceiling():
    responses = data.responses("simulated", noise=1.5, n_voxels=40)
    ceiling = encoding.explainable(responses)
    driven = responses["planted_layer"] != "none"
    assert float(ceiling[driven].median()) == pytest.approx(
        float(responses["ceiling"][driven].median()), abs=0.03
    )
    assert float(ceiling[~driven].median()) < 0.2


def test_explainable_by_hand():
    first = np.array([1.0, 2.0, 3.0, 4.0])
    second = np.array([2.0, 1.0, 4.0, 3.0])  # r = 0.6 with the first
    repeated = np.stack([first, second], axis=1)[:, None]
    array = xr.DataArray(repeated, dims=("sound", "target", "repetition"))
    assert float(encoding.explainable(array)[0]) == pytest.approx(2 * 0.6 / 1.6)
    against = xr.DataArray(
        np.stack([first, -first], axis=1)[:, None], dims=("sound", "target", "repetition")
    )
    assert float(encoding.explainable(against)[0]) == 0
    assert np.isnan(encoding.explainable(array.isel(repetition=0, drop=True))).all()
