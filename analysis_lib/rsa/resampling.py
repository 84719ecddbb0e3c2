"""How far a similarity may be due to the sounds and subjects that happened to be measured."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from ..errors import ParameterError, UnknownNameError
from .dissimilarity import Matrices, upper_triangle
from .ranks import Ranker, correlate_weighted, standardised

__all__ = ["bootstrap", "permutation"]

RESAMPLED = ("sounds", "subjects", "both")
_BLOCK_BYTES = 32e6  # of one block of permuted matrices: stays near the processor's cache


def bootstrap(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    over: str = "sounds",
    n_boot: int = 1000,
    groupby: str | Sequence[str] = "subject",
    confidence: float = 0.95,
    seed: int = 0,
    device: str = "auto",
) -> xr.Dataset:
    """Resample sounds, subjects or both, and compare every layer with the mean subject again.

    Parameters
    ----------
    features, responses, groupby, device
        As in :func:`analysis_lib.rsa.layerwise`.
    over : {"sounds", "subjects", "both"}
        What is drawn with replacement: what the conclusion should generalise to. Pairs of a
        sound with itself, which a draw of sounds holds, are left out.
    n_boot : int
        Number of draws.
    confidence : float
        Coverage of the percentile interval.
    seed : int
        Same seed, same draws.

    Returns
    -------
    Dataset
        ``score`` (layer[, roi]), mean over subjects; ``draws`` (draw, layer[, roi]);
        ``low`` and ``high`` (layer[, roi]), and ``standard_error``, the draws' standard
        deviation.

    Notes
    -----
    Exact: a draw in which sound i comes c_i times counts the pair (i, j) c_i·c_j times, and
    midranks under such weights follow from one sort per matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> features = {"near": rng.standard_normal((30, 10)), "far": rng.standard_normal((30, 10))}
    >>> responses = features["near"] @ rng.standard_normal((10, 30))
    >>> result = rsa.bootstrap(features, responses, n_boot=50, device="cpu")
    >>> bool(result["low"].sel(layer="near") > result["high"].sel(layer="far"))
    True
    """
    if over not in RESAMPLED:
        raise UnknownNameError("thing to resample", over, RESAMPLED)
    if n_boot < 2 or not 0 < confidence < 1:
        raise ParameterError("n_boot must be at least 2 and confidence between 0 and 1")
    both = Matrices.of(features, responses, groupby, device)
    rng = np.random.default_rng(seed)
    row, column = (torch.from_numpy(i).to(both.device) for i in upper_triangle(both.n_sounds))
    models, brains = Ranker(both.models), Ranker(both.brains)

    def correlations(counts: np.ndarray | None) -> torch.Tensor:
        weights = None
        if counts is not None:
            times = torch.from_numpy(counts.astype(float)).to(both.device)
            weights = times[row] * times[column]
        fit = correlate_weighted(models.ranks(weights), brains.ranks(weights), weights)
        return both.usable_only(fit)

    observed = correlations(None)
    draws = torch.empty((n_boot, len(both.layers), both.shape[1]), dtype=torch.float64)
    for draw in draws:
        scores = observed
        if over != "subjects":
            scores = correlations(_multiplicities(rng, both.n_sounds))
        times = None
        if over != "sounds":
            times = torch.from_numpy(_multiplicities(rng, both.shape[0]).astype(float))
        draw[:] = _mean_over_subjects(scores, both, times)
    tail = (1 - confidence) / 2
    low, high = (draws.nanquantile(q, dim=0) for q in (tail, 1 - tail))
    result = {
        "score": _mean_over_subjects(observed, both),
        "low": low,
        "high": high,
        "standard_error": torch.from_numpy(np.nanstd(draws.numpy(), axis=0, ddof=1)),
    }
    dataset = _by_layer(both, result)
    dataset["draws"] = _by_layer(both, {"draws": draws}, ("draw",))["draws"]
    return dataset.assign_attrs(over=over, n_boot=n_boot, confidence=confidence, seed=seed)


def permutation(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    n_permutations: int = 1000,
    groupby: str | Sequence[str] = "subject",
    seed: int = 0,
    device: str = "auto",
) -> xr.Dataset:
    """Test whether a similarity is higher than with the brain's sounds shuffled.

    Parameters
    ----------
    features, responses, groupby, device
        As in :func:`analysis_lib.rsa.layerwise`.
    n_permutations : int
        Number of shuffles; all subjects are shuffled alike.
    seed : int
        Same seed, same shuffles.

    Returns
    -------
    Dataset
        ``score`` and one-sided ``p_value`` (layer[, roi]) of the mean over subjects;
        ``p_value_max`` (layer[, roi]), against the highest layer of each shuffle, which
        controls the family-wise error over layers; ``p_value_subject`` (layer, subject[, roi]);
        ``null`` (permutation, layer[, roi]). p-values are (1 + #{null ≥ score}) / (1 + n).

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> features = {"near": rng.standard_normal((12, 10)), "far": rng.standard_normal((12, 10))}
    >>> responses = features["near"] @ rng.standard_normal((10, 30))
    >>> result = rsa.permutation(features, responses, n_permutations=99, device="cpu")
    >>> float(result["p_value"].sel(layer="near"))
    0.01
    """
    if n_permutations < 1:
        raise ParameterError("n_permutations must be at least 1")
    both = Matrices.of(features, responses, groupby, device)
    rng = np.random.default_rng(seed)
    n, (row, column) = both.n_sounds, upper_triangle(both.n_sounds)
    models = standardised(Ranker(both.models).ranks())
    brains = standardised(Ranker(both.brains).ranks())
    # Shuffling sounds moves ranks about without changing them.
    square = brains.new_zeros((len(brains), n, n))
    square[:, row, column] = brains
    square = (square + square.transpose(1, 2)).reshape(len(brains), -1)

    observed = both.usable_only(models @ brains.T)
    tolerance = 1e-12  # equal up to the order of summation counts as equal
    at_least = torch.zeros_like(observed)
    null = torch.empty((n_permutations, len(models), both.shape[1]), dtype=torch.float64)
    block = max(1, int(_BLOCK_BYTES / (8 * max(1, brains.numel()))))
    for start in range(0, n_permutations, block):
        size = min(block, n_permutations - start)
        orders = np.stack([rng.permutation(n) for _ in range(size)])
        place = torch.from_numpy(orders[:, row] * n + orders[:, column]).to(both.device)
        shuffled = square[:, place.reshape(-1)].reshape(len(brains), size, -1)
        scores = torch.einsum("gpk,lk->plg", shuffled, models)
        at_least += (scores >= observed - tolerance).sum(dim=0)
        for k, score in enumerate(scores):
            null[start + k] = _mean_over_subjects(both.usable_only(score), both)
    score = _mean_over_subjects(observed, both)
    highest = null.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
    result = {
        "score": score,
        "p_value": _p_value(null, score, tolerance),
        "p_value_max": _p_value(highest, score, tolerance),
    }
    dataset = _by_layer(both, result)
    dataset["null"] = _by_layer(both, {"null": null}, ("permutation",))["null"]
    by_subject = ((1 + at_least) / (1 + n_permutations)).masked_fill(observed.isnan(), torch.nan)
    dataset["p_value_subject"] = both.dataset(p=(("layer",), by_subject))["p"]
    return dataset.assign_attrs(n_permutations=n_permutations, seed=seed)


def _p_value(null: torch.Tensor, score: torch.Tensor, tolerance: float) -> torch.Tensor:
    p = (1.0 + (null >= score - tolerance).sum(dim=0).double()) / (1 + len(null))
    return p.masked_fill(score.isnan(), torch.nan)


def _multiplicities(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each of n things comes in a draw of n with replacement."""
    return np.bincount(rng.integers(0, n, n), minlength=n)


def _mean_over_subjects(
    scores: torch.Tensor, both: Matrices, times: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of scores (n_layers, n_groups) over subjects that have one, (n_layers, n_rois)."""
    scores = scores.cpu().reshape(len(scores), *both.shape)
    weights = (~scores.isnan()).double()
    if times is not None:
        weights = weights * times[None, :, None]
    return (scores.nan_to_num() * weights).sum(dim=1) / weights.sum(dim=1)


def _by_layer(
    both: Matrices, arrays: Mapping[str, torch.Tensor], leading: tuple[str, ...] = ()
) -> xr.Dataset:
    """Label arrays (*leading, layer, roi)."""
    coords = {"layer": both.layers}
    dims = (*leading, "layer")
    if both.rois is None:
        arrays = {name: values[..., 0] for name, values in arrays.items()}
    else:
        coords["roi"], dims = both.rois, (*dims, "roi")
    return xr.Dataset({name: (dims, v.cpu().numpy()) for name, v in arrays.items()}, coords=coords)
