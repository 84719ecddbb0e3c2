"""How well responses are predicted, run by run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ..time_series.scores import pearson, r_squared
from .segments import Recordings

__all__ = ["predicted_runs", "scored", "summarise"]


def scored(
    predictions: Mapping[str, np.ndarray],
    unheard: Recordings,
    row_of: Mapping[str, int],
    targets: pd.DataFrame,
) -> xr.Dataset:
    """Score predictions against what was measured, and give both names.

    Parameters
    ----------
    predictions : mapping of run to array of shape (n_heads, n_trs, n_targets)
        NaN where nothing is predicted.
    unheard : Recordings
        Of the same runs.
    row_of : mapping of str to int
        Head of each subject, in the order of ``unheard``.
    targets : DataFrame
        By name; ``x``, ``y``, ``z`` and ``hemisphere`` are passed on.

    Returns
    -------
    Dataset
        ``r2`` and ``r`` (subject, run, target), ``prediction`` (head, run, time, target).
    """
    runs, subjects, target = list(predictions), list(row_of), list(map(str, targets.index))
    longest = max(unheard.n_trs[run] for run in runs)
    n_heads = max(row_of.values()) + 1
    stored = np.full((n_heads, len(runs), longest, len(target)), np.nan, dtype=np.float32)
    scores = np.full((2, len(subjects), len(runs), len(target)), np.nan)
    for column, run in enumerate(runs):
        stored[:, column, : unheard.n_trs[run]] = predictions[run][:n_heads]
        for row, subject in enumerate(subjects):
            present = unheard.present[run][row]
            if present.any():
                predicted = predictions[run][row_of[subject]]
                present = present & np.isfinite(predicted).any(axis=1)
                measured, predicted = unheard.responses[run][row][present], predicted[present]
                known = np.where(unheard.known[row], 1, np.nan)
                scores[0, row, column] = r_squared(predicted, measured) * known
                scores[1, row, column] = pearson(predicted, measured) * known
    places = {
        name: ("target", targets[name].to_numpy())
        for name in ("x", "y", "z", "hemisphere")
        if name in targets
    }
    return xr.Dataset(
        {
            "r2": (("subject", "run", "target"), scores[0]),
            "r": (("subject", "run", "target"), scores[1]),
            "prediction": (("head", "run", "time", "target"), stored),
        },
        {
            "subject": subjects, "run": runs, "target": target,
            "time": unheard.tr * np.arange(longest), **places,
        },
    )  # fmt: skip


def predicted_runs(result: xr.Dataset, head: int = 0) -> dict[str, np.ndarray]:
    """Take the predictions apart, as :mod:`analysis_lib.time_series` wants them.

    Parameters
    ----------
    result : Dataset
        From :func:`analysis_lib.finetuning.finetune` or :func:`analysis_lib.finetuning.ridge`.
    head : int
        Which of several heads.

    Returns
    -------
    dict of str to array of shape (n_trs, n_targets)
        By run, cut at its end; NaN where nothing is predicted.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from analysis_lib import finetuning
    >>> prediction = np.zeros((1, 2, 5, 3))
    >>> prediction[0, 1, 4] = np.nan  # the second run is shorter
    >>> result = xr.Dataset(
    ...     {"prediction": (("head", "run", "time", "target"), prediction)},
    ...     {"run": ["s04e01a", "s04e01b"]},
    ... )
    >>> {run: values.shape for run, values in finetuning.predicted_runs(result).items()}
    {'s04e01a': (5, 3), 's04e01b': (4, 3)}
    """
    runs = {}
    for name, values in zip(
        result["run"].values, result["prediction"].isel(head=head).values, strict=True
    ):
        known = np.flatnonzero(np.isfinite(values).any(axis=1))
        runs[str(name)] = values[: known[-1] + 1]
    return runs


def summarise(
    results: Mapping[str, xr.Dataset],
    subject: str,
    parcels: np.ndarray,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average R² over parcels of a kind, with intervals over runs.

    Parameters
    ----------
    results : mapping of str to Dataset
        By model: ``r2`` (subject, run, target).
    subject : str
        Whose scores.
    parcels : array of str, shape (n_targets,)
        Kind of each parcel.
    n_boot : int
        Draws of runs.
    seed : int
        Same seed, same draws.

    Returns
    -------
    DataFrame
        Columns ``model``, ``parcels``, ``score``, ``low`` and ``high`` (95 %).

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from analysis_lib import finetuning
    >>> r2 = xr.DataArray(
    ...     [[[0.1, 0.3, 0.0], [0.3, 0.5, 0.2]]], {"subject": ["sub-01"]},
    ...     ("subject", "run", "target"),
    ... )
    >>> kinds = np.array(["auditory", "auditory", "visual"])
    >>> finetuning.summarise({"tuned": xr.Dataset({"r2": r2})}, "sub-01", kinds).round(2)
       model   parcels  score  low  high
    0  tuned  auditory    0.3  0.2   0.4
    1  tuned    visual    0.1  0.0   0.2
    """
    rows = []
    for name, result in results.items():
        scores = result["r2"].sel(subject=subject).dropna("run", how="all")
        for kind in sorted(set(parcels)):
            by_run = scores.isel(target=np.flatnonzero(parcels == kind)).mean("target")
            by_run = by_run.dropna("run").values
            drawn = np.random.default_rng(seed).integers(len(by_run), size=(n_boot, len(by_run)))
            low, high = np.quantile(by_run[drawn].mean(axis=1), [0.025, 0.975])
            rows.append((name, str(kind), by_run.mean(), low, high))
    return pd.DataFrame(rows, columns=["model", "parcels", "score", "low", "high"])
