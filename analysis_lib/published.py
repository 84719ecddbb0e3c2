"""The papers' published numbers as labelled data, and what can be re-derived from them.

The tables stand in ``data/tables``; its ``README.md`` says where each comes from and how exact
it is.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from .errors import ParameterError, UnknownNameError
from .stats import adjust_p_values

__all__ = [
    "ALIGNMENT_COLUMNS",
    "global_score",
    "overall_correlations",
    "rank_gains",
    "summarise_rank_gains",
    "table",
    "tables",
    "task_changes",
    "weakest_models",
]

_TABLES = Path(__file__).parent / "data" / "tables"

# Row of the paper's Table 1 -> column of the digitised table.
ALIGNMENT_COLUMNS = {
    "REG_NH2015_mean": "REG_NH2015",
    "REG_B2021_mean": "REG_B2021",
    "rsa_nh2015_max": "RSA_NH2015_maxlayer",
    "rsa_b2021_max": "RSA_B2021_maxlayer",
}
_SUBSETS = {"All": -np.inf, "Overall>-1": -1.0}


def tables() -> list[str]:
    """Names of the tables.

    Examples
    --------
    >>> from analysis_lib import published
    >>> "pepino_models" in published.tables()
    True
    """
    return sorted(path.stem for path in _TABLES.glob("*.csv"))


def table(name: str) -> pd.DataFrame:
    """Load a published table.

    Parameters
    ----------
    name : str
        One of :func:`tables`.

    Returns
    -------
    DataFrame
        A copy, free to change.

    Examples
    --------
    >>> from analysis_lib import published
    >>> published.table("pepino_models").shape[0]
    36
    """
    if name not in tables():
        raise UnknownNameError("published table", name, tables())
    return _read(name).copy()


@lru_cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(_TABLES / f"{name}.csv")


def global_score(scores: pd.DataFrame) -> pd.Series:
    """Overall performance of each model: the mean over tasks of its z scores.

    ``z = (score - mean over models) / standard deviation over models`` with ``n - 1`` in the
    denominator, as in Pepino et al. (2025). A missing score is left out of both; a task on
    which all models score the same says nothing and is refused.

    Parameters
    ----------
    scores : DataFrame of shape (n_models, n_tasks)
        Higher is better.

    Returns
    -------
    Series (n_models,)

    Raises
    ------
    ParameterError
        When there are fewer than two models, or a task's scores do not vary.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import published
    >>> scores = {"pitch": [0.2, 0.4, 0.6], "digits": [0.5, 0.9, 0.7]}
    >>> published.global_score(pd.DataFrame(scores, ["a", "b", "c"])).round(2).to_dict()
    {'a': -1.0, 'b': 0.5, 'c': 0.5}
    """
    if len(scores) < 2:
        raise ParameterError(f"a global score compares models; {len(scores)} given")
    spread = scores.std(ddof=1)
    constant = spread.index[~(spread > 1e-12)].tolist()
    if constant:
        raise ParameterError(
            f"all models score the same on {', '.join(map(str, constant))}: leave the task out"
        )
    return ((scores - scores.mean()) / spread).mean(axis=1).rename("global")


def overall_correlations() -> pd.DataFrame:
    """Table 1 of Pepino et al. (2025), column *Overall*, re-derived from the digitised figure.

    Returns
    -------
    DataFrame
        One row per alignment measure and subset: ``n``, ``pearson`` and its two-sided ``p``,
        ``spearman``, and the ``printed`` correlation. The components' correlations leave out
        the filter bank, whose values are drawn as a line.

    Examples
    --------
    >>> from analysis_lib import published
    >>> table = published.overall_correlations()
    >>> table.loc[("REG_B2021", "All"), ["pearson", "printed"]].astype(float).round(3).to_dict()
    {'pearson': 0.895, 'printed': 0.895}
    """
    models, printed = (
        table("pepino_models_alignment_approx"),
        table("pepino_table1_correlations_exact"),
    )
    models = models.merge(table("pepino_components_approx").drop(columns="label"), how="left")
    rows = []
    for _, row in printed.iterrows():
        component = row["component"] if isinstance(row["component"], str) else None
        column = component or ALIGNMENT_COLUMNS[row["target"]]
        chosen = models[models["DOWNSTREAM_global"] > _SUBSETS[row["subset"]]].dropna(
            subset=[column]
        )
        overall = chosen["DOWNSTREAM_global"]
        pearson = scipy.stats.pearsonr(overall, chosen[column])
        rows.append({
            "target": column,
            "subset": row["subset"],
            "n": len(chosen),
            "pearson": pearson.statistic,
            "p": pearson.pvalue,
            "spearman": scipy.stats.spearmanr(overall, chosen[column]).statistic,
            "printed": row["Overall"],
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["target", "subset"])


def weakest_models(column: str = "REG_NH2015", n_most: int = 8) -> pd.DataFrame:
    """Show what the weakest models carry: the correlation without the worst 0, 1, 2, ... models.

    Parameters
    ----------
    column : str
        Alignment measure of the digitised table.
    n_most : int
        How many models to leave out at most, from the lowest global score up.

    Returns
    -------
    DataFrame
        ``left_out``, the model that goes at this step, with its ``family`` and ``global``
        score; ``n``, ``pearson`` and ``spearman`` of those that stay.

    Examples
    --------
    >>> from analysis_lib import published
    >>> published.weakest_models("REG_NH2015", n_most=2)[["left_out", "n", "pearson"]].round(2)
                     left_out   n  pearson
    n_out
    0                          36     0.90
    1      braindnn_dcase2020  35     0.86
    2      braindnn_metricgan  34     0.80
    """
    models = table("pepino_models_alignment_approx").merge(
        table("pepino_models")[["model", "family"]], how="left"
    )
    if column not in models:
        raise UnknownNameError("alignment measure", column, ALIGNMENT_COLUMNS.values())
    if not 0 <= n_most <= len(models) - 3:
        raise ParameterError(f"n_most must be between 0 and {len(models) - 3}, not {n_most}")
    models = models.sort_values("DOWNSTREAM_global").reset_index(drop=True)
    rows = []
    for n_out in range(n_most + 1):
        stay = models.iloc[n_out:]
        gone = models.iloc[n_out - 1] if n_out else None
        rows.append({
            "n_out": n_out,
            "left_out": gone["model"] if n_out else "",
            "family": gone["family"] if n_out else "",
            "global": gone["DOWNSTREAM_global"] if n_out else np.nan,
            "n": len(stay),
            "pearson": scipy.stats.pearsonr(stay["DOWNSTREAM_global"], stay[column]).statistic,
            "spearman": scipy.stats.spearmanr(stay["DOWNSTREAM_global"], stay[column]).statistic,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("n_out")


def task_changes(missing: str = "unchanged", alpha: float = 0.05) -> pd.DataFrame:
    """Which HEAR tasks brain-tuning changed, as tested by Freteault et al. (2025).

    Per task, a Wilcoxon signed-rank test of the 24 models fine-tuned from conv4 (12 individual,
    12 group) against the median of the 12 without fine-tuning; two-sided, not corrected for
    the number of tasks.

    Parameters
    ----------
    missing : {"unchanged", "dropped"}
        On two tasks six models have no score. The published analysis lets the test become NaN
        and counts the task as unchanged; ``"dropped"`` tests the models that have one.
    alpha : float
        Level of the test.

    Returns
    -------
    DataFrame
        By task: ``n_models``, ``baseline``, ``median_change``, ``p``, ``verdict`` (improved,
        worsened, unchanged), and ``p_holm``, corrected over the tasks tested.

    Examples
    --------
    >>> from analysis_lib import published
    >>> published.task_changes()["verdict"].value_counts().sort_index().to_dict()
    {'improved': 12, 'unchanged': 5, 'worsened': 2}
    """
    if missing not in ("unchanged", "dropped"):
        raise ParameterError(f"missing must be 'unchanged' or 'dropped', not {missing!r}")
    baseline, tuned = _tuned_and_baseline()
    rows = []
    for name in baseline.index:
        change = (tuned[name] - baseline[name]).dropna()
        testable = missing == "dropped" or len(change) == len(tuned)
        p = scipy.stats.wilcoxon(change).pvalue if testable else np.nan
        median = change.median()
        # A median of exactly 0 is no change, however the ranks fall (Maestro).
        direction = {1: "improved", -1: "worsened"}.get(int(np.sign(median)), "unchanged")
        rows.append({
            "task": name,
            "n_models": len(change),
            "baseline": baseline[name],
            "median_change": median,
            "p": p,
            "verdict": direction if p < alpha else "unchanged",
        })  # fmt: skip
    changes = pd.DataFrame(rows).set_index("task")
    changes["p_holm"] = adjust_p_values(changes["p"], "holm")
    return changes


def rank_gains() -> pd.DataFrame:
    """Places gained on the HEAR leaderboard by each brain-tuned model on each task.

    Each model is entered into the leaderboard of 29 together with the baseline (the median of
    the 12 models without fine-tuning); the gain is the baseline's rank minus the model's.

    Returns
    -------
    DataFrame
        ``training`` (individual, group), ``subject``, ``atlas`` (wholebrain, STG), ``task``,
        ``gain``; NaN where the model has no score.

    Examples
    --------
    >>> from analysis_lib import published
    >>> published.rank_gains()["training"].unique().tolist()
    ['group', 'individual']
    """
    baseline, tuned = _tuned_and_baseline()
    leaderboard = table("hear_leaderboard_29models").set_index("Model")
    rows = []
    for (training, subject, atlas), scores in tuned.iterrows():
        for name in leaderboard.columns:
            entered = pd.concat(
                [leaderboard[name], pd.Series({"tuned": scores[name], "baseline": baseline[name]})]
            )
            ranks = entered.rank(ascending=False)
            rows.append((training, subject, atlas, name, ranks["baseline"] - ranks["tuned"]))
    return pd.DataFrame(rows, columns=["training", "subject", "atlas", "task", "gain"])


def summarise_rank_gains(gains: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean rank gain by output space and training, and the test between trainings.

    Parameters
    ----------
    gains : DataFrame, optional
        From :func:`rank_gains`.

    Returns
    -------
    DataFrame
        By ``atlas``: mean gain over subjects and tasks of ``individual`` and ``group`` models,
        and ``p`` of a Wilcoxon test over pairs of subject and task.

    Examples
    --------
    >>> from analysis_lib import published
    >>> published.summarise_rank_gains()[["individual", "group"]].round(2)
    training    individual  group
    atlas
    STG               1.66   2.43
    wholebrain        2.24   1.79
    """
    gains = rank_gains() if gains is None else gains
    means = gains.groupby(["atlas", "training"])["gain"].mean().unstack()
    for atlas, part in gains.groupby("atlas"):
        pairs = part.pivot(index=["subject", "task"], columns="training", values="gain").dropna()
        means.loc[atlas, "p"] = scipy.stats.wilcoxon(pairs["individual"], pairs["group"]).pvalue
    return means


@lru_cache
def _tuned_and_baseline() -> tuple[pd.Series, pd.DataFrame]:
    """Baseline per task, and scores (model, task) of the models tuned from conv4."""
    scores = _read("hear_freteault_long")
    # One source repeats rows of another, and the leaderboard uses one of two Beehive folds.
    scores = scores[(scores["source"] != "metrics_sub4.csv") & (scores["task"] != "Beehive_fold1")]
    baseline = scores[scores["finetune"] == "no"].groupby("task")["score"].median()
    tuned = scores[scores["finetune"] == "conv4"].pivot(
        index=["training", "subject", "atlas"], columns="task", values="score"
    )
    return baseline, tuned
