"""Scores and tests of long recordings, on series whose truth is known."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import xarray as xr
from sklearn.metrics import r2_score
from statsmodels.stats.multitest import fdrcorrection

from analysis_lib import time_series as ts
from analysis_lib.errors import AlignmentError, DataError, ParameterError


def slow(rng, shape, memory=0.7):
    """First-order autoregression over the first axis, unit variance."""
    white = rng.standard_normal((shape[0] + 50, *shape[1:]))
    return scipy.signal.lfilter([np.sqrt(1 - memory**2)], [1, -memory], white, axis=0)[50:]


def runs_of(n_runs, n_trs, n_targets, seed, memory=0.7):
    rng = np.random.default_rng(seed)
    return {f"s04e{i + 1:02d}a": slow(rng, (n_trs, n_targets), memory) for i in range(n_runs)}


def planted(signal=1.0, n_runs=4, n_trs=120, n_targets=6, seed=0):
    """Predictions, and responses of which the last half follows nothing."""
    predicted = runs_of(n_runs, n_trs, n_targets, seed)
    noise = runs_of(n_runs, n_trs, n_targets, seed + 1)
    drives = signal * (np.arange(n_targets) < n_targets // 2)
    return predicted, {k: drives * p + noise[k] for k, p in predicted.items()}


def test_scores_are_those_of_scikit_learn_and_numpy():
    predicted, measured = planted()
    scores = ts.score_runs(predicted, measured)
    for i, run in enumerate(predicted):
        reference = r2_score(measured[run], predicted[run], multioutput="raw_values")
        np.testing.assert_allclose(scores["r2"][i], reference, atol=1e-12)
        r = [
            np.corrcoef(a, b)[0, 1] for a, b in zip(predicted[run].T, measured[run].T, strict=True)
        ]
        np.testing.assert_allclose(scores["r"][i], r, atol=1e-12)


def test_missing_rows_broken_and_constant_targets():
    predicted, measured = planted()
    run = "s04e01a"
    late = {k: p.copy() for k, p in predicted.items()}
    late[run][:4] = np.nan
    scores = ts.score_runs(late, measured)
    reference = r2_score(measured[run][4:], predicted[run][4:], multioutput="raw_values")
    np.testing.assert_allclose(scores["r2"].sel(run=run), reference, atol=1e-12)
    hurt = {k: y.copy() for k, y in measured.items()}
    hurt[run][7, 1], hurt[run][:, 2], late[run][4:, 3] = np.nan, 5.0, 1.0
    scores = ts.score_runs(late, hurt).sel(run=run)
    assert np.isnan(scores["r2"][1]) and np.isnan(scores["r"][1])
    assert np.isnan(scores["r2"][2]) and np.isnan(scores["r"][2])
    assert scores["r"][3] == 0 and scores["r2"][3] < 0
    assert np.isfinite(scores["r2"][[0, 4, 5]]).all()
    null = ts.circular_shift_null(late, hurt, 50)
    assert np.isnan(null["p_value"][1]) and np.isfinite(null["p_value"][0])


def test_labelled_targets_keep_their_names():
    predicted, measured = planted(n_targets=2)
    measured = {
        k: xr.DataArray(y, {"target": ["a", "b"]}, ("time", "target")) for k, y in measured.items()
    }
    for result in (
        ts.score_runs(predicted, measured),
        ts.block_bootstrap(predicted, measured, 20),
        ts.circular_shift_null(predicted, measured, 20),
    ):
        assert list(result["target"].values) == ["a", "b"]


@pytest.mark.parametrize("statistic", ["r2", "r"])
def test_circular_shifts_are_those_of_roll(statistic):
    predicted, measured = planted(n_runs=1, n_trs=40)
    (y,) = measured.values()
    null = ts.circular_shift_null(predicted, measured, 30, 5, statistic, seed=3)
    allowed = []
    for shift in range(5, 36):
        one = ts.score_runs(predicted, {"s04e01a": np.roll(y, -shift, axis=0)})
        allowed.append(one[statistic][0].values)
    np.testing.assert_allclose(
        null["score"], ts.score_runs(predicted, measured)[statistic][0], atol=1e-10
    )
    distance = np.abs(null["null"].values[:, None] - np.array(allowed)).max(axis=2).min(axis=1)
    assert distance.max() < 1e-10
    assert len(np.unique(null["null"].values[:, 0].round(9))) > 10


@pytest.mark.parametrize("statistic", ["r2", "r"])
def test_block_permutations_are_those_of_moved_blocks(statistic):
    predicted, measured = planted(n_runs=1, n_trs=33)
    (p,), (y,) = predicted.values(), measured.values()
    null = ts.block_permutation(predicted, measured, 100, 10, statistic, seed=2)
    allowed = []
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        moved = np.concatenate([y[10 * k : 10 * k + 10] for k in order])
        allowed.append(ts.score_runs({"x": p[:30]}, {"x": moved})[statistic][0].values)
    distance = np.abs(null["null"].values[:, None] - np.array(allowed)).max(axis=2).min(axis=1)
    assert distance.max() < 1e-10
    assert len(np.unique(null["null"].values[:, 0].round(9))) == 6


@pytest.mark.parametrize("test", [ts.circular_shift_null, ts.block_permutation])
def test_nulls_find_what_is_planted_and_hold_their_level(test):
    predicted, measured = planted(0.8, n_runs=4, n_trs=120, n_targets=400)
    p = test(predicted, measured, 400, statistic="r")["p_value"].values
    assert (p[:200] < 0.05).mean() > 0.95
    false = (p[200:] < 0.05).mean()
    assert 0.01 < false < 0.10, f"{false:.3f} of null targets at the 5 % level"


def test_single_volumes_are_no_blocks():
    """Why blocks are needed: shuffled volumes forget the autocorrelation."""
    predicted, measured = planted(0.0, n_runs=4, n_trs=120, n_targets=400)
    single = ts.block_permutation(predicted, measured, 300, 1, "r")["p_value"].values
    assert (single < 0.05).mean() > 0.12


def test_intervals_of_null_targets_cover_zero():
    predicted, measured = planted(0.8, n_runs=6, n_trs=120, n_targets=400, seed=5)
    result = ts.block_bootstrap(predicted, measured, 1000)
    covered = ((result["r_low"] <= 0) & (result["r_high"] >= 0)).values
    assert 0.90 < covered[200:].mean() < 0.985
    assert not covered[:200].any()
    pooled = np.concatenate([p - p.mean(0) for p in predicted.values()])
    seen = np.concatenate([y - y.mean(0) for y in measured.values()])
    assert float(result["r"][0]) == pytest.approx(np.corrcoef(pooled[:, 0], seen[:, 0])[0, 1])


def test_comparison_of_models_finds_the_better_and_holds_its_level():
    truth, measured = planted(1.0, n_runs=6, n_trs=100, n_targets=200, seed=9)
    rng = np.random.default_rng(1)
    worse = {k: p + 0.5 * slow(rng, p.shape) for k, p in truth.items()}
    same = [{k: 0.3 * p + 0.6 * slow(rng, p.shape) for k, p in truth.items()} for _ in range(2)]
    found = ts.compare_models(truth, worse, measured, 1000)
    assert (found["p_value"][:100] < 0.05).mean() > 0.8 and (found["gain"][:100] > 0).all()
    scores = [ts.score_runs(p, measured)["r2"].mean("run") for p in (truth, worse)]
    np.testing.assert_allclose(found["gain"], scores[0] - scores[1], atol=1e-12)
    level = (ts.compare_models(*same, measured, 1000)["p_value"] < 0.05).mean()
    assert 0.01 < level < 0.10
    assert (found["p_by"] >= found["p_bh"]).all()
    by = fdrcorrection(found["p_value"].values, 0.05, method="n")[1]
    np.testing.assert_allclose(found["p_by"], by)
    nothing = ts.compare_models(truth, truth, measured, 50)
    assert (nothing["p_value"] == 1).all()


def test_comparison_over_runs_is_wilcoxon():
    rng = np.random.default_rng(0)
    first = xr.DataArray(
        rng.standard_normal((12, 5)) + np.array([1, 0, 0, 0, 0]), dims=("run", "target"),
        coords={"run": [f"s04e{i:02d}a" for i in range(12)], "target": list("abcde")},
    )  # fmt: skip
    second = xr.zeros_like(first)[::-1]
    first[3, 1] = np.nan
    first[:, 4] = 0
    result = ts.compare_runs(first, second)
    for t in (0, 2, 3):
        assert float(result["p_value"][t]) == scipy.stats.wilcoxon(first[:, t]).pvalue
    column = first[:, 1].dropna("run")
    assert float(result["p_value"][1]) == scipy.stats.wilcoxon(column).pvalue
    assert int(result["n"][1]) == 11 and np.isnan(result["p_value"][4])
    assert float(result["gain"][1]) == float(column.median())
    greater = ts.compare_runs(first, second, "greater")["p_value"][0]
    assert float(greater) == scipy.stats.wilcoxon(first[:, 0], alternative="greater").pvalue
    with pytest.raises(AlignmentError, match="share no run"):
        ts.compare_runs(first, second.assign_coords(run=range(12)))


def test_intersubject_ceiling():
    rng = np.random.default_rng(0)
    shared = {f"s01e{i:02d}a": slow(rng, (200, 3)) for i in range(1, 4)}
    weight = np.array([1.0, 0.5, 0.0])  # of what subjects share
    data = {
        f"sub-{s}": {run: weight * v + slow(rng, v.shape) for run, v in shared.items()}
        for s in range(4)
    }
    data["sub-2"]["s09e01a"] = np.zeros((5, 3))
    data["sub-1"]["s01e02a"] = data["sub-1"]["s01e02a"][:-7]
    ceiling = ts.intersubject_ceiling(data)
    assert list(ceiling["run"].values) == list(shared)
    mean = ceiling["lower"].mean(("subject", "run"))
    # r of one subject with the mean of three others, from the variances planted.
    expected = weight**2 / np.sqrt((weight**2 + 1) * (weight**2 + 1 / 3))
    np.testing.assert_allclose(mean, expected, atol=0.07)
    assert (ceiling["upper"] > ceiling["lower"]).all()
    one = data["sub-0"]["s01e01a"]
    others = sum(scipy.stats.zscore(data[f"sub-{s}"]["s01e01a"]) for s in (1, 2, 3))
    assert float(ceiling["lower"].sel(subject="sub-0", run="s01e01a")[0]) == pytest.approx(
        np.corrcoef(one[:, 0], others[:, 0])[0, 1]
    )
    with pytest.raises(ParameterError, match="at least one other"):
        ts.intersubject_ceiling({"sub-0": data["sub-0"]})


def test_specificity():
    rng = np.random.default_rng(0)
    subjects = ["sub-01", "sub-02", "sub-03"]
    scores = 0.2 + 0.02 * rng.standard_normal((4, 3, 20))
    for i in range(2):
        scores[i, i] += 0.1
    array = xr.DataArray(
        scores,
        dims=("model", "subject", "run"),
        coords={"model": [*subjects, "group"], "subject": subjects},
    )
    result = ts.specificity(array)
    assert (np.diag(result["difference"].values[:3]) == 0).all()
    assert np.isnan(np.diag(result["p_value"].values[:3])).all()
    assert list(result["n_worse"].values[:2]) == [2, 2]
    expected = scipy.stats.wilcoxon(scores[1, 0] - scores[0, 0]).pvalue
    assert float(result["p_value"].sel(model="sub-02", subject="sub-01")) == expected
    assert float(result["p_value"].sel(model="group", subject="sub-01")) < 1e-3
    with pytest.raises(DataError, match="sub-01"):
        ts.specificity(array.isel(model=[1, 2, 3]))


def test_what_cannot_be_tested_is_refused():
    predicted, measured = planted()
    with pytest.raises(AlignmentError, match="s04e01a"):
        ts.score_runs(predicted, {})
    with pytest.raises(AlignmentError, match="one shape"):
        ts.score_runs(predicted, {k: y[:-1] for k, y in measured.items()})
    with pytest.raises(DataError, match="no run"):
        ts.score_runs({}, measured)
    with pytest.raises(DataError, match="too few to shift"):
        ts.circular_shift_null(predicted, measured, min_shift=70)
    with pytest.raises(DataError, match="3 are needed"):
        ts.block_permutation(predicted, measured, block_length=50)
    with pytest.raises(ParameterError, match="statistic"):
        ts.block_permutation(predicted, measured, statistic="mse")
    with pytest.raises(AlignmentError, match="different runs"):
        ts.compare_models(predicted, {"s04e01a": predicted["s04e01a"]}, measured)
