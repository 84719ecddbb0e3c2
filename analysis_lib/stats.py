"""Small statistics that the chapters share.

Thirty-six models are few, and many of them are relatives. So every correlation comes with an
interval, a rank correlation, and its value with each family of models left out.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from statsmodels.stats.multitest import multipletests

from .errors import DataError, ParameterError, UnknownNameError

__all__ = [
    "adjust_p_values",
    "bootstrap_interval",
    "correlate",
    "effective_dimensionality",
    "partial_correlation",
    "region_contrasts",
    "standard_error",
    "within_subject_error",
]

CORRECTIONS = MappingProxyType(
    {"benjamini-hochberg": "fdr_bh", "benjamini-yekutieli": "fdr_by", "holm": "holm"}
)


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    groups: Sequence[str] | None = None,
    n_boot: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Correlate two measures of the same things, and say how far to trust it.

    Parameters
    ----------
    x, y : sequences of shape (n,)
        Pairs in which either is NaN are left out.
    groups : sequence of shape (n,), optional
        Family of each pair: relatives are no independent evidence. Whole families are then
        drawn in the bootstrap, and left out one at a time.
    n_boot : int
        Draws for the intervals.
    confidence : float
        Coverage of the percentile intervals.
    seed : int
        Same seed, same draws.

    Returns
    -------
    Dataset
        Over ``kind`` (pearson, spearman): ``r``, ``p_value`` (two-sided, as if pairs were
        independent), ``low``, ``high``; ``n``; and with groups ``r_without`` (kind, group).

    Raises
    ------
    DataError
        When lengths differ, or fewer than 4 pairs are left, or either does not vary.

    Examples
    --------
    >>> from analysis_lib import stats
    >>> size, score = [1, 2, 3, 4, 5, 6], [1.1, 1.9, 3.2, 3.9, 5.1, 6.2]
    >>> result = stats.correlate(size, score, groups=list("aabbcc"), n_boot=200)
    >>> result["r"].sel(kind="pearson").round(3).item()
    0.998
    >>> dict(result["r_without"].sizes)
    {'kind': 2, 'group': 3}
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    labels = np.arange(len(x)) if groups is None else np.asarray(groups).astype(str)
    if not x.shape == y.shape == labels.shape or x.ndim != 1:
        raise DataError(
            f"x, y and groups must be of one length: {x.shape}, {y.shape}, {labels.shape}"
        )
    kept = np.isfinite(x) & np.isfinite(y)
    x, y, labels = x[kept], y[kept], labels[kept]
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise DataError(f"{len(x)} pairs, or one that does not vary, are too little to correlate")
    tests = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}
    results = [test(x, y) for test in tests.values()]
    draws = _bootstrapped_correlations(x, y, labels, n_boot, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    dataset = xr.Dataset(
        {
            "r": ("kind", [result.statistic for result in results]),
            "p_value": ("kind", [result.pvalue for result in results]),
            "low": ("kind", np.nanquantile(draws, tail, axis=0)),
            "high": ("kind", np.nanquantile(draws, 1 - tail, axis=0)),
            "n": len(x),
        },
        coords={"kind": list(tests)},
        attrs={"n_boot": n_boot, "confidence": confidence, "seed": seed},
    )
    if groups is not None:
        families = np.unique(labels)
        without = [
            [_quiet(test, x[labels != f], y[labels != f]) for f in families]
            for test in tests.values()
        ]
        dataset["r_without"] = (("kind", "group"), without)
        dataset = dataset.assign_coords(group=families)
    return dataset


def partial_correlation(
    x: Sequence[float], y: Sequence[float], controls: np.ndarray
) -> tuple[float, float]:
    """Correlate what two measures share beyond what the controls explain of both.

    Parameters
    ----------
    x, y : sequences of shape (n,)
        Rows in which anything is NaN are left out. Ranks give the partial rank correlation.
    controls : array of shape (n,) or (n, n_controls)
        For instance the logarithm of a model's size, and its number of layers.

    Returns
    -------
    r, p_value : float
        Pearson correlation of the residuals of two linear regressions on the controls, and its
        two-sided p value with ``n - 2 - n_controls`` degrees of freedom.

    Raises
    ------
    DataError
        When lengths differ, too few rows are left, or the controls explain either in full.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import stats
    >>> rng = np.random.default_rng(0)
    >>> size = rng.standard_normal(200)
    >>> x, y = size + rng.standard_normal(200), size + rng.standard_normal(200)
    >>> r, p = stats.partial_correlation(x, y, size)
    >>> bool(abs(r) < np.corrcoef(x, y)[0, 1])
    True
    """
    controls = np.asarray(controls, dtype=float)
    controls = controls[:, None] if controls.ndim == 1 else controls
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not x.shape == y.shape == controls.shape[:1]:
        raise DataError(
            f"x, y and controls must be of one length: {x.shape}, {y.shape}, {controls.shape}"
        )
    kept = np.isfinite(x) & np.isfinite(y) & np.isfinite(controls).all(axis=1)
    pair = np.column_stack([x, y])[kept]
    design = np.column_stack([np.ones(kept.sum()), controls[kept]])
    freedom = len(pair) - 1 - np.linalg.matrix_rank(design)
    if freedom < 1:
        raise DataError(f"{len(pair)} rows are too few for {controls.shape[1]} controls")
    residuals = pair - design @ np.linalg.lstsq(design, pair, rcond=None)[0]
    if (residuals.std(axis=0) <= 1e-10 * pair.std(axis=0)).any():
        raise DataError("the controls explain one of the two in full: nothing is left to correlate")
    r = float(np.corrcoef(residuals.T)[0, 1])
    statistic = r * np.sqrt(freedom / max(1 - r**2, 1e-300))
    return r, float(2 * scipy.stats.t.sf(abs(statistic), freedom))


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    confidence: float = 0.95,
    n_boot: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent values.

    Parameters
    ----------
    values : array of shape (n,)
        NaN is left out.
    statistic : callable
        Takes an array and ``axis``.
    confidence, n_boot, seed
        Coverage, number of draws, and seed.

    Returns
    -------
    low, high : float
        NaN with fewer than two values.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import stats
    >>> low, high = stats.bootstrap_interval(np.arange(20.0), n_boot=500)
    >>> low < 9.5 < high
    True
    """
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return np.nan, np.nan
    draws = values[np.random.default_rng(seed).integers(0, len(values), (n_boot, len(values)))]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(draws, axis=1), [tail, 1 - tail])
    return float(low), float(high)


def standard_error(values: xr.DataArray, dim: str = "subject") -> xr.DataArray:
    """Estimate the standard error of a mean, with n - 1 in the variance; NaN is left out.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import stats
    >>> scores = xr.DataArray([0.1, 0.2, 0.3, 0.4], dims="subject")
    >>> stats.standard_error(scores).round(4).item()
    0.0645
    """
    n = values.notnull().sum(dim)
    return values.std(dim, ddof=1) / np.sqrt(n.where(n > 1))


def within_subject_error(
    values: xr.DataArray, dim: str = "subject", condition: str = "model"
) -> xr.DataArray:
    """Estimate the standard error over subjects without what subjects differ by in general.

    Each subject's mean over conditions is taken out first. With c conditions this shrinks the
    variance by (c - 1) / c, which is put back (Morey 2008).

    Parameters
    ----------
    values : DataArray (subject, condition, ...)
        Complete: a subject with NaN is left out.
    dim, condition : str
        Names of the dimensions of subjects and of conditions.

    Raises
    ------
    ParameterError
        With fewer than two conditions: there is then nothing within subjects.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import stats
    >>> scores = xr.DataArray([[0.1, 0.3], [0.5, 0.6], [0.7, 0.9]], dims=("subject", "model"))
    >>> stats.within_subject_error(scores).values.round(3)
    array([0.024, 0.024])
    >>> stats.standard_error(scores).values.round(3)
    array([0.176, 0.173])
    """
    n_conditions = values.sizes.get(condition, 1)
    if n_conditions < 2:
        raise ParameterError(f"a within-subject error needs at least two of {condition!r}")
    values = values.dropna(dim)
    centred = values - values.mean(condition)
    return standard_error(centred, dim) * np.sqrt(n_conditions / (n_conditions - 1))


def adjust_p_values(p_values: np.ndarray, method: str = "benjamini-hochberg") -> np.ndarray:
    """Adjust p-values for having tested many times.

    Parameters
    ----------
    p_values : array of any shape
        NaN stays NaN and does not count as a test.
    method : {"benjamini-hochberg", "benjamini-yekutieli", "holm"}
        False discovery rate for independent or positively dependent tests, for any dependence,
        or family-wise error rate.

    Returns
    -------
    array of the same shape

    Examples
    --------
    >>> from analysis_lib import stats
    >>> stats.adjust_p_values([0.01, 0.02, 0.5]).round(3)
    array([0.03, 0.03, 0.5 ])
    >>> stats.adjust_p_values([0.01, 0.02, 0.5], "holm").round(3)
    array([0.03, 0.04, 0.5 ])
    """
    if method not in CORRECTIONS:
        raise UnknownNameError("correction", method, CORRECTIONS)
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        adjusted[tested] = multipletests(p_values[tested], method=CORRECTIONS[method])[1]
    return adjusted


def region_contrasts(
    positions: xr.DataArray, reference: str = "Primary", dim: str = "model"
) -> pd.DataFrame:
    """Test whether regions differ from a reference region, with models or subjects as pairs.

    Parameters
    ----------
    positions : DataArray (model, roi)
        As :func:`analysis_lib.encoding.layer_choice.best_layer_position`, averaged over the rest.
    reference : str
        The region to compare with.
    dim : str
        What is paired.

    Returns
    -------
    DataFrame
        Per other region: mean position there and in the reference, Wilcoxon's signed-rank
        ``statistic``, ``p_value`` (two-sided), ``p_adjusted`` (Benjamini-Hochberg) and ``n``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import stats
    >>> depth = xr.DataArray(
    ...     np.linspace([0.2, 0.6], [0.4, 0.9], 8),
    ...     dims=("model", "roi"),
    ...     coords={"roi": ["Primary", "Lateral"]},
    ... )
    >>> stats.region_contrasts(depth)["p_value"].round(4).tolist()
    [0.0078]
    """
    regions = [str(roi) for roi in positions["roi"].values]
    if reference not in regions:
        raise UnknownNameError("region", reference, regions)
    rows = []
    for region in regions:
        if region == reference:
            continue
        pair = positions.sel(roi=[reference, region]).transpose(dim, "roi").dropna(dim).values
        differ = len(pair) > 0 and (pair[:, 0] != pair[:, 1]).any()
        test = scipy.stats.wilcoxon(pair[:, 0], pair[:, 1]) if differ else None
        rows.append(
            {
                "roi": region,
                "mean": pair[:, 1].mean() if len(pair) else np.nan,
                "mean_reference": pair[:, 0].mean() if len(pair) else np.nan,
                "statistic": test.statistic if test else np.nan,
                "p_value": test.pvalue if test else np.nan,
                "n": len(pair),
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_adjusted"] = adjust_p_values(table["p_value"])
    return table


def effective_dimensionality(x: np.ndarray | xr.DataArray, standardize: bool = False) -> float:
    """Effective number of dimensions that a representation of sounds spreads over.

    Parameters
    ----------
    x : array of shape (n_sounds, n_units)
        Units with NaN are left out.
    standardize : bool
        Scale units to unit standard deviation first.

    Returns
    -------
    float
        (Σλ)² / Σλ² of the covariance between sounds' patterns, which is centred over sounds and
        over units (Tuckute et al. 2023): 1 if one direction holds all variance, at most
        ``n_sounds - 1``; NaN if nothing varies.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import stats
    >>> line = np.outer(np.arange(5), [1, 2, 3])
    >>> round(stats.effective_dimensionality(line), 3)
    1.0
    """
    x = np.asarray(x, dtype=np.float64)
    x = x[:, np.isfinite(x).all(axis=0)]
    if x.shape[1] < 2:
        raise DataError("effective dimensionality needs at least two units without NaN")
    x = x - x.mean(axis=0)
    if standardize:
        spread = x.std(axis=0)
        x = x / np.where(spread > 0, spread, 1)
    x = x - x.mean(axis=1, keepdims=True)
    covariance = x @ x.T
    total = np.trace(covariance)
    return float(total**2 / (covariance**2).sum()) if total > 0 else np.nan


def _bootstrapped_correlations(
    x: np.ndarray, y: np.ndarray, labels: np.ndarray, n_boot: int, rng: np.random.Generator
) -> np.ndarray:
    """Pearson and Spearman correlations of draws of whole families, (n_boot, 2)."""
    families, member = np.unique(labels, return_inverse=True)
    counts = rng.multinomial(len(families), np.full(len(families), 1 / len(families)), n_boot)
    weights = counts[:, member].astype(float)
    x, y = scipy.stats.zscore(x), scipy.stats.zscore(y)
    pearson = _weighted_correlation(np.broadcast_to(x, weights.shape), y[None], weights)
    ranks = [_weighted_ranks(v, weights) for v in (x, y)]
    return np.stack([pearson, _weighted_correlation(*ranks, weights)], axis=1)


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Midranks of ``values`` (n,) under each row of ``weights`` (n_boot, n)."""
    _, place = np.unique(values, return_inverse=True)
    per_value = np.zeros((len(weights), place.max() + 1))
    np.add.at(per_value, (slice(None), place), weights)
    until = per_value.cumsum(axis=1)
    return (until - per_value / 2)[:, place]


def _weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    a = a - (a * weights).sum(axis=1, keepdims=True) / total
    b = b - (b * weights).sum(axis=1, keepdims=True) / total
    product, square_a, square_b = (
        (weights * u * v).sum(axis=1) for u, v in ((a, b), (a, a), (b, b))
    )
    scale = np.sqrt(square_a * square_b)
    return np.divide(product, scale, out=np.full(len(weights), np.nan), where=scale > 1e-12)


def _quiet(test: Callable, x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(test(x, y).statistic)
