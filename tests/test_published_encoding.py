"""What Freteault et al. report, re-derived from the tables that are carried."""

import numpy as np
import pytest

from analysis_lib import published, published_encoding
from analysis_lib.errors import ParameterError

SUBJECTS = [f"sub-{i:02d}" for i in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize(
    ("atlas", "baseline", "conv4"),
    [
        ("STG", (0.366, 0.376, 0.443, 0.408, 0.349), (0.394, 0.429, 0.472, 0.448, 0.378)),
        ("wholebrain", (0.204, 0.282, 0.352, 0.328, 0.228), (0.222, 0.287, 0.394, 0.350, 0.230)),
    ],
)
def test_selected_models(atlas, baseline, conv4):
    scores = published_encoding.selected_models().loc[atlas]
    np.testing.assert_allclose(scores.loc[SUBJECTS, "baseline"], baseline, atol=5e-4)
    np.testing.assert_allclose(scores.loc[SUBJECTS, "conv4"], conv4, atol=5e-4)
    assert (scores.loc[SUBJECTS, "gain"] > 0).all()
    assert scores.loc["sub-05"].isna().all()


def test_depth_conv4_is_best_but_once():
    best = published_encoding.selected_models()["best"].dropna()
    assert (best != "conv4").sum() == 1 and best["STG", "sub-01"] == "conv5"
    with pytest.raises(ParameterError, match="test r2 max"):
        published_encoding.selected_models("test r3 max")


def test_replicates_of_one_configuration():
    spread = published_encoding.replicate_spread()
    conv4 = spread.xs("conv4", level="finetune").loc["STG"].loc[SUBJECTS]
    np.testing.assert_allclose(conv4["mean"], (0.395, 0.421, 0.463, 0.444, 0.368), atol=6e-4)
    np.testing.assert_allclose(conv4["sd"], (0.009, 0.009, 0.015, 0.003, 0.013), atol=6e-4)
    assert (conv4["n"] == 5).all()
    assert spread["n"].max() < 20, "searches of hyperparameters must stay out"
    row = spread.loc["STG", "sub-02", "conv4"]
    chosen = published_encoding.selected_models().loc["STG", "sub-02"]
    assert row["gain_z"] == pytest.approx(chosen["gain"] / row["sd"])
    # Whole-brain gains of two subjects are within one standard deviation of a replicate.
    whole = spread.xs("conv4", level="finetune").loc["wholebrain", "gain_z"]
    assert list(whole.index[whole < 1]) == ["sub-02", "sub-06"]


def test_own_model_predicts_best():
    table = published_encoding.cross_subject()
    assert tuple(table.loc["STG", ["n_pairs", "n_lower", "n_worse", "n_better"]]) == (30, 30, 30, 0)
    assert table.loc["STG", "smallest"] == pytest.approx(-0.129, abs=5e-4)
    assert table.loc["STG", "largest"] == pytest.approx(-0.014, abs=5e-4)
    assert table.loc["wholebrain", "exceptions"] == "02<-03, 03<-04, 05<-01, 05<-06, 06<-04"
    assert table.loc["wholebrain", "n_lower"] == 27
    strict = published_encoding.cross_subject(correction="benjamini-yekutieli")
    assert strict.loc["STG", "n_worse"] == 30 and strict.loc["wholebrain", "n_worse"] == 24


def test_group_against_own():
    compared = published_encoding.group_against_own()
    whole = compared.loc["wholebrain"]
    np.testing.assert_allclose(
        whole["difference"], (0.010, -0.002, -0.017, -0.055, 0.016, -0.006), atol=6e-4
    )
    assert list(whole["verdict"]) == [
        "better",
        "unresolved",
        "worse",
        "worse",
        "better",
        "unresolved",
    ]
    assert (compared.loc["STG", "difference"] < 0).all()
    # Neither gain of the group survives a correction over the twelve tests.
    assert (whole.loc[whole["difference"] > 0, "p_benjamini-hochberg"] > 0.03).all()
    assert (whole.loc[whole["difference"] > 0, "p_benjamini-yekutieli"] > 0.05).all()


def test_reference_counts_agree_with_the_claims():
    reference = published.table("freteault_encoding_reference")
    assert list(reference["wb_nsig_baseline_vs_conv4"]) == [69, 30, 45, 77, 24, 0]
    assert list(reference["stg_nsig_BY_base_vs_conv4"]) == [192, 536, 321, 471, 193, 212]
