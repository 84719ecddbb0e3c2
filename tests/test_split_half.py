import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from sklearn.linear_model import Ridge, RidgeCV

from analysis_lib.data.simulated import plant
from analysis_lib.data.splits import tuckute_splits
from analysis_lib.data.voxel_twin import random_features
from analysis_lib.encoding.split_half import (
    TUCKUTE_ALPHAS,
    noise_corrected,
    spearman_brown,
    split_half_ridge,
)
from analysis_lib.errors import DataError, ParameterError

N = 60
SPLITS = tuckute_splits([f"s{k}" for k in range(N)], n_splits=3).values


def problem(d=30, n_targets=12, n_repetitions=3, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, d)) * np.arange(1, d + 1) ** -0.5 + rng.standard_normal(d)
    signal = x @ rng.standard_normal((d, n_targets)) + 3
    signal /= signal.std(axis=0)
    return x, signal[..., None] + noise * rng.standard_normal((N, n_targets, n_repetitions))


# d < n_train, so that directions are missing; and d > n_train, so that none are.
@pytest.mark.parametrize("d", [5, 30, 400])
def test_equals_scikit_learn_where_the_optimum_is_inside_the_grid(d):
    x, y = problem(d)
    y = y.mean(axis=2)
    ours = split_half_ridge({"a": x}, y, SPLITS)
    n_inside = 0
    for s, train in enumerate(SPLITS):
        eigenvalues = np.linalg.eigvalsh(np.cov(x[train].T, bias=True)) * train.sum()
        top = eigenvalues.max()
        bottom = eigenvalues[eigenvalues > 1e-12 * top].min()
        for target in range(y.shape[1]):
            oracle = RidgeCV(alphas=TUCKUTE_ALPHAS).fit(x[train], y[train, target])
            mine = ours.isel(layer=0, split=s, target=target)
            predicted = oracle.predict(x[~train])
            if bottom * 1e-6 < oracle.alpha_ < top * 1e10:
                n_inside += 1
                assert float(mine["alpha"]) == oracle.alpha_
                r = scipy.stats.pearsonr(predicted, y[~train, target]).statistic
                assert float(mine["r"]) == pytest.approx(r, abs=1e-7)
                assert float(mine["r2"]) == pytest.approx(max(r, 0) ** 2, abs=1e-7)
                assert float(mine["r2_determination"]) == pytest.approx(
                    oracle.score(x[~train], y[~train, target]), abs=1e-7
                )
    assert n_inside > 12


def test_leave_one_out_errors_equal_refitting():
    """The choice is that of the penalty whose literally left-out errors are smallest."""
    x, y = problem(d=8, n_targets=3)
    y, alphas, train = y.mean(axis=2), [100.0, 10.0, 1.0, 0.1], SPLITS[0]
    ours = split_half_ridge({"a": x}, y, SPLITS[:1], alphas=alphas)
    rows = np.flatnonzero(train)
    for target in range(3):
        errors = []
        for alpha in alphas:
            left_out = []
            for k in rows:
                rest = rows[rows != k]
                fit = Ridge(alpha).fit(x[rest], y[rest, target])
                left_out.append(y[k, target] - fit.predict(x[[k]])[0])
            errors.append(np.mean(np.square(left_out)))
        assert float(ours["alpha"][0, 0, target]) == alphas[int(np.argmin(errors))]


def test_optimum_at_infinity_is_the_mean_only_model():
    """Where scikit-learn's prediction is rounding, ours is the constant it rounds to."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((N, 10)), rng.standard_normal((N, 200))
    ours = split_half_ridge({"a": x}, y, SPLITS[:1]).isel(layer=0, split=0)
    only_mean = ours["mean_only"].values
    assert 20 < only_mean.sum() < 180
    train = SPLITS[0]
    for target in np.flatnonzero(only_mean)[:10]:
        alpha = RidgeCV(alphas=TUCKUTE_ALPHAS).fit(x[train], y[train, target]).alpha_
        assert alpha > 1e8
    assert (ours["r"].values[only_mean] == 0).all()
    constant = 1 - ((y[~train] - y[train].mean(0)) ** 2).sum(0) / (
        y[~train].var(0) * (~train).sum()
    )
    np.testing.assert_allclose(ours["r2_mean_model"], constant)
    np.testing.assert_allclose(ours["r2_determination"].values[only_mean], constant[only_mean])
    # What is reported is the largest penalty that cannot be told from infinity.
    assert set(ours["alpha"].values[only_mean]) == {1e49}


def test_a_grid_without_infinity_has_no_mean_only_model():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((N, 10)), rng.standard_normal((N, 50))
    ours = split_half_ridge({"a": x}, y, SPLITS[:1], alphas=np.logspace(-3, 3, 7))
    assert not ours["mean_only"].any()
    train = SPLITS[0]
    for target in range(50):
        oracle = RidgeCV(alphas=np.logspace(3, -3, 7)).fit(x[train], y[train, target])
        assert float(ours["alpha"][0, 0, target]) == pytest.approx(oracle.alpha_)


def test_interpolating_end_has_equal_predictions():
    x, y = problem(d=400, noise=0.0)
    y = y.mean(axis=2)
    ours = split_half_ridge({"a": x}, y, SPLITS[:1])
    train = SPLITS[0]
    for target in range(4):
        oracle = RidgeCV(alphas=TUCKUTE_ALPHAS).fit(x[train], y[train, target])
        r = scipy.stats.pearsonr(oracle.predict(x[~train]), y[~train, target]).statistic
        assert float(ours["r"][0, 0, target]) == pytest.approx(r, abs=1e-6)


def test_penalties_far_below_everything_are_finite():
    x, y = problem(d=400)
    ours = split_half_ridge({"a": x}, y, SPLITS, alphas=[1e-50, 1e-49])
    assert np.isfinite(ours["r2_corrected"]).all() and set(ours["alpha"].values.ravel()) == {1e-49}


def literal_loo_error(x, y, alpha):
    left_out = []
    for k in range(len(y)):
        rest = np.arange(len(y)) != k
        mean = y[rest].mean()
        centred = x[rest] - x[rest].mean(axis=0)
        dual = np.linalg.solve(centred @ centred.T + alpha * np.eye(rest.sum()), y[rest] - mean)
        left_out.append(y[k] - mean - (x[k] - x[rest].mean(axis=0)) @ centred.T @ dual)
    return np.mean(np.square(left_out))


def test_where_scikit_learn_disagrees_its_penalty_is_not_better():
    """Far below the smallest eigenvalue scikit-learn's errors are rounding, and may win by it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, N)) * np.arange(1, N + 1) ** -0.7 @ rng.standard_normal((N, 800))
    y = x @ rng.standard_normal((800, 60))
    y = y / y.std(axis=0) + 0.3 * rng.standard_normal(y.shape)
    train = SPLITS[0]
    ours = split_half_ridge({"a": x}, y, SPLITS[:1]).isel(layer=0, split=0)
    oracle = RidgeCV(TUCKUTE_ALPHAS, alpha_per_target=True).fit(x[train], y[train])
    differ = np.flatnonzero((ours["alpha"] != oracle.alpha_) & ~ours["mean_only"].values)
    assert 0 < len(differ) < 30
    for target in differ:
        assert oracle.alpha_[target] < 1e-3
        mine, theirs = (
            literal_loo_error(x[train], y[train, target], alpha)
            for alpha in (float(ours["alpha"][target]), oracle.alpha_[target])
        )
        assert mine <= theirs * (1 + 1e-9)


# --- noise correction -----------------------------------------------------------------------


def test_noise_correction_by_hand():
    """r² = .25; r = .5 steps up to 1.5/2 = .75; r = .6 to 1.8/2.2 = .818…"""
    one = lambda value: torch.tensor([value], dtype=torch.float64)  # noqa: E731
    corrected = noise_corrected(one(0.25), one(0.5), one(0.6))
    assert float(corrected) == pytest.approx(0.25 / (0.75 * 1.8 / 2.2))
    # Below the floors .182 and .183, which are the critical correlations at 83 and 82 sounds.
    assert float(noise_corrected(one(0.25), one(0.01), one(-0.2))) == pytest.approx(
        0.25 / (0.182 * 0.183)
    )
    # Beyond the pole at -1/2 the plain formula returns 3·(-.6)/(1 - 1.2) = 9.
    assert float(spearman_brown(one(-0.6), 3, 0.182)) == 0.182
    assert float(spearman_brown(one(-0.5), 3, 0.182)) == 0.182
    assert float(spearman_brown(one(np.nan), 3, 0.183)) == 0.183
    assert float(spearman_brown(one(1.0), 3, 0.182)) == 1


def test_correction_equals_a_literal_transcription():
    x, y = problem(d=20, n_targets=6, noise=1.5, seed=2)
    ours = split_half_ridge({"a": x}, y, SPLITS)
    pairs = [(0, 1), (1, 2), (0, 2)]
    n_compared = 0
    for s, train in enumerate(SPLITS):
        n = train.sum(), (~train).sum()
        floors = [
            np.round(t / np.sqrt(k - 2 + t**2), 3)
            for k, t in ((k, scipy.stats.t.ppf(0.95, k - 2)) for k in n)
        ]
        for target in range(6):
            single = [
                RidgeCV(alphas=TUCKUTE_ALPHAS).fit(x[train], y[train, target, k]) for k in range(3)
            ]
            if max(fit.alpha_ for fit in single) > 1e8:
                continue  # the reference's own reliability is rounding here
            n_compared += 1
            predicted = [fit.predict(x[~train]) for fit in single]
            r_data = np.median([np.corrcoef(y[train, target, a], y[train, target, b])[0, 1]
                                for a, b in pairs])  # fmt: skip
            r_hat = np.median([np.corrcoef(predicted[a], predicted[b])[0, 1] for a, b in pairs])
            ceiling = np.prod(
                [max(3 * r / (1 + 2 * r), f) for r, f in zip((r_data, r_hat), floors, strict=True)]
            )
            mine = ours.isel(layer=0, split=s, target=target)
            expected = float(mine["r2"]) / ceiling
            assert float(mine["r2_corrected"]) == pytest.approx(expected, abs=1e-7)
    assert n_compared > 8


def test_corrected_score_is_near_one_for_the_planted_layer():
    features = random_features(165, 5)
    names = [f"s{k}" for k in range(165)]
    responses = plant(features, names, {"Primary": "spectrum"}, n_voxels=30, n_null=5, noise=1.5)
    result = split_half_ridge(features, responses, tuckute_splits(names, 4))
    driven = (responses["roi"] == "Primary").values
    corrected = result["r2_corrected"].median("split")[:, driven].median("target")
    raw = result["r2"].median("split")[:, driven].median("target")
    assert float(corrected.sel(layer="spectrum")) == pytest.approx(1, abs=0.08)
    # Planted: the best possible uncorrected score is the ceiling 1 / (1 + noise² / 3).
    ceiling = float(responses["ceiling"].values[driven][0])
    assert float(raw.sel(layer="spectrum")) == pytest.approx(ceiling, abs=0.06)
    assert (corrected.sel(layer=["modulation", "conjunction"]) < 0.3).all()
    assert "subject" in result.coords


def test_signed_scores_do_not_favour_null_voxels():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, 10)), rng.standard_normal((N, 400))
    result = split_half_ridge({"a": x}, y, SPLITS)
    assert abs(float(result["r"].mean())) < 0.02
    assert float(result["r2"].mean()) > 0.005  # clipping and squaring: an upward bias
    assert float(result["r2_determination"].mean()) < 0


# --- input ----------------------------------------------------------------------------------


def test_blocks_repetitions_and_bad_targets():
    x, y = problem(n_targets=9)
    y[4, 2, 1] = np.nan
    y[:, 5] = 7.0
    whole = split_half_ridge({"a": x, "b": x[:, :3]}, y, SPLITS)
    blocked = split_half_ridge({"a": x, "b": x[:, :3]}, y, SPLITS, n_targets_batch=2)
    xr.testing.assert_allclose(whole, blocked, rtol=1e-9)
    assert whole["r"].isel(target=2).isnull().all() and not whole["mean_only"][..., 2].any()
    assert (whole["r"].isel(target=5) == 0).all() and (whole["r2_corrected"][..., 5] == 0).all()
    rest = np.delete(np.arange(9), 2)
    assert np.isfinite(whole["r2_corrected"].isel(target=rest)).all()
    assert "r2_corrected" not in split_half_ridge({"a": x}, y.mean(axis=2), SPLITS)


def test_constant_features_predict_the_mean():
    result = split_half_ridge({"a": np.ones((N, 4))}, problem()[1], SPLITS)
    assert result["mean_only"].all() and (result["r"] == 0).all()


def test_refused():
    x, y = problem()
    with pytest.raises(ParameterError, match="positive"):
        split_half_ridge({"a": x}, y, SPLITS, alphas=[0.0, 1.0])
    with pytest.raises(DataError, match="at least 4 sounds"):
        split_half_ridge({"a": x}, y, np.ones((2, N), dtype=bool))
