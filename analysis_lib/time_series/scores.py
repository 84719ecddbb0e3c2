"""R² and r per run and target, and what the tests on them share."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from ..errors import AlignmentError, DataError, ParameterError
from ..stats import adjust_p_values

__all__ = [
    "Runs",
    "centred",
    "pairs",
    "pearson",
    "r_squared",
    "require",
    "score_runs",
    "targets_of",
    "tested",
    "variation",
]

Runs = Mapping[str, np.ndarray | xr.DataArray]


def score_runs(predicted: Runs, measured: Runs) -> xr.Dataset:
    """R² and r of each target in each run.

    Parameters
    ----------
    predicted, measured : mapping of run to array (n_trs, n_targets)
        Of the same runs and lengths.

    Returns
    -------
    Dataset (run, target)
        ``r2``: one minus squared error over variance around the run's own mean, so it may be
        negative; ``r``: Pearson correlation. NaN where the measured target does not vary; ``r``
        is 0 where only the prediction does not.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> measured = {"s04e01a": np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])}
    >>> predicted = {"s04e01a": np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]])}
    >>> scores = time_series.score_runs(predicted, measured)
    >>> scores["r"].values, scores["r2"].values  # one too high all along; a target that is constant
    (array([[ 1., nan]]), array([[-0.5,  nan]]))
    """
    rows = [(r_squared(p, y), pearson(p, y)) for _, p, y in pairs(predicted, measured)]
    r2, r = (np.stack(values) for values in zip(*rows, strict=True))
    return xr.Dataset(
        {"r2": (("run", "target"), r2), "r": (("run", "target"), r)},
        coords={"run": list(predicted), "target": targets_of(measured)},
    )


def pairs(
    predicted: Runs, measured: Runs, drop: bool = True
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Prediction and response of each run as float64, without rows that were not predicted."""
    if not predicted:
        raise DataError("there is no run to score")
    for run, prediction in predicted.items():
        if run not in measured:
            raise AlignmentError(f"run {run} was predicted, but its responses were not given")
        p, y = (np.asarray(a, dtype=np.float64) for a in (prediction, measured[run]))
        if p.shape != y.shape or p.ndim != 2:
            raise AlignmentError(
                f"run {run}: predictions {p.shape} and responses {y.shape} must be of one shape "
                "(n_trs, n_targets)"
            )
        if drop:
            kept = np.isfinite(p).any(axis=1)
            p, y = p[kept], y[kept]
        if len(y) < 3:
            raise DataError(f"run {run} has {len(y)} predicted rows: too few to score")
        yield run, p, y


def targets_of(runs: Runs) -> np.ndarray:
    """Take the names of targets from the first run, or number them."""
    first = next(iter(runs.values()))
    return first["target"].values if isinstance(first, xr.DataArray) else np.arange(first.shape[1])


def centred(values: np.ndarray) -> np.ndarray:
    """Subtract the mean over rows."""
    return values - values.mean(axis=0)


def variation(y: np.ndarray) -> np.ndarray:
    """Squared deviations from the mean, summed; 0 where there is nothing but rounding."""
    total = (centred(y) ** 2).sum(axis=0)
    return np.where(total > 1e-12 * (y**2).sum(axis=0), total, np.where(np.isnan(total), total, 0))


def r_squared(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficient of determination per column; NaN where ``y`` does not vary."""
    total = variation(y)
    return 1 - ((y - p) ** 2).sum(axis=0) / np.where(total > 0, total, np.nan)


def pearson(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlate column by column; NaN where ``y`` does not vary, 0 where only ``p`` does not."""
    total, own = variation(y), variation(p)
    product = (centred(p) * centred(y)).sum(axis=0)
    scale = np.sqrt(np.where(total > 0, total, np.nan) * np.where(own == 0, 1, own))
    return np.where(own == 0, 0 * total, product) / scale


def tested(gain: np.ndarray, p_value: np.ndarray, target: np.ndarray) -> xr.Dataset:
    """Put gains and p values together with the two adjustments over targets."""
    return xr.Dataset(
        {
            "gain": ("target", gain),
            "p_value": ("target", p_value),
            "p_bh": ("target", adjust_p_values(p_value, "benjamini-hochberg")),
            "p_by": ("target", adjust_p_values(p_value, "benjamini-yekutieli")),
        },
        coords={"target": target},
    )


def require(value: str, known: tuple[str, ...], what: str) -> None:
    """Refuse an argument that is none of the known ones."""
    if value not in known:
        raise ParameterError(f"{what} must be one of {', '.join(known)}, not {value!r}")
