"""What a model explains beyond another: banded ridge and variance partitioning.

Two feature spaces that overlap explain much of the same variance. Fitted together, each with a
penalty of its own, they explain at least what the better one does; what the joint fit loses
without one of them is that one's alone.

References
----------
Nunez-Elizalde, Huth & Gallant (2019); Dupré la Tour et al. (2022), himalaya;
Lescroart, Stansbury & Gallant (2015) for the partitioning.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import xarray as xr

from ..alignment import align, align_rows, target_coords
from ..device import resolve_device
from ..errors import DataError, ParameterError

__all__ = ["variance_partition"]

ALPHAS = tuple(10.0**k for k in range(-6, 7))
SHARES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


def variance_partition(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    folds: np.ndarray | xr.DataArray,
    alphas: Sequence[float] = ALPHAS,
    shares: Sequence[float] = SHARES,
    n_targets_batch: int = 1024,
    device: str = "auto",
) -> xr.Dataset:
    """Divide explained variance into what two feature spaces explain alone and in common.

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        Exactly two, for instance a layer of a model and the SpectroTemporal baseline.
    responses : array of shape (n_sounds, n_targets[, n_repetitions])
        Repetitions are averaged. Targets with NaN, or that do not vary, get NaN.
    folds : array of shape (n_sounds,)
        At least three. Each is predicted from the others, among which penalties are chosen by
        leaving out one fold at a time.
    alphas : sequence of float
        Penalties, for kernels scaled to a mean diagonal of 1.
    shares : sequence of float
        Weights between 0 and 1 of the first space's kernel, the second's being the rest. With 0
        and 1 in it, the joint fit may leave a space out.
    n_targets_batch : int
        Targets at a time.
    device : str
        Where to compute, in float64.

    Returns
    -------
    Dataset
        ``r2`` (space, target): coefficient of determination of pooled predictions of each space
        alone and of both, ``"joint"``, not clipped. ``unique`` (feature_space, target): the
        joint one less the other's. ``shared`` (target): the sum of both less the joint one. The
        three parts add up to the joint one; estimated on finite data, each may be negative.
        ``share`` (fold, target): the joint fit's weight of the first space.

    Raises
    ------
    AlignmentError, DataError, ParameterError
        When sounds do not match by name, or there are not two spaces or three folds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"a": rng.standard_normal((60, 4)), "b": rng.standard_normal((60, 4))}
    >>> responses = spaces["a"] @ rng.standard_normal((4, 1))
    >>> parts = encoding.variance_partition(spaces, responses, np.arange(60) % 5, device="cpu")
    >>> parts["unique"].sel(feature_space="a").values.round(1)
    array([1.])
    """
    if len(features) != 2:
        raise ParameterError(f"two feature spaces are compared, got {len(features)}")
    if "joint" in features:
        raise ParameterError("no feature space may be called 'joint'")
    shares, alphas = np.asarray(shares, dtype=float), np.asarray(alphas, dtype=float)
    if shares.size == 0 or shares.min() < 0 or shares.max() > 1 or alphas.min() <= 0:
        raise ParameterError("shares must lie between 0 and 1, and alphas be positive")
    features, values, names = align(features, responses)
    y = values.mean(axis=2) if values.ndim == 3 else values
    folds = align_rows(folds, names, "folds", len(y))
    kinds = np.unique(folds)
    if folds.ndim != 1 or len(kinds) < 3:
        raise DataError("variance partitioning needs one fold per sound, and at least three folds")

    usable = np.isfinite(y).all(axis=0)
    usable[usable] = np.ptp(y[:, usable], axis=0) > 0
    target = y[:, usable]
    weights = {
        **dict(zip(features, ([1.0, 0.0], [0.0, 1.0]), strict=True)),
        "joint": np.column_stack([shares, 1 - shares]),
    }
    predicted = {space: np.empty_like(target) for space in weights}
    chosen = np.full((len(kinds), y.shape[1]), np.nan)
    with _himalaya_on(resolve_device(device, float64=True)):
        for k, fold in enumerate(kinds):
            tested = folds == fold
            kernels = np.stack([_kernel(x, ~tested) for x in features.values()])
            for space, mixtures in weights.items():
                prediction, mixture = _fit_predict(
                    kernels, target, tested, folds, np.atleast_2d(mixtures), alphas, n_targets_batch
                )
                predicted[space][tested] = prediction
                if space == "joint":
                    chosen[k, usable] = mixture[0]
    residual = np.stack([((target - p) ** 2).sum(axis=0) for p in predicted.values()])
    r2 = np.full((3, y.shape[1]), np.nan)
    r2[:, usable] = 1 - residual / ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    first, second, joint = r2
    return xr.Dataset(
        {
            "r2": (("space", "target"), r2),
            "unique": (("feature_space", "target"), np.stack([joint - second, joint - first])),
            "shared": ("target", first + second - joint),
            "share": (("fold", "target"), chosen),
        },
        coords={
            "space": list(weights),
            "feature_space": list(features),
            "fold": kinds,
            **target_coords(responses),
        },
    )


def _kernel(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Linear kernel centred and scaled on the training sounds, (n_sounds, n_sounds)."""
    x = x.astype(np.float64) - x[train].mean(axis=0, dtype=np.float64)
    kernel = x @ x.T
    scale = kernel.diagonal()[train].mean()
    return kernel / scale if scale > 0 else kernel


def _fit_predict(
    kernels: np.ndarray,
    y: np.ndarray,
    tested: np.ndarray,
    folds: np.ndarray,
    mixtures: np.ndarray,
    alphas: np.ndarray,
    n_targets_batch: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the tested sounds (n_tested, n_targets); and the kernels' weights, (2, n_targets)."""
    # Loaded here: himalaya brings scikit-learn, which no other analysis of this room needs.
    from himalaya.backend import get_backend
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search
    from sklearn.model_selection import PredefinedSplit

    backend = get_backend()
    train = ~tested
    centre = y[train].mean(axis=0)
    within, across = (backend.asarray(kernels[:, rows][:, :, train]) for rows in (train, tested))
    deltas, dual, _ = solve_multiple_kernel_ridge_random_search(
        within,
        backend.asarray(y[train] - centre),
        n_iter=backend.asarray(mixtures),
        alphas=backend.asarray(alphas),
        cv=PredefinedSplit(np.unique(folds[train], return_inverse=True)[1]),
        n_targets_batch=n_targets_batch,
        return_weights="dual",
        progress_bar=False,
    )
    weighted = backend.exp(deltas)[:, None, :] * (across @ dual)
    mixture = backend.exp(deltas)
    return (
        backend.to_numpy(weighted.sum(0)) + centre,
        backend.to_numpy(mixture / mixture.sum(0)),
    )


@contextmanager
def _himalaya_on(device: torch.device) -> Iterator[None]:
    """Point himalaya, whose backend is global, at a device; and back again."""
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    set_backend("torch_cuda" if device.type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
