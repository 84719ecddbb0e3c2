"""Models against each other over runs, and subjects against each other."""

from collections.abc import Mapping

import numpy as np
import scipy
import xarray as xr

from ..errors import AlignmentError, DataError, ParameterError
from ..stats import adjust_p_values
from .scores import Runs, pearson, require, targets_of, tested

__all__ = ["compare_runs", "intersubject_ceiling", "specificity"]


def compare_runs(
    first: xr.DataArray, second: xr.DataArray, alternative: str = "two-sided"
) -> xr.Dataset:
    """Wilcoxon's signed-rank test over runs, as Freteault et al. (2025) test parcels.

    Parameters
    ----------
    first, second : DataArray (run, target)
        Scores from :func:`score_runs`; matched by run. NaN runs of a target are left out.
    alternative : {"two-sided", "greater", "less"}
        ``"greater"``: the first is better.

    Returns
    -------
    Dataset (target)
        ``gain``, the median difference; ``p_value``; ``p_bh``, ``p_by`` adjusted over targets;
        ``n`` runs. NaN with fewer than two runs or without any difference. Five runs or fewer
        cannot reach p < 0.05 two-sided.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from analysis_lib import time_series
    >>> runs = {"run": [f"s04e0{i}a" for i in range(1, 7)], "target": ["STG"]}
    >>> frozen = xr.DataArray(np.full((6, 1), 0.1), dims=("run", "target"), coords=runs)
    >>> tuned = frozen + np.array([[0.01], [0.02], [0.03], [0.04], [0.05], [0.06]])
    >>> found = time_series.compare_runs(tuned, frozen)
    >>> round(found["gain"].item(), 3), found["p_value"].item(), found["n"].item()
    (0.035, 0.03125, 6)
    """
    first, second = xr.align(first, second, join="inner")
    if first.sizes["run"] == 0:
        raise AlignmentError("the two models share no run")
    difference = (first - second).transpose("run", "target").values
    p_value = np.array([_signed_rank(column, alternative) for column in difference.T])
    known = np.isfinite(difference)
    gain = np.full(difference.shape[1], np.nan)
    some = known.any(axis=0)
    gain[some] = np.nanmedian(difference[:, some], axis=0)
    result = tested(gain, p_value, first["target"].values)
    return result.assign(n=("target", known.sum(axis=0)))


def intersubject_ceiling(responses: Mapping[str, Runs]) -> xr.Dataset:
    """How well subjects predict each other: what a model of the stimulus alone may hope for.

    Parameters
    ----------
    responses : mapping of subject to mapping of run to array (n_trs, n_targets)
        Measured responses of at least two subjects with the same targets. Only runs that all
        have count, cropped to the shortest.

    Returns
    -------
    Dataset (subject, run, target)
        ``lower``: r with the mean of the other subjects. ``upper``: r with the mean of all, the
        subject included. A model of an individual may exceed both where the subject answers the
        stimulus in a way of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> first = np.array([[0.0], [1.0], [2.0], [1.0]])
    >>> responses = {
    ...     "sub-01": {"s04e01a": first},
    ...     "sub-02": {"s04e01a": 3 * first + 1},  # the same course
    ...     "sub-03": {"s04e01a": -first},  # the opposite
    ... }
    >>> ceiling = time_series.intersubject_ceiling(responses)
    >>> ceiling["upper"].sel(run="s04e01a").values.ravel()
    array([ 1.,  1., -1.])
    """
    subjects = list(responses)
    if len(subjects) < 2:
        raise ParameterError("subjects can only be compared with at least one other")
    runs = [run for run in responses[subjects[0]] if all(run in responses[s] for s in subjects)]
    if not runs:
        raise AlignmentError(f"{', '.join(subjects)} share no run")
    lower, upper = [], []
    for run in runs:
        n_trs = min(len(responses[s][run]) for s in subjects)
        values = np.stack([np.asarray(responses[s][run], dtype=float)[:n_trs] for s in subjects])
        values = values - values.mean(axis=1, keepdims=True)
        spread = values.std(axis=1, keepdims=True)
        values = values / np.where(spread > 0, spread, np.nan)
        total = values.sum(axis=0)
        lower.append([pearson(total - own, own) for own in values])
        upper.append([pearson(total, own) for own in values])
    dims = ("run", "subject", "target")
    return xr.Dataset(
        {"lower": (dims, np.array(lower)), "upper": (dims, np.array(upper))},
        coords={"run": runs, "subject": subjects, "target": targets_of(responses[subjects[0]])},
    ).transpose("subject", "run", "target")


def specificity(scores: xr.DataArray, alternative: str = "two-sided") -> xr.Dataset:
    """Test whether each subject is predicted best by the model that was fitted to it.

    Parameters
    ----------
    scores : DataArray (model, subject, run)
        Score of each model on each subject's runs, at one target or averaged over targets.
        ``model`` is named by the subject it was fitted to, or otherwise (``"group"``).
    alternative : str
        Of the Wilcoxon test; ``"less"``: the other model is worse.

    Returns
    -------
    Dataset
        ``difference`` (model, subject): median over runs of the model's score less the own
        model's; ``p_value``, ``p_bh`` and ``p_by`` (model, subject), NaN on the diagonal; and
        ``n_worse`` (subject): how many of the other subjects' models have a lower median.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from analysis_lib import time_series
    >>> scores = xr.DataArray(
    ...     np.full((3, 2, 6), 0.1) + 0.01 * np.arange(6),
    ...     dims=("model", "subject", "run"),
    ...     coords={"model": ["sub-01", "sub-02", "group"], "subject": ["sub-01", "sub-02"]},
    ... )
    >>> scores.loc["sub-02", "sub-01"] = 0.05  # worse than the subject's own model in every run
    >>> found = time_series.specificity(scores)
    >>> found["n_worse"].values
    array([1, 0])
    >>> found["p_value"].sel(model="sub-02", subject="sub-01").item()
    0.03125
    """
    models = [str(m) for m in scores["model"].values]
    subjects = [str(s) for s in scores["subject"].values]
    missing = [s for s in subjects if s not in models]
    if missing:
        raise DataError(f"there is no model fitted to {', '.join(missing)}")
    values = scores.transpose("model", "subject", "run").values
    own = values[[models.index(s) for s in subjects], np.arange(len(subjects))]
    difference = values - own
    p_value = np.array([[_signed_rank(d, alternative) for d in row] for row in difference])
    for j, subject in enumerate(subjects):
        p_value[models.index(subject), j] = np.nan
    median = np.nanmedian(difference, axis=2)
    others = np.array([[m in subjects and m != s for s in subjects] for m in models])
    dims = ("model", "subject")
    return xr.Dataset(
        {
            "difference": (dims, median),
            "p_value": (dims, p_value),
            "p_bh": (dims, adjust_p_values(p_value, "benjamini-hochberg")),
            "p_by": (dims, adjust_p_values(p_value, "benjamini-yekutieli")),
            "n_worse": ("subject", (others & (median < 0)).sum(axis=0)),
        },
        coords={"model": models, "subject": subjects},
    )


def _signed_rank(difference: np.ndarray, alternative: str) -> float:
    require(alternative, ("two-sided", "greater", "less"), "alternative")
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2 or not difference.any():
        return np.nan
    return float(scipy.stats.wilcoxon(difference, alternative=alternative).pvalue)
