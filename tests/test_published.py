import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis_lib import published
from analysis_lib.errors import ParameterError, UnknownNameError


def test_overall_correlations_of_table_1():
    derived = published.overall_correlations()
    expected = {
        "All": (0.902, 0.895, 0.813, 0.842),
        "Overall>-1": (0.713, 0.703, 0.437, 0.497),
    }
    for subset, printed in expected.items():
        for column, value in zip(published.ALIGNMENT_COLUMNS.values(), printed, strict=True):
            row = derived.loc[(column, subset)]
            assert row["pearson"] == pytest.approx(value, abs=0.01)
            assert row["printed"] == value
            assert row["n"] == (36 if subset == "All" else 32)


def test_components_agree_with_table_1():
    derived = published.overall_correlations().loc[(slice(None), "All"), :]
    components = derived[derived["n"] == 35]
    assert len(components) == 6
    # The filter bank is missing from the digitised table, and the paper has it.
    assert abs(components["pearson"] - components["printed"]).max() < 0.04


def test_printed_p_values_follow_from_r_and_n():
    derived = published.overall_correlations()
    for column, printed in (("REG_NH2015", 5.7e-14), ("REG_B2021", 1.9e-13)):
        p = derived.loc[(column, "All"), "p"]
        assert abs(np.log10(p / printed)) < 0.3


def test_four_weakest_models_carry_much_of_the_correlation():
    steps = published.weakest_models("RSA_NH2015_maxlayer")
    assert steps["n"].tolist() == list(range(36, 27, -1))
    assert steps.loc[0, "pearson"] == pytest.approx(0.813, abs=0.01)
    assert steps.loc[4, "pearson"] == pytest.approx(0.437, abs=0.01)
    assert steps.loc[0, "spearman"] == pytest.approx(0.50, abs=0.01)
    assert steps.loc[1:4, "left_out"].tolist() == [
        "braindnn_dcase2020",
        "braindnn_metricgan",
        "braindnn_deepspeech",
        "braindnn_sepformer",
    ]
    assert published.weakest_models("REG_NH2015").loc[3, "pearson"] == pytest.approx(
        0.753, abs=0.01
    )
    with pytest.raises(UnknownNameError, match="REG_NH2015"):
        published.weakest_models("REG_NH2014")


def test_global_score_is_the_mean_of_z_scores():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((7, 3)), columns=list("abc"))
    expected = stats.zscore(scores, ddof=1).mean(axis=1)
    np.testing.assert_allclose(published.global_score(scores), expected)
    with pytest.raises(ParameterError, match="same on b"):
        published.global_score(scores.assign(b=0.3))
    with pytest.raises(ParameterError, match="1 given"):
        published.global_score(scores[:1])


@pytest.mark.parametrize(
    ("missing", "improved", "worsened"), [("unchanged", 12, 2), ("dropped", 13, 3)]
)
def test_tasks_improved_and_worsened(missing, improved, worsened):
    changes = published.task_changes(missing)
    counts = changes["verdict"].value_counts()
    assert len(changes) == 19
    assert (counts["improved"], counts["worsened"]) == (improved, worsened)
    assert {"DCASE 2016", "VoxLingua107 top 10"} <= set(
        changes.index[changes["verdict"] == "worsened"]
    )


def test_two_tasks_are_left_untested_by_the_published_analysis():
    changes = published.task_changes("unchanged")
    untested = changes.index[changes["p"].isna()]
    assert set(untested) == {"Mridangam Tonic", "Vocal Imitation"}
    assert changes.loc[untested, "p_holm"].isna().all()
    # Holm multiplies the smallest p by the number of tests.
    assert changes["p_holm"].min() == pytest.approx(17 * changes["p"].min())


def test_rank_gains_on_the_leaderboard():
    gains = published.rank_gains()
    summary = published.summarise_rank_gains(gains)
    assert summary.loc["wholebrain", "individual"] == pytest.approx(2.24, abs=0.005)
    assert summary.loc["wholebrain", "group"] == pytest.approx(1.79, abs=0.005)
    assert summary.loc["STG", "individual"] == pytest.approx(1.66, abs=0.005)
    assert summary.loc["STG", "group"] == pytest.approx(2.43, abs=0.005)
    assert summary.loc["wholebrain", "p"] == pytest.approx(0.50, abs=0.005)
    assert summary.loc["STG", "p"] == pytest.approx(0.0042, abs=0.00005)
    carried = published.table("hear_freteault_ranks").melt(
        id_vars=["training", "subject", "atlas"],
        value_vars=[f"gain {name}" for name in gains["task"].unique()],
        var_name="task",
        value_name="carried",
    )
    carried["task"] = carried["task"].str.removeprefix("gain ")
    both = gains.merge(carried)
    assert len(both) == 24 * 19
    pd.testing.assert_series_equal(both["gain"], both["carried"], check_names=False)


def test_tables_are_found_by_name_and_may_be_changed():
    assert "claims" in published.tables()
    copy = published.table("claims")
    copy.loc[:, "published"] = "changed"
    assert (published.table("claims")["published"] != "changed").all()
    with pytest.raises(UnknownNameError, match="pepino_models"):
        published.table("pepino_model")
    readme = (published._TABLES / "README.md").read_text()
    assert all(f"`{name}.csv`" in readme for name in published.tables())
