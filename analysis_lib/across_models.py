"""Whether what models are good at goes with how much they look like a brain.

One number per model on either side, and a dozen to three dozen models: the question is always
what such a correlation can carry. So it comes with intervals, ranks, every model and every
family left out, controls, and an account of how many correlations were looked at.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from .errors import ParameterError
from .stats import adjust_p_values, correlate, partial_correlation

__all__ = ["associate", "associate_tasks", "critical_correlation"]

UNITS = ("model", "family")


def associate(
    performance: pd.Series,
    alignment: pd.DataFrame,
    families: pd.Series,
    controls: pd.DataFrame | None = None,
    resample: str = "model",
    n_boot: int = 10_000,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate the performance of models with each measure of their alignment.

    Parameters
    ----------
    performance : Series (n_models,)
        By model.
    alignment : DataFrame of shape (n_models, n_measures)
        By model; NaN where a model has no value.
    families : Series (n_models,)
        Which models are relatives.
    controls : DataFrame of shape (n_models, n_controls), optional
        For the partial correlation, such as the logarithm of the size and the number of layers.
    resample : {"model", "family"}
        What the bootstrap draws: models as if they were independent, or whole families.
    n_boot, n_permutations : int
        Draws for the intervals and for the family-wise error rate.
    seed : int
        Same seed, same draws.

    Returns
    -------
    DataFrame
        By measure: ``n``; ``pearson`` and ``spearman``, each with ``_low`` and ``_high`` (95 %
        percentile interval); ``p`` of Pearson's correlation as if models were independent,
        ``p_adjusted`` (Benjamini-Hochberg over measures) and ``p_family_wise`` (share of
        permutations of the models in which any measure correlates as strongly). For ``unit`` in
        model and family: the range of Pearson's correlation with one left out,
        ``without_{unit}_low`` and ``_high``, and the one that changes it most,
        ``decisive_{unit}``. With controls ``partial`` and ``partial_p``.

    Raises
    ------
    ParameterError
        When ``resample`` is neither.
    DataError
        When a measure has fewer than 4 models, does not vary, or is explained by the controls.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from analysis_lib import across_models
    >>> rng, names = np.random.default_rng(0), [f"model-{k}" for k in range(8)]
    >>> score = pd.Series(rng.standard_normal(8), names)
    >>> alignment = pd.DataFrame({"voxels": score + 0.1 * rng.standard_normal(8)})
    >>> families = pd.Series(list("aabbccdd"), names)
    >>> table = across_models.associate(score, alignment, families, n_boot=100, n_permutations=100)
    >>> table.loc["voxels", ["n", "pearson"]].astype(float).round(2).to_dict()
    {'n': 8.0, 'pearson': 0.99}
    """
    if resample not in UNITS:
        raise ParameterError(f"resample must be one of {', '.join(UNITS)}, not {resample!r}")
    models = performance.index
    alignment, groups = alignment.loc[models], {"model": models, "family": families.loc[models]}
    rows = {}
    for measure, values in alignment.items():
        by_unit = {
            unit: correlate(
                performance, values, group, n_boot if unit == resample else 1, seed=seed
            )
            for unit, group in groups.items()
        }
        row = _with_intervals(by_unit[resample])
        for unit, found in by_unit.items():
            row |= _left_out(found, unit)
        if controls is not None:
            row["partial"], row["partial_p"] = partial_correlation(
                performance, values, controls.loc[models].to_numpy()
            )
        rows[measure] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")
    table["p_adjusted"] = adjust_p_values(table["p"])
    largest = _largest_by_chance(performance, alignment, n_permutations, seed)
    reached = largest >= table["pearson"].abs().to_numpy()[:, None] - 1e-12
    table["p_family_wise"] = (1 + reached.sum(axis=1)) / (1 + n_permutations)
    return table


def associate_tasks(scores: pd.DataFrame, alignment: pd.DataFrame) -> pd.DataFrame:
    """Correlate every task with every measure of alignment, over models.

    Parameters
    ----------
    scores : DataFrame of shape (n_models, n_tasks)
        By model.
    alignment : DataFrame of shape (n_models, n_measures)
        By model.

    Returns
    -------
    DataFrame
        A row per ``task`` and ``measure``: ``n``, ``pearson``, ``spearman``, ``p`` of Pearson's
        correlation, and ``p_adjusted`` (Benjamini-Hochberg over all rows).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from analysis_lib import across_models
    >>> names = [f"model-{k}" for k in range(6)]
    >>> scores = pd.DataFrame({"pitch": np.arange(6.0), "digits": [3.0, 1, 4, 1, 5, 9]}, names)
    >>> alignment = pd.DataFrame({"voxels": np.arange(6.0) ** 2}, names)
    >>> across_models.associate_tasks(scores, alignment)[["task", "spearman"]].round(2)
         task  spearman
    0   pitch      1.00
    1  digits      0.67
    """
    rows = []
    for task, score in scores.items():
        for measure, values in alignment.loc[scores.index].items():
            found = correlate(score, values, n_boot=1)
            pearson, spearman = found["r"].values
            p_value = float(found["p_value"][0])
            rows.append((task, measure, int(found["n"]), pearson, spearman, p_value))
    table = pd.DataFrame(rows, columns=["task", "measure", "n", "pearson", "spearman", "p"])
    table["p_adjusted"] = adjust_p_values(table["p"])
    return table


def critical_correlation(n: int, level: float = 0.05) -> float:
    """Smallest Pearson correlation of ``n`` pairs that a two-sided test calls significant.

    Raises
    ------
    ParameterError
        With fewer than 3 pairs.

    Examples
    --------
    >>> from analysis_lib import across_models
    >>> round(across_models.critical_correlation(36), 3)
    0.329
    """
    if n < 3:
        raise ParameterError(f"a correlation is tested with at least 3 pairs, not {n}")
    t = scipy.stats.t.isf(level / 2, n - 2)
    return float(t / np.sqrt(n - 2 + t**2))


def _with_intervals(found: xr.Dataset) -> dict:
    row = {"n": int(found["n"]), "p": float(found["p_value"].sel(kind="pearson"))}
    for kind in found["kind"].values:
        one = found.sel(kind=kind)
        row |= {str(kind): float(one["r"])}
        row |= {f"{kind}_{side}": float(one[side]) for side in ("low", "high")}
    return row


def _left_out(found: xr.Dataset, unit: str) -> dict:
    """Range of Pearson's correlation with one model or family left out, and the decisive one."""
    pearson = found.sel(kind="pearson")
    without = pearson["r_without"].dropna("group")
    if not without.size:
        return {f"without_{unit}_low": np.nan, f"without_{unit}_high": np.nan}
    decisive = without["group"][int(np.abs(without - pearson["r"]).values.argmax())]
    return {
        f"without_{unit}_low": float(without.min()),
        f"without_{unit}_high": float(without.max()),
        f"decisive_{unit}": str(decisive.item()),
    }


def _largest_by_chance(
    performance: pd.Series, alignment: pd.DataFrame, n_permutations: int, seed: int
) -> np.ndarray:
    """Largest absolute correlation over measures when models are shuffled, (n_permutations,)."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(performance.to_numpy(float), (n_permutations, 1)), axis=1)
    largest = np.zeros(n_permutations)
    for _, values in alignment.items():
        known = values.notna().to_numpy()
        largest = np.maximum(largest, np.abs(_correlations(shuffled[:, known], values[known])))
    return largest


def _correlations(rows: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Pearson correlation of each row with the values."""
    a = rows - rows.mean(axis=1, keepdims=True)
    b = np.asarray(values, dtype=float) - np.mean(values)
    return (a @ b) / np.sqrt((a**2).sum(axis=1) * (b**2).sum())
