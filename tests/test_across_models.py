"""Correlations over models, against scipy and by reasoning."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_lib import across_models
from analysis_lib.errors import DataError, ParameterError

RNG = np.random.default_rng(1)
NAMES = [f"m{i}" for i in range(12)]
PERFORMANCE = pd.Series(RNG.standard_normal(12), NAMES)
ALIGNMENT = pd.DataFrame(
    {
        "driven": PERFORMANCE + 0.3 * RNG.standard_normal(12),
        "noise": RNG.standard_normal(12),
        "opposed": -PERFORMANCE + 0.5 * RNG.standard_normal(12),
    }
)
FAMILIES = pd.Series(["a"] * 4 + ["b"] * 4 + ["c"] * 4, NAMES)
QUICK = {"n_boot": 200, "n_permutations": 500}


def test_coefficients_are_scipys():
    table = across_models.associate(PERFORMANCE, ALIGNMENT, FAMILIES, **QUICK)
    for measure, values in ALIGNMENT.items():
        expected = scipy.stats.pearsonr(PERFORMANCE, values)
        assert table.loc[measure, "pearson"] == pytest.approx(expected.statistic)
        assert table.loc[measure, "p"] == pytest.approx(expected.pvalue)
        ranks = scipy.stats.spearmanr(PERFORMANCE, values).statistic
        assert table.loc[measure, "spearman"] == pytest.approx(ranks)
    assert (table["pearson_low"] <= table["pearson"]).all()
    assert (table["pearson"] <= table["pearson_high"]).all()
    assert (table["n"] == 12).all()


def test_one_model_or_family_left_out_is_done_literally():
    table = across_models.associate(PERFORMANCE, ALIGNMENT, FAMILIES, **QUICK)
    values = ALIGNMENT["driven"]
    without = {name: np.corrcoef(PERFORMANCE.drop(name), values.drop(name))[0, 1] for name in NAMES}
    row = table.loc["driven"]
    assert row["without_model_low"] == pytest.approx(min(without.values()))
    assert row["without_model_high"] == pytest.approx(max(without.values()))
    decisive = max(without, key=lambda name: abs(without[name] - row["pearson"]))
    assert row["decisive_model"] == decisive
    kept = {f: FAMILIES.index[f != FAMILIES] for f in "abc"}
    families = [np.corrcoef(PERFORMANCE[k], values[k])[0, 1] for k in kept.values()]
    assert row["without_family_low"] == pytest.approx(min(families))


def test_models_are_matched_by_name():
    table = across_models.associate(PERFORMANCE, ALIGNMENT, FAMILIES, **QUICK)
    shuffled = RNG.permutation(NAMES)
    again = across_models.associate(
        PERFORMANCE, ALIGNMENT.loc[shuffled], FAMILIES.loc[shuffled], **QUICK
    )
    pd.testing.assert_frame_equal(table, again)


def test_the_family_wise_rate_counts_the_strongest_of_all_measures():
    table = across_models.associate(PERFORMANCE, ALIGNMENT, FAMILIES, **QUICK)
    alone = across_models.associate(PERFORMANCE, ALIGNMENT[["noise"]], FAMILIES, **QUICK)
    assert table.loc["noise", "p_family_wise"] > alone.loc["noise", "p_family_wise"]
    assert alone.loc["noise", "p_family_wise"] == pytest.approx(alone.loc["noise", "p"], abs=0.08)
    assert table.loc["driven", "p_family_wise"] < 0.02
    twice = ALIGNMENT[["noise"]].assign(again=2 * ALIGNMENT["noise"] + 1)
    copied = across_models.associate(PERFORMANCE, twice, FAMILIES, **QUICK)
    np.testing.assert_allclose(
        copied["p_family_wise"], alone.loc["noise", "p_family_wise"]
    )  # a copy of a measure is no further test


@pytest.mark.slow
def test_a_false_alarm_is_as_rare_as_it_says():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        performance = pd.Series(rng.standard_normal(8), NAMES[:8])
        noise = pd.DataFrame(rng.standard_normal((8, 5)), NAMES[:8])
        table = across_models.associate(
            performance, noise, FAMILIES[:8], n_boot=1, n_permutations=100
        )
        alarms += (table["p_family_wise"] <= 0.05).any()
    assert scipy.stats.binomtest(alarms, 200, 0.05).pvalue > 0.01


def test_a_common_cause_is_taken_out_by_the_partial_correlation():
    rng = np.random.default_rng(2)
    size = pd.Series(rng.standard_normal(400), [f"n{i}" for i in range(400)])
    performance, driven = (size + 0.3 * rng.standard_normal(400) for _ in range(2))
    table = across_models.associate(
        performance,
        driven.to_frame("driven"),
        pd.Series("one", size.index),
        size.to_frame("size"),
        **QUICK,
    )
    assert table.loc["driven", "pearson"] > 0.8
    assert abs(table.loc["driven", "partial"]) < 0.2


def test_missing_values_are_left_out_of_their_own_measure_only():
    holes = ALIGNMENT.copy()
    holes.loc["m3", "noise"] = np.nan
    table = across_models.associate(PERFORMANCE, holes, FAMILIES, **QUICK)
    assert table["n"].tolist() == [12, 11, 12]
    rest = ALIGNMENT["noise"].drop("m3")
    expected = scipy.stats.pearsonr(PERFORMANCE.drop("m3"), rest).statistic
    assert table.loc["noise", "pearson"] == pytest.approx(expected)


def test_families_make_wider_intervals_where_relatives_agree():
    clusters = np.repeat(RNG.standard_normal(6), 6)
    names = [f"n{i}" for i in range(36)]
    x = pd.Series(clusters + 0.1 * RNG.standard_normal(36), names)
    y = pd.DataFrame({"y": np.repeat(RNG.standard_normal(6), 6)}, names)
    families = pd.Series(np.repeat(list("abcdef"), 6), names)
    width = {}
    for unit in ("model", "family"):
        table = across_models.associate(x, y, families, resample=unit, **QUICK)
        width[unit] = (table["pearson_high"] - table["pearson_low"])["y"]
    assert width["family"] > 1.5 * width["model"]


def test_tasks_by_measures():
    scores = pd.DataFrame({"one": PERFORMANCE, "two": ALIGNMENT["noise"]})
    table = across_models.associate_tasks(scores, ALIGNMENT)
    assert table[["task", "measure"]].to_numpy().tolist() == [
        [task, measure] for task in scores for measure in ALIGNMENT
    ]
    same = table[(table["task"] == "two") & (table["measure"] == "noise")].iloc[0]
    assert same["pearson"] == pytest.approx(1)
    expected = scipy.stats.false_discovery_control(table["p"])
    np.testing.assert_allclose(table["p_adjusted"], expected)


@pytest.mark.parametrize("n", [4, 12, 36])
def test_the_critical_correlation_is_just_significant(n):
    r = across_models.critical_correlation(n)
    assert scipy.stats.pearsonr(*_with_correlation(n, r)).pvalue == pytest.approx(0.05)


def _with_correlation(n, r):
    x, y = scipy.stats.zscore(RNG.standard_normal((2, n)), axis=1)
    y = scipy.stats.zscore(y - x * (x @ y) / n)
    return x, r * x + np.sqrt(1 - r**2) * y


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="resample"):
        across_models.associate(PERFORMANCE, ALIGNMENT, FAMILIES, resample="task")
    with pytest.raises(DataError, match="1 pairs"):
        across_models.associate(PERFORMANCE[:1], ALIGNMENT[:1], FAMILIES[:1])
    with pytest.raises(DataError, match="does not vary"):
        across_models.associate(PERFORMANCE * 0, ALIGNMENT, FAMILIES)
    with pytest.raises(ParameterError, match="3 pairs"):
        across_models.critical_correlation(2)
