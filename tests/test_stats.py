import numpy as np
import pytest
import scipy.stats
import xarray as xr

from analysis_lib import stats
from analysis_lib.errors import DataError, ParameterError, UnknownNameError


def test_correlations_equal_scipy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(36)
    y = 0.8 * x + rng.standard_normal(36)
    y[3] = np.nan
    result = stats.correlate(x, y, n_boot=200)
    keep = np.isfinite(y)
    for kind, oracle in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        expected = oracle(x[keep], y[keep])
        assert float(result["r"].sel(kind=kind)) == pytest.approx(expected.statistic)
        assert float(result["p_value"].sel(kind=kind)) == pytest.approx(expected.pvalue)
        assert (
            result["low"].sel(kind=kind)
            < result["r"].sel(kind=kind)
            < result["high"].sel(kind=kind)
        )
    assert int(result["n"]) == 35


def test_published_p_values_follow_from_r_and_n():
    """Printed beside the published correlations of 36 models."""
    for r, p in ((0.902, 5.7e-14), (0.895, 1.9e-13)):
        t = r * np.sqrt(34 / (1 - r**2))
        assert 2 * scipy.stats.t.sf(t, 34) == pytest.approx(p, rel=0.25)


def test_bootstrap_draws_equal_literal_resampling():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 20).astype(float), rng.standard_normal(20)
    groups = np.repeat(["a", "b", "c", "d", "e"], 4)
    draws = stats._bootstrapped_correlations(x, y, groups, 6, np.random.default_rng(2))
    counts = np.random.default_rng(2).multinomial(5, np.full(5, 0.2), 6)
    for draw, count in zip(draws, counts, strict=True):
        rows = np.repeat(np.arange(20), count[np.repeat(np.arange(5), 4)])
        assert draw[0] == pytest.approx(scipy.stats.pearsonr(x[rows], y[rows]).statistic)
        assert draw[1] == pytest.approx(scipy.stats.spearmanr(x[rows], y[rows]).statistic)


def test_one_family_carries_the_correlation():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(30), rng.standard_normal(30)
    x[:4], y[:4] = x[:4] - 10, y[:4] - 10
    groups = ["outliers"] * 4 + ["rest"] * 13 + ["others"] * 13
    result = stats.correlate(x, y, groups, n_boot=500)
    pearson = result.sel(kind="pearson")
    assert float(pearson["r"]) > 0.8
    assert abs(float(pearson["r_without"].sel(group="outliers"))) < 0.4
    alone = stats.correlate(x, y, n_boot=500).sel(kind="pearson")
    width = [float(result["high"] - result["low"]) for result in (pearson, alone)]
    assert width[0] > width[1]  # three families are less evidence than thirty models


def test_interval_covers_the_truth():
    rng = np.random.default_rng(4)
    inside = 0
    for seed in range(200):
        low, high = stats.bootstrap_interval(rng.standard_normal(40), n_boot=300, seed=seed)
        inside += low < 0 < high
    assert 0.88 < inside / 200 < 0.99
    assert np.isnan(stats.bootstrap_interval([1.0, np.nan])).all()


def test_too_little_to_correlate():
    with pytest.raises(DataError, match="too little"):
        stats.correlate([1, 2, 3], [1, 2, 3])
    with pytest.raises(DataError, match="too little"):
        stats.correlate([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])
    with pytest.raises(DataError, match="one length"):
        stats.correlate([1, 2, 3, 4], [1, 2, 3])


def test_standard_errors():
    values = xr.DataArray(
        [[1.0, 2.0, 4.0], [2.0, 4.0, 5.0], [6.0, 7.0, 8.0], [np.nan, 1.0, 1.0]],
        dims=("subject", "model"),
    )
    expected = scipy.stats.sem(values.values, nan_policy="omit")
    np.testing.assert_allclose(stats.standard_error(values), expected)
    complete = values.values[:3]
    centred = complete - complete.mean(axis=1, keepdims=True)
    oracle = scipy.stats.sem(centred) * np.sqrt(3 / 2)
    np.testing.assert_allclose(stats.within_subject_error(values), oracle)
    # Shifting a whole subject changes nothing within subjects.
    shifted = values + xr.DataArray([0, 100, 0, 0], dims="subject")
    np.testing.assert_allclose(stats.within_subject_error(shifted), oracle)
    with pytest.raises(ParameterError, match="two of 'model'"):
        stats.within_subject_error(values[:, 0])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("benjamini-hochberg", [0.04, 0.04, 0.04, 0.04]),
        ("benjamini-yekutieli", [0.04 * 25 / 12] * 4),
        ("holm", [0.04, 0.06, 0.06, 0.06]),
    ],
)
def test_adjusted_p_values_by_hand(method, expected):
    p = np.array([[0.01, 0.02], [0.03, 0.04]])
    adjusted = stats.adjust_p_values(p, method)
    np.testing.assert_allclose(adjusted.ravel(), expected)
    with_nan = stats.adjust_p_values([*p.ravel(), np.nan], method)
    np.testing.assert_allclose(with_nan, [*expected, np.nan])


def test_unknown_correction():
    with pytest.raises(UnknownNameError, match="holm"):
        stats.adjust_p_values([0.1], "hollm")


def test_regions_against_primary():
    rng = np.random.default_rng(5)
    primary = rng.uniform(0.2, 0.4, 15)
    positions = xr.DataArray(
        np.stack([primary, primary + rng.uniform(0.05, 0.2, 15), primary], axis=1),
        dims=("model", "roi"),
        coords={"roi": ["Primary", "Lateral", "Anterior"]},
    )
    table = stats.region_contrasts(positions).set_index("roi")
    oracle = scipy.stats.wilcoxon(positions[:, 0], positions[:, 1])
    assert table.loc["Lateral", "p_value"] == pytest.approx(oracle.pvalue)
    assert table.loc["Lateral", "statistic"] == 0 and table.loc["Lateral", "n"] == 15
    assert np.isnan(table.loc["Anterior", "p_value"])  # no pair differs
    with pytest.raises(UnknownNameError, match="Primary"):
        stats.region_contrasts(positions, "Primry")


def test_effective_dimensionality():
    rng = np.random.default_rng(6)
    rank_one = np.outer(rng.standard_normal(20), rng.standard_normal(30))
    assert stats.effective_dimensionality(rank_one) == pytest.approx(1)
    x = rng.standard_normal((20, 30)) * np.linspace(0.1, 3, 30)
    eigenvalues = np.linalg.eigvalsh(np.cov(x - x.mean(axis=0)))
    oracle = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert stats.effective_dimensionality(x) == pytest.approx(oracle)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    assert stats.effective_dimensionality(x, standardize=True) == pytest.approx(
        stats.effective_dimensionality(scaled)
    )
    wide = rng.standard_normal((20, 100_000))
    assert stats.effective_dimensionality(wide) == pytest.approx(19, rel=0.01)
    assert np.isnan(stats.effective_dimensionality(np.ones((5, 3))))
    with pytest.raises(DataError, match="two units"):
        stats.effective_dimensionality(np.ones((5, 1)))


def test_partial_correlation_takes_a_common_cause_away():
    rng = np.random.default_rng(0)
    size = rng.standard_normal((200, 2))
    x, y = (size @ [1.0, 2.0] + rng.standard_normal(200) for _ in range(2))
    assert scipy.stats.pearsonr(x, y).statistic > 0.7
    r, p_value = stats.partial_correlation(x, y, size)
    # By the inverse of the correlation matrix, another way to the same number.
    precision = np.linalg.inv(np.corrcoef(np.column_stack([x, y, size]).T))
    assert r == pytest.approx(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    assert abs(r) < 0.2 and 0 < p_value < 1
    with_gap = np.append(x, np.nan), np.append(y, 1.0), np.vstack([size, [0, 0]])
    assert stats.partial_correlation(*with_gap)[0] == pytest.approx(r)


def test_partial_p_value_equals_that_of_a_regression_coefficient():
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    control, x = rng.standard_normal((2, 30))
    y = 0.4 * x + control + rng.standard_normal(30)
    fitted = sm.OLS(y, sm.add_constant(np.column_stack([x, control]))).fit()
    assert stats.partial_correlation(x, y, control)[1] == pytest.approx(fitted.pvalues[1])


def test_partial_correlation_refuses_what_it_cannot_answer():
    x = np.arange(5.0)
    with pytest.raises(DataError, match="explain one of the two"):
        stats.partial_correlation(x, x**2, x)
    with pytest.raises(DataError, match="too few"):
        stats.partial_correlation(x[:3], x[:3] ** 2, np.eye(3)[:, :2])
    with pytest.raises(DataError, match="one length"):
        stats.partial_correlation(x, x[:4], x)
