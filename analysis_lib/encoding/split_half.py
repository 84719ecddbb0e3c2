"""Encoding by the reference protocol: ridge on random halves, corrected for noise.

For every layer and split, the penalty of each voxel minimises the leave-one-out error on the
training half, and the fit is scored on the other half. One eigendecomposition per layer and split
serves all voxels, repetitions and penalties.

References
----------
Tuckute, Feather, Boebinger & McDermott (2023), PLOS Biology.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy
import torch
import xarray as xr
from tqdm.auto import tqdm

from ..alignment import align, align_rows, target_coords
from ..device import require_memory, resolve_device
from ..errors import DataError, ParameterError

__all__ = [
    "TUCKUTE_ALPHAS",
    "noise_corrected",
    "spearman_brown",
    "split_half_ridge",
]

TUCKUTE_ALPHAS = tuple(10.0**exponent for exponent in range(49, -51, -1))
_NULL = 1e-12  # eigenvalues below this fraction of the largest are rounding
_FLAT = 1e10  # penalties this far outside the eigenvalues change predictions by rounding only


def split_half_ridge(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    splits: np.ndarray | xr.DataArray,
    alphas: Sequence[float] = TUCKUTE_ALPHAS,
    device: str = "auto",
    n_targets_batch: int = 1024,
) -> xr.Dataset:
    """Predict responses from each layer, over random halves of the sounds.

    Features are centred, not scaled. With repetitions, their mean is predicted, and each of them
    once more to find out how reliable the predictions are.

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        One array per layer, see :func:`analysis_lib.alignment.align`.
    responses : array of shape (n_sounds, n_targets[, n_repetitions])
        Targets with NaN get NaN.
    splits : array of shape (n_splits, n_sounds) of bool
        True where a sound trains, see :func:`analysis_lib.data.splits.tuckute_splits`.
    alphas : sequence of float
        Ridge penalties. Among equal errors the largest is taken.
    device : str
        Where to compute, in float64.
    n_targets_batch : int
        Targets at a time; fewer need less memory.

    Returns
    -------
    Dataset
        Per (layer, split, target), over the tested half:

        ``r``
            Pearson correlation of prediction and response; 0 if either is constant.
        ``r2``
            ``r`` squared, 0 where ``r`` is negative: the published score.
        ``r2_corrected``
            ``r2`` over the reliabilities of response and prediction, see
            :func:`noise_corrected`; not clipped. Only with repetitions.
        ``r2_determination``
            1 - residual variance / variance, as low as it gets.
        ``r2_mean_model``
            The same for the mean of the training half.
        ``alpha``
            The chosen penalty.
        ``mean_only``
            True where no use of the features beat the mean.

    Raises
    ------
    AlignmentError, DataError, ParameterError
        When sounds do not match by name, splits leave too few, or penalties are not positive.
    MemoryBudgetError
        When a batch of targets does not fit.

    Notes
    -----
    Let the centred training Gram matrix be Q diag(λ) Qᵀ without the constant direction, and
    w = α / (λ + α). The leave-one-out error of sound i is [Q w Qᵀ y]_i / [Q w Qᵀ]_ii, exactly,
    intercept included.

    Penalties above 10¹⁰ times the largest eigenvalue cannot be told from an infinite one: they
    count as the mean-only model, whose prediction is constant, and are reported as the largest of
    them. Those below 10⁻¹⁰ times the smallest positive eigenvalue count as the largest of them.
    Elsewhere the choice is that of scikit-learn's ``RidgeCV``.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> features = {"layer": rng.standard_normal((40, 5))}
    >>> signal = features["layer"] @ rng.standard_normal((5, 2))
    >>> responses = signal[..., None] + 0.5 * rng.standard_normal((40, 2, 3))
    >>> splits = np.stack([rng.permutation(40) < 20 for _ in range(4)])
    >>> result = encoding.split_half_ridge(features, responses, splits, device="cpu")
    >>> dict(result["r2_corrected"].sizes)
    {'layer': 1, 'split': 4, 'target': 2}
    >>> bool((result["r2_corrected"].median("split") > 0.5).all())
    True
    """
    alphas = np.sort(np.asarray(alphas, dtype=np.float64))[::-1].copy()
    if alphas.size == 0 or not (np.isfinite(alphas).all() and alphas[-1] > 0):
        raise ParameterError("alphas must be positive numbers, at least one")
    features, values, names = align(features, responses)
    by_sound = splits.transpose("sound", ...) if isinstance(splits, xr.DataArray) else splits
    by_sound = by_sound if isinstance(by_sound, xr.DataArray) else np.transpose(by_sound)
    trains = align_rows(by_sound, names, "splits", len(values)).T.astype(bool)
    if trains.ndim != 2 or min(trains.sum(1).min(), (~trains).sum(1).min()) < 4:
        raise DataError("splits must be (split, sound), with at least 4 sounds on either side")

    on = resolve_device(device, float64=True)
    repeated = values if values.ndim == 3 and values.shape[2] > 1 else None
    mean = values.mean(axis=2) if values.ndim == 3 else values
    broken = ~np.isfinite(mean).all(axis=0)
    n_targets, n_fits = mean.shape[1], 1 if repeated is None else 1 + repeated.shape[2]
    batch = min(n_targets_batch, n_targets)
    require_memory(
        split_half_bytes(int(trains.sum(1).max()), batch, n_fits, len(alphas)),
        on,
        "a batch of targets",
        "Choose a smaller n_targets_batch.",
    )
    shape = (len(features), len(trains), n_targets)
    kinds = ["r", "r2_determination", "r2_mean_model", "alpha", "mean_only"]
    kinds += ["r2_corrected"] if repeated is not None else []
    found = {kind: np.full(shape, np.nan) for kind in kinds}
    for k, x in enumerate(tqdm(features.values(), desc="layers", disable=len(features) < 2)):
        centred = torch.from_numpy(x).to(on).double()
        centred = centred - centred.mean(dim=0)
        gram = centred @ centred.T
        for s, train in enumerate(trains):
            half = _Half.of(gram, torch.from_numpy(train).to(on), alphas)
            for start in range(0, n_targets, batch):
                block = np.arange(start, min(start + batch, n_targets))
                block = block[~broken[block]]
                columns = [mean[:, block]]
                if repeated is not None:
                    columns += list(np.moveaxis(repeated[:, block], 2, 0))
                fits = torch.from_numpy(np.stack(columns, axis=1)).to(on)
                for kind, scores in half.scores(fits).items():
                    found[kind][k, s, block] = scores.cpu().numpy()
    dims = ("layer", "split", "target")
    dataset = xr.Dataset(
        {kind: (dims, scores) for kind, scores in found.items()},
        coords={
            "layer": list(features),
            "split": np.arange(len(trains)),
            **target_coords(responses),
        },
        attrs={"protocol": "split-half ridge", "n_repetitions": max(1, n_fits - 1)},
    )
    dataset["mean_only"] = dataset["mean_only"] == 1
    dataset["r2"] = dataset["r"].clip(min=0) ** 2
    return dataset


@dataclass(frozen=True)
class _Half:
    """One layer's ridge systems on one training half.

    ``penalties`` (n_alphas,) descending, infinite for the mean-only model; ``reported`` are their
    values in the caller's grid.
    """

    train: torch.Tensor
    eigenvalues: torch.Tensor
    vectors: torch.Tensor
    projected: torch.Tensor
    penalties: torch.Tensor
    reported: torch.Tensor
    errors_from: torch.Tensor

    @classmethod
    def of(cls, gram: torch.Tensor, train: torch.Tensor, alphas: np.ndarray) -> "_Half":
        own, other = gram[train][:, train], gram[~train][:, train]
        column = own.mean(dim=0)
        centred = own - column - column[:, None] + own.mean()
        tested = other - other.mean(dim=1, keepdim=True) - column + own.mean()
        # The constant direction becomes the last eigenvector, and is dropped: the intercept.
        scale = float(torch.trace(centred))
        varies = scale > _NULL * float(torch.trace(own))
        scale = scale if varies else 1.0
        lifted = centred + 2 * scale / len(centred)
        eigenvalues, vectors = torch.linalg.eigh(lifted.cpu())  # small: faster than on a GPU
        eigenvalues, vectors = (t[..., :-1].to(gram.device) for t in (eigenvalues, vectors))
        null = (eigenvalues <= _NULL * eigenvalues.max()) | (not varies)
        eigenvalues = eigenvalues.masked_fill(null, 0.0)
        projected = (tested @ vectors).masked_fill(null, 0.0)

        penalties, reported = _effective(alphas, eigenvalues)
        penalties, reported = (torch.from_numpy(a).to(gram.device) for a in (penalties, reported))
        kept = _kept(eigenvalues, penalties)  # (n_alphas, n_train - 1)
        leverage = kept @ (vectors**2).T  # (n_alphas, n_train)
        errors_from = kept[:, None, :] * vectors / leverage[..., None]
        return cls(train, eigenvalues, vectors, projected, penalties, reported, errors_from)

    def scores(self, fits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores of the first fit, corrected with the others; (n_sounds, n_fits, n_targets)."""
        n_fits, n_targets = fits.shape[1:]
        flat = fits.reshape(len(fits), -1)
        y, tested = flat[self.train], flat[~self.train]
        mean = y.mean(dim=0)
        z = self.vectors.T @ (y - mean)
        best = _first_min(torch.stack([((b @ z) ** 2).sum(dim=0) for b in self.errors_from]))
        penalty = self.penalties[best]
        usable = (self.eigenvalues > 0)[:, None]
        weights = torch.where(usable, z / (self.eigenvalues[:, None] + penalty), 0.0)
        predicted = self.projected @ weights
        constant = penalty.isinf()

        one = slice(0, n_targets)
        r = _correlation(predicted[:, one], tested[:, one])
        r = torch.where(constant[one], 0.0, r.nan_to_num())
        total = ((tested[:, one] - tested[:, one].mean(dim=0)) ** 2).sum(dim=0)
        result = {
            "r": r,
            "r2_determination": 1 - ((tested - mean - predicted)[:, one] ** 2).sum(dim=0) / total,
            "r2_mean_model": 1 - ((tested - mean)[:, one] ** 2).sum(dim=0) / total,
            "alpha": self.reported[best[one]],
            "mean_only": constant[one].double(),
        }
        if n_fits > 1:
            data = y.reshape(len(y), n_fits, -1)[:, 1:]
            prediction = predicted.masked_fill(constant, torch.nan)
            prediction = prediction.reshape(len(predicted), n_fits, -1)[:, 1:]
            result["r2_corrected"] = noise_corrected(
                r.clamp(min=0) ** 2,
                _pairwise_median(data),
                _pairwise_median(prediction),
                n_fits - 1,
                (len(y), len(tested)),
            )
        return result


def split_half_bytes(
    n_train: int, n_targets: int, n_fits: int, n_alphas: int = len(TUCKUTE_ALPHAS)
) -> float:
    """Estimate the most memory, in bytes, that a batch of :func:`split_half_ridge` takes.

    Parameters
    ----------
    n_train, n_targets, n_fits, n_alphas : int
        Sounds in a half, targets in a batch, repetitions and their mean, penalties.
    """
    return 8.0 * n_alphas * n_train * n_targets * n_fits * 3


def spearman_brown(r: torch.Tensor, n_repetitions: int, floor: float) -> torch.Tensor:
    """Reliability of the mean of several repetitions, from that of a single one.

    Parameters
    ----------
    r : tensor
        Correlation between repetitions; NaN if unknown.
    n_repetitions : int
        k in k·r / (1 + (k - 1)·r).
    floor : float
        Lowest value returned. Whatever is unknown or not positive gets it: below its pole at
        -1 / (k - 1) the formula returns values above 1 for what is less reliable than chance.

    Returns
    -------
    tensor
    """
    stepped_up = n_repetitions * r / (1 + (n_repetitions - 1) * r)
    return torch.where(r > 0, stepped_up, 0.0).clamp(min=floor)


def noise_corrected(
    r2: torch.Tensor,
    r_data: torch.Tensor,
    r_prediction: torch.Tensor,
    n_repetitions: int = 3,
    n_sounds: tuple[int, int] = (83, 82),
) -> torch.Tensor:
    """Estimate the squared correlation without measurement noise.

    Parameters
    ----------
    r2 : tensor of shape (n_targets,)
        Squared correlation of prediction and response.
    r_data, r_prediction : tensors of shape (n_targets,)
        Median correlation between single repetitions over the training sounds, and between
        predictions fitted to single repetitions over the test sounds; NaN if unknown.
    n_repetitions : int
        Repetitions in the mean that was predicted.
    n_sounds : tuple of int
        Number of training and of test sounds, from which the floors follow: the smallest
        correlation with one-tailed p < .05, to three decimals (0.182 and 0.183 for 83 and 82).

    Returns
    -------
    tensor of shape (n_targets,)
        ``r2`` over the product of the stepped-up reliabilities. No root is taken, since ``r2`` is
        squared already. May exceed 1; the reference clips after the median over splits.
    """
    train, test = n_sounds
    data = spearman_brown(r_data, n_repetitions, _critical_correlation(train))
    prediction = spearman_brown(r_prediction, n_repetitions, _critical_correlation(test))
    return r2 / (data * prediction)


def _effective(alphas: np.ndarray, eigenvalues: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Distinguishable penalties, descending, and the grid values they stand for."""
    positive = eigenvalues[eigenvalues > 0]
    if positive.numel() == 0:
        return np.array([np.inf]), alphas[:1]
    infinite = alphas > _FLAT * float(positive.max())
    zero = alphas < float(positive.min()) / _FLAT
    keep = ~infinite & ~zero
    keep[np.flatnonzero(infinite)[:1]] = True
    keep[np.flatnonzero(zero)[:1]] = True
    return np.where(infinite, np.inf, alphas)[keep], alphas[keep]


def _kept(eigenvalues: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    """Fraction of each direction that stays in the residual, (n_alphas, n_directions)."""
    ratio = eigenvalues[None, :] / penalties[:, None]
    return 1 / (1 + ratio)


def _first_min(errors: torch.Tensor) -> torch.Tensor:
    """Row of each column's first minimum; argmin promises no order among ties on CUDA."""
    rows = torch.arange(len(errors), device=errors.device)[:, None]
    return torch.where(errors == errors.amin(dim=0), rows, len(errors) - 1).amin(dim=0)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of columns, NaN where one is constant."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    norm = (torch.linalg.vector_norm(t, dim=0) for t in (a, b))
    norm_a, norm_b = (torch.where(n > 0, n, torch.nan) for n in norm)
    return ((a / norm_a) * (b / norm_b)).sum(dim=0).clamp(-1, 1)


def _pairwise_median(repetitions: torch.Tensor) -> torch.Tensor:
    """Median correlation between pairs of repetitions (n_sounds, n_repetitions, n_targets)."""
    pairs = combinations(range(repetitions.shape[1]), 2)
    r = torch.stack([_correlation(repetitions[:, a], repetitions[:, b]) for a, b in pairs])
    return r.nanquantile(0.5, dim=0)


def _critical_correlation(n_sounds: int) -> float:
    t = scipy.stats.t.ppf(0.95, n_sounds - 2)
    return round(float(t / np.sqrt(n_sounds - 2 + t**2)), 3)
