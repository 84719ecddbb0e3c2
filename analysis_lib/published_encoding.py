"""What Freteault et al. (2025) report on predicting the brain, and what follows from it.

The tables are those that :func:`analysis_lib.published.table` carries: scores of the selected
models and of their replicates as logged in training, and per-run comparisons between subjects.
Scores are R² of the best target ("max") or the mean over targets, of pooled test runs.
"""

import numpy as np
import pandas as pd

from .errors import ParameterError
from .published import table
from .stats import CORRECTIONS, adjust_p_values

__all__ = ["cross_subject", "group_against_own", "replicate_spread", "selected_models"]

_SPACES = {"MIST_ROI": "wholebrain", "auditory_Voxels": "STG"}
_SCALES = {"whole brain": "wholebrain", "stg": "STG"}


def selected_models(score: str = "test r2 max") -> pd.DataFrame:
    """Scores of the selected models: frozen baseline, and fine-tuned from each depth.

    Parameters
    ----------
    score : str
        ``"<train|val|test> r2 <max|mean>"``.

    Returns
    -------
    DataFrame
        By ``atlas`` (STG, wholebrain) and ``subject``: ``baseline``, ``conv4`` to ``conv7``,
        ``gain`` (conv4 less baseline) and ``best``, the depth with the best score. Subject 5
        is not in the log and has NaN.

    Examples
    --------
    >>> from analysis_lib import published_encoding
    >>> stg = published_encoding.selected_models().loc["STG"]
    >>> stg.loc["sub-02", ["baseline", "conv4", "gain"]].astype(float).round(3).tolist()
    [0.376, 0.429, 0.053]
    >>> stg.loc["sub-02", "best"]
    'conv4'
    """
    models = table("freteault_best_models_wandb_scores")
    known = [column for column in models if " r2 " in column]
    if score not in known:
        raise ParameterError(f"score must be one of {', '.join(known)}, not {score!r}")
    scores = models.pivot(index=["atlas", "subject"], columns="finetune", values=score)
    scores = scores.rename(columns={"no": "baseline"}).rename_axis(columns=None)
    scores["gain"] = scores["conv4"] - scores["baseline"]
    depths = [column for column in scores if column.startswith("conv")]
    there = scores[depths].notna().any(axis=1)
    scores["best"] = scores.loc[there, depths].idxmax(axis=1)
    return scores


def replicate_spread() -> pd.DataFrame:
    """How far replicates of one configuration differ, and how the gain compares with that.

    Returns
    -------
    DataFrame
        By ``atlas``, ``subject`` and ``finetune`` (``"baseline"``, conv4 to conv7): ``n``,
        ``mean`` and ``sd`` over replicates of the best target's test R², ``selected`` (the
        model that was selected), ``selected_z`` (its distance from the mean in ``sd``), and
        ``gain_z``, its gain over the selected baseline in ``sd``. Baselines whose rows mix the
        whole search of hyperparameters are left out.

    Examples
    --------
    >>> from analysis_lib import published_encoding
    >>> spread = published_encoding.replicate_spread()
    >>> spread.loc[("STG", "sub-03", "conv4"), ["n", "mean", "sd"]].round(3).tolist()
    [5.0, 0.463, 0.015]
    """
    stats = table("freteault_wandb_group_stats")
    ran = stats["noInit"].astype(str).eq("False") & stats["noTraining"].astype(str).eq("False")
    stats = stats[ran & (stats["n"] < 20)].copy()
    stats["subject"] = stats["sub"].map(lambda number: f"sub-{int(number):02d}")
    stats["atlas"] = stats["scale"].map(_SPACES)
    stats["finetune"] = stats["ft"].replace("none", "baseline")
    spread = stats.set_index(["atlas", "subject", "finetune"])[
        ["n", "test_max_mean", "test_max_sd"]
    ].rename(columns={"test_max_mean": "mean", "test_max_sd": "sd"})
    chosen = selected_models()
    depths = ["baseline", *(column for column in chosen if column.startswith("conv"))]
    selected = chosen[depths].rename_axis(columns="finetune").stack()
    spread["selected"] = selected.reindex(spread.index)
    baseline = chosen["baseline"].reindex(spread.index.droplevel("finetune"))
    spread["selected_z"] = (spread["selected"] - spread["mean"]) / spread["sd"]
    gain = (spread["selected"] - baseline.to_numpy()) / spread["sd"]
    spread["gain_z"] = gain.where(spread.index.get_level_values("finetune") != "baseline")
    return spread.sort_index()


def cross_subject(alpha: float = 0.05, correction: str | None = None) -> pd.DataFrame:
    """Test whether a subject's own model predicts it best, against the other subjects' models.

    Parameters
    ----------
    alpha : float
        Level of the Wilcoxon tests over runs.
    correction : str, optional
        One of :data:`analysis_lib.stats.CORRECTIONS`, over the 30 pairs of an output space; the
        published tests are not corrected.

    Returns
    -------
    DataFrame
        By ``atlas``: ``n_pairs``, ``n_lower`` (median below the own model's), ``n_worse``
        (significantly so), ``n_better``; ``smallest`` and ``largest`` median difference; and
        ``exceptions``, the pairs that are not significantly worse, as ``subject<-model``.

    Examples
    --------
    >>> from analysis_lib import published_encoding
    >>> published_encoding.cross_subject()[["n_pairs", "n_lower", "n_worse"]]
                n_pairs  n_lower  n_worse
    atlas
    STG              30       30       30
    wholebrain       30       27       25
    """
    pairs = _comparisons()
    pairs = pairs[pairs["model_sub"] != "group model"]
    rows = {}
    for atlas, part in pairs.groupby("atlas"):
        difference = part["median_r2_diff_vs_own_model"].to_numpy()
        p_value = part["wilcoxon_p"].to_numpy()
        p_value = p_value if correction is None else adjust_p_values(p_value, correction)
        worse = (p_value < alpha) & (difference < 0)
        labels = part["data_sub"].str[-2:] + "<-" + part["model_sub"].str[-2:]
        rows[atlas] = {
            "n_pairs": len(part),
            "n_lower": int((difference < 0).sum()),
            "n_worse": int(worse.sum()),
            "n_better": int(((p_value < alpha) & (difference > 0)).sum()),
            "smallest": difference.min(),
            "largest": difference.max(),
            "exceptions": ", ".join(labels[~worse]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("atlas")


def group_against_own(alpha: float = 0.05) -> pd.DataFrame:
    """Compare the group model with the individual's own, on the individual's test runs.

    Parameters
    ----------
    alpha : float
        Level of the Wilcoxon tests over runs.

    Returns
    -------
    DataFrame
        By ``atlas`` and ``subject``: ``difference``, the group model's R² less the own model's,
        median over runs; ``p``; ``p_<correction>`` over the twelve tests for each of
        :data:`analysis_lib.stats.CORRECTIONS`; and ``verdict`` at ``alpha`` without correction
        (better, worse, unresolved).

    Examples
    --------
    >>> from analysis_lib import published_encoding
    >>> compared = published_encoding.group_against_own()
    >>> compared.loc["wholebrain", "verdict"].tolist()
    ['better', 'unresolved', 'worse', 'worse', 'better', 'unresolved']
    """
    pairs = _comparisons()
    pairs = pairs[pairs["model_sub"] == "group model"].set_index(["atlas", "data_sub"])
    compared = pd.DataFrame(
        {"difference": pairs["median_r2_diff_vs_own_model"], "p": pairs["wilcoxon_p"]}
    ).rename_axis(["atlas", "subject"])
    for name in CORRECTIONS:
        compared[f"p_{name}"] = adjust_p_values(compared["p"], name)
    direction = np.where(compared["difference"] > 0, "better", "worse")
    compared["verdict"] = np.where(compared["p"] < alpha, direction, "unresolved")
    return compared


def _comparisons() -> pd.DataFrame:
    pairs = table("freteault_cross_subject_generalisation")
    pairs["atlas"] = pairs["scale"].map(_SCALES)
    return pairs
