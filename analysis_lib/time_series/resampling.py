"""Tests and intervals from blocks of volumes, within runs."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from ..errors import AlignmentError, DataError
from .scores import Runs, centred, pairs, require, targets_of, tested, variation

__all__ = ["block_bootstrap", "block_permutation", "circular_shift_null", "compare_models"]


def circular_shift_null(
    predicted: Runs,
    measured: Runs,
    n_shifts: int = 1000,
    min_shift: int = 10,
    statistic: str = "r2",
    seed: int = 0,
) -> xr.Dataset:
    """Score predictions of the wrong moments: the response is turned round within each run.

    Turning keeps the autocorrelation of both but at one seam.

    Parameters
    ----------
    predicted, measured : mapping of run to array (n_trs, n_targets)
        As for :func:`score_runs`.
    n_shifts : int
        Draws; each shifts every run by a number of its own, all targets alike.
    min_shift : int
        Volumes that a shift is away from no shift, at least.
    statistic : {"r2", "r"}
        Averaged over runs.
    seed : int
        Same seed, same draws.

    Returns
    -------
    Dataset
        ``score`` (target) without a shift, ``null`` (draw, target), and ``p_value`` (target),
        ``(1 + number of draws at least as good) / (1 + n_shifts)``.

    Raises
    ------
    DataError
        When a run is too short to be shifted.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> rng = np.random.default_rng(0)
    >>> signal, noise = rng.standard_normal((2, 120, 1))
    >>> predicted = {"s04e01a": np.hstack([signal, signal])}
    >>> measured = {"s04e01a": np.hstack([signal + noise, noise])}  # only the first is driven
    >>> found = time_series.circular_shift_null(predicted, measured, n_shifts=99)
    >>> found["p_value"].values < 0.05
    array([ True, False])
    """
    require(statistic, ("r2", "r"), "statistic")
    rng = np.random.default_rng(seed)
    null, score, n_runs = 0.0, 0.0, 0
    for run, p, y in pairs(predicted, measured):
        n = len(y)
        if n < 2 * min_shift + 1:
            raise DataError(f"run {run} has {n} rows: too few to shift by at least {min_shift}")
        shifts = rng.integers(min_shift, n - min_shift + 1, n_shifts)
        turned = np.fft.irfft(np.fft.rfft(centred(p), axis=0).conj()
                              * np.fft.rfft(centred(y), axis=0), n, axis=0)  # fmt: skip
        of_product = _of_product(p, y, statistic)
        null = null + of_product(turned[shifts])
        score = score + of_product(turned[0])
        n_runs += 1
    return _null_result(score / n_runs, null / n_runs, measured, statistic)


def block_permutation(
    predicted: Runs,
    measured: Runs,
    n_permutations: int = 1000,
    block_length: int = 20,
    statistic: str = "r2",
    seed: int = 0,
) -> xr.Dataset:
    """Score predictions against responses whose blocks have changed places within each run.

    Parameters
    ----------
    predicted, measured : mapping of run to array (n_trs, n_targets)
        As for :func:`score_runs`. Rows beyond the last whole block are left out.
    n_permutations : int
        Draws.
    block_length : int
        Volumes that stay together: longer than the signal remembers. 20 are 30 s.
    statistic, seed
        As for :func:`circular_shift_null`.

    Returns
    -------
    Dataset
        As from :func:`circular_shift_null`.

    Raises
    ------
    DataError
        When a run has fewer than three blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> rng = np.random.default_rng(0)
    >>> signal, noise = rng.standard_normal((2, 120, 1))
    >>> predicted = {"s04e01a": np.hstack([signal, signal])}
    >>> measured = {"s04e01a": np.hstack([signal + noise, noise])}  # only the first is driven
    >>> found = time_series.block_permutation(predicted, measured, n_permutations=99)
    >>> found["p_value"].values < 0.05
    array([ True, False])
    """
    require(statistic, ("r2", "r"), "statistic")
    rng = np.random.default_rng(seed)
    null, score, n_runs = 0.0, 0.0, 0
    for run, p, y in pairs(predicted, measured):
        n_blocks = len(y) // block_length
        if n_blocks < 3:
            raise DataError(f"run {run} has {n_blocks} blocks of {block_length} rows: 3 are needed")
        p, y = p[: n_blocks * block_length], y[: n_blocks * block_length]
        shape = (n_blocks, block_length, -1)
        # What every block of the one would give with every block of the other.
        products = np.einsum("itv,jtv->ijv", centred(p).reshape(shape), centred(y).reshape(shape))
        orders = rng.permuted(np.tile(np.arange(n_blocks), (n_permutations, 1)), axis=1)
        of_product = _of_product(p, y, statistic)
        place = np.arange(n_blocks)
        null = null + of_product(sum(products[i, orders[:, i]] for i in place))
        score = score + of_product(products[place, place].sum(axis=0))
        n_runs += 1
    return _null_result(score / n_runs, null / n_runs, measured, statistic)


def block_bootstrap(
    predicted: Runs,
    measured: Runs,
    n_boot: int = 2000,
    block_length: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Intervals of r and R², from blocks of volumes drawn with replacement.

    Parameters
    ----------
    predicted, measured : mapping of run to array (n_trs, n_targets)
        As for :func:`score_runs`. Both are centred within runs, and then taken together.
    n_boot : int
        Draws.
    block_length : int
        As for :func:`block_permutation`; what is left at the end of a run is a shorter block.
    confidence : float
        Coverage of the percentile interval.
    seed : int
        Same seed, same draws.

    Returns
    -------
    Dataset (target)
        ``r``, ``r_low``, ``r_high``, ``r2``, ``r2_low``, ``r2_high``.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> rng = np.random.default_rng(0)
    >>> signal, noise = rng.standard_normal((2, 120, 1))
    >>> predicted = {"s04e01a": np.hstack([signal, signal])}
    >>> measured = {"s04e01a": np.hstack([signal + noise, noise])}  # only the first is driven
    >>> found = time_series.block_bootstrap(predicted, measured, n_boot=200)
    >>> found["r_low"].values > 0  # the interval leaves out zero
    array([ True, False])
    """
    sums = []
    for _, p, y in pairs(predicted, measured):
        starts = np.arange(0, len(y), block_length)
        error, p, y = (p - y) ** 2, centred(p), centred(y)
        sums.append(np.stack([np.add.reduceat(s, starts) for s in (p * p, y * y, p * y, error)]))
    sums = np.concatenate(sums, axis=1)  # kind of sum, block, target
    n_blocks = sums.shape[1]
    if n_blocks < 5:
        raise DataError(f"{n_blocks} blocks of {block_length} rows are too few to draw from")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), n_boot).astype(float)
    draws = [counts @ part for part in sums]
    tail = (1 - confidence) / 2
    result = {}
    for name, value, drawn in zip(
        ("r", "r2"), _scores(sums.sum(axis=1)), _scores(draws), strict=True
    ):
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
        for suffix, array in (("", value), ("_low", low), ("_high", high)):
            result[name + suffix] = ("target", array)
    attrs = {"n_boot": n_boot, "block_length": block_length, "confidence": confidence}
    return xr.Dataset(result, coords={"target": targets_of(measured)}, attrs=attrs)


def compare_models(
    first: Runs,
    second: Runs,
    measured: Runs,
    n_permutations: int = 5000,
    block_length: int = 20,
    seed: int = 0,
) -> xr.Dataset:
    """Test whether one model predicts better than another, block by block.

    Under the null the two are exchangeable, so the sign of each block's difference in squared
    error is as good as its opposite.

    Parameters
    ----------
    first, second, measured : mapping of run to array (n_trs, n_targets)
        Two predictions, and what they predict. Rows that either leaves out are left out.
    n_permutations, block_length, seed
        As for :func:`block_permutation`.

    Returns
    -------
    Dataset (target)
        ``gain``: R² of the first less that of the second, averaged over runs; ``p_value``,
        two-sided; ``p_bh`` and ``p_by``, adjusted over targets after Benjamini and Hochberg, and
        Benjamini and Yekutieli.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import time_series
    >>> rng = np.random.default_rng(0)
    >>> signal, noise = rng.standard_normal((2, 120, 1))
    >>> measured = {"s04e01a": signal + noise}
    >>> first, second = {"s04e01a": signal}, {"s04e01a": np.zeros((120, 1))}
    >>> found = time_series.compare_models(first, second, measured, 99, block_length=10)
    >>> found["gain"].item() > 0, found["p_value"].item() < 0.05
    (True, True)
    """
    gains = []
    seconds = {run: p for run, p, _ in pairs(second, measured, drop=False)}
    if set(seconds) != set(first):
        raise AlignmentError(
            f"the two models predict different runs: {', '.join(sorted(set(seconds) ^ set(first)))}"
        )
    for run, p, y in pairs(first, measured, drop=False):
        kept = np.isfinite(p).any(axis=1) & np.isfinite(seconds[run]).any(axis=1)
        p, q, y = p[kept], seconds[run][kept], y[kept]
        total = variation(y)
        gain = ((q - y) ** 2 - (p - y) ** 2) / np.where(total > 0, total, np.nan)
        gains.append(np.add.reduceat(gain, np.arange(0, len(y), block_length)))
    n_runs = len(gains)
    blocks = np.concatenate(gains) / n_runs
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (n_permutations, len(blocks)))
    gain = blocks.sum(axis=0)
    # Sums in another order differ in the last digits; ties must count as at least as far.
    as_far = (np.abs(signs @ blocks) >= np.abs(gain) * (1 - 1e-9)).sum(axis=0)
    p_value = np.where(np.isfinite(gain), (1 + as_far) / (1 + n_permutations), np.nan)
    return tested(gain, p_value, targets_of(measured))


def _of_product(p: np.ndarray, y: np.ndarray, statistic: str) -> Callable[[np.ndarray], np.ndarray]:
    """Turn a sum of products of the centred series into the statistic.

    Nothing else of either changes when rows of one change places.
    """
    total, own = variation(y), variation(p)
    total = np.where(total > 0, total, np.nan)
    if statistic == "r":
        scale = np.sqrt(total * np.where(own == 0, 1, own))
        return lambda product: np.where(own == 0, 0 * total, product / scale)
    offset = len(y) * (p.mean(axis=0) - y.mean(axis=0)) ** 2
    return lambda product: 1 - (total - 2 * product + own + offset) / total


def _scores(sums) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and R² from sums of p², y², py and squared error."""
    pp, yy, py, error = sums
    yy = np.where(yy > 0, yy, np.nan)
    return np.where(pp > 0, py, 0) / np.sqrt(np.where(pp > 0, pp, 1) * yy), 1 - error / yy


def _null_result(score: np.ndarray, null: np.ndarray, measured: Runs, statistic: str) -> xr.Dataset:
    p_value = (1 + (null >= score - 1e-12).sum(axis=0)) / (1 + len(null))
    return xr.Dataset(
        {
            "score": ("target", score),
            "null": (("draw", "target"), null),
            "p_value": ("target", np.where(np.isfinite(score), p_value, np.nan)),
        },
        coords={"target": targets_of(measured)},
        attrs={"statistic": statistic},
    )
