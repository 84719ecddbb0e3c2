"""Ridge regression with FIR delays: the linear baseline of long recordings.

A response to a volume is predicted from the features of the last few volumes. The paper's head
does the same, as a causal convolution that is trained by gradient descent; this is its exact and
regularised counterpart.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from ..device import resolve_device
from ..errors import DataError, ParameterError, UnknownNameError
from .fir_sums import FirAccumulator, FirRows, FirSums, delayed

__all__ = [
    "FIR_ALPHAS",
    "FirAccumulator",
    "FirRows",
    "FirSums",
    "delayed",
    "fir_predict",
    "fir_ridge",
]

FIR_ALPHAS = tuple(10.0**k for k in range(1, 8))


def fir_ridge(
    features: Mapping[str, np.ndarray] | Callable[[str], np.ndarray],
    bold: Mapping[str, np.ndarray] | Callable[[str], np.ndarray],
    parts: Mapping[str, Iterable[str]],
    n_lags: int = 5,
    alphas: Sequence[float] = FIR_ALPHAS,
    edges: str = "drop",
    standardize: bool = True,
    refit: bool = False,
    select: str = "r2",
    precision: str = "float32",
    device: str = "auto",
) -> xr.Dataset:
    """Fit ridge regression with FIR delays; the penalty of each target is chosen on validation.

    Parameters
    ----------
    features : mapping of run to array (n_trs, n_features), or function of a run's name
        Asked for once per run of the training and validation parts.
    bold : mapping of run to array (n_trs, n_targets), or function of a run's name
        Plain arrays or DataArrays ``(time, target)``. Both are cropped to the shorter.
    parts : mapping of {"train", "validation"} to run names
        As :func:`analysis_lib.data.friends.split` gives them; others are left alone.
    n_lags : int
        Volumes of history, the present one included.
    alphas : sequence of float
        Penalties, for features of unit variance if ``standardize``.
    edges : {"drop", "zero"}
        See :class:`FirAccumulator`.
    standardize : bool
        Penalise as if each feature had unit variance over the training rows.
    refit : bool
        Fit again on training and validation together. Networks that stop early do not, so
        leave it off to compare with them.
    select : {"r2", "r"}
        What chooses the penalty; the first of equals.
    precision, device
        See :class:`FirAccumulator`.

    Returns
    -------
    Dataset
        ``weights`` (lag, unit, target), ``intercept`` (target), ``alpha`` (target), and
        ``validation_r2``, ``validation_r`` (penalty, target). A target with NaN in any of these
        runs has NaN everywhere. :func:`fir_predict` applies it.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> features = {run: rng.standard_normal((60, 2)) for run in ("a", "b")}
    >>> bold = {run: np.roll(x, 1, axis=0) for run, x in features.items()}
    >>> parts = {"train": ["a"], "validation": ["b"]}
    >>> model = encoding.fir_ridge(features, bold, parts, n_lags=3, alphas=[0.1], device="cpu")
    >>> model["weights"].sel(target=0, unit=0).values.round(1)
    array([0., 1., 0.])
    """
    if select not in ("r2", "r"):
        raise ParameterError(f"select must be 'r2' or 'r', not {select!r}")
    alphas = np.asarray(alphas, dtype=float)
    if alphas.ndim != 1 or alphas.size == 0 or not (alphas > 0).all():
        raise ParameterError("alphas must be positive numbers")
    for part in ("train", "validation"):
        if not list(parts.get(part, ())):
            raise ParameterError(f"parts has no runs for {part!r}")
    train, held, broken, offset, target = _collect(
        features, bold, parts, n_lags, edges, precision, device
    )
    scale = torch.ones_like(train.x)
    if standardize:
        n_features = len(scale) // n_lags
        scale = train.variance()[:n_features].sqrt().repeat(n_lags)
        scale[scale <= 1e-6 * scale.max()] = 1  # units that never vary get no weight
    scores = [held.score(train.fit(alpha, scale), train) for alpha in alphas]
    r2, r = (torch.stack([s[i] for s in scores]).masked_fill(broken, torch.nan) for i in (0, 1))
    chosen = torch.nan_to_num(r2 if select == "r2" else r, nan=-torch.inf).cpu().numpy().argmax(0)
    basis = train + held if refit else train
    weights = torch.empty(len(scale), len(chosen), dtype=torch.float64, device=scale.device)
    for index in np.unique(chosen):
        mine = torch.as_tensor(chosen == index, device=weights.device)
        weights[:, mine] = basis.fit(float(alphas[index]), scale)[:, mine]
    weights[:, broken] = torch.nan
    intercept = basis.y / basis.n_rows - (basis.x / basis.n_rows) @ weights
    weights = weights.view(n_lags, -1, len(chosen))
    intercept -= torch.einsum("u,luv->v", offset, weights)
    best = np.where(broken.cpu().numpy(), np.nan, alphas[chosen])
    return xr.Dataset(
        {
            "weights": (("lag", "unit", "target"), weights.cpu().numpy()),
            "intercept": ("target", intercept.cpu().numpy()),
            "alpha": ("target", best),
            "validation_r2": (("penalty", "target"), r2.cpu().numpy()),
            "validation_r": (("penalty", "target"), r.cpu().numpy()),
        },
        coords={"target": target, "penalty": alphas, "lag": np.arange(n_lags)},
        attrs={"edges": edges, "standardize": int(standardize), "refit": int(refit)},
    )


def fir_predict(model: xr.Dataset, features: np.ndarray) -> np.ndarray:
    """Predict one run.

    Parameters
    ----------
    model : Dataset
        From :func:`fir_ridge`.
    features : array of shape (n_trs, n_features)
        Of the run.

    Returns
    -------
    array of shape (n_trs, n_targets)
        With edges dropped, the first ``n_lags - 1`` rows are NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> features = {run: rng.standard_normal((60, 2)) for run in ("a", "b")}
    >>> bold = {run: np.roll(x, 1, axis=0) for run, x in features.items()}
    >>> parts = {"train": ["a"], "validation": ["b"]}
    >>> model = encoding.fir_ridge(features, bold, parts, n_lags=3, alphas=[0.1], device="cpu")
    >>> predicted = encoding.fir_predict(model, features["b"])
    >>> predicted.shape, int(np.isnan(predicted[:, 0]).sum())
    ((60, 2), 2)
    """
    x = np.asarray(features)
    weights = model["weights"].values
    predicted = np.zeros((len(x), weights.shape[2])) + model["intercept"].values
    for lag, weight in enumerate(weights):
        predicted[lag:] += x[: len(x) - lag] @ weight
    if model.attrs["edges"] == "drop":
        predicted[: len(weights) - 1] = np.nan
    return predicted


def _collect(
    features, bold, parts, n_lags: int, edges: str, precision: str, device: str
) -> tuple[FirSums | FirRows, FirSums | FirRows, torch.Tensor, torch.Tensor, np.ndarray]:
    """Go through the runs once: train, validation, broken targets, offset, names of targets.

    Runs are kept as they are while their rows are fewer than the design's columns; beyond that,
    only sums are.
    """
    kept: dict[str, list[tuple]] = {"train": [], "validation": []}
    sums, n_rows, offset, target = None, 0, None, None
    for part, listed in kept.items():
        for run in parts[part]:
            x, y = _asked(features, run), _asked(bold, run)
            n_trs = min(len(x), len(y))
            if target is None:
                target = y["target"].values if isinstance(y, xr.DataArray) else range(y.shape[1])
            x, y = np.asarray(x)[:n_trs], np.asarray(y)[:n_trs]
            if offset is None:  # history of zeros must stay zeros; otherwise only rounding changes
                offset = x.mean(axis=0) if edges == "drop" else np.zeros_like(x[0])
                limit = n_lags * x.shape[1]
            if sums is not None:
                sums.add(x, y, part)
                continue
            listed.append((x, y))
            n_rows += n_trs
            if n_rows > limit:
                sums = FirAccumulator(
                    x.shape[1], y.shape[1], n_lags, edges, offset, precision, device=device
                )
                for name, several in kept.items():
                    for each in several:
                        sums.add(*each, name)
                    several.clear()
    device = resolve_device(device, float64=True)
    wide = torch.as_tensor(offset, dtype=torch.float64, device=device)
    if sums is not None:
        return sums.sums("train"), sums.sums("validation"), sums.broken, wide, np.asarray(target)
    rows = [_rows(several, n_lags, edges, offset, device) for several in kept.values()]
    broken = sum(~torch.isfinite(part.responses).all(dim=0) for part in rows) > 0
    for part in rows:
        part.responses.masked_fill_(broken, 0)
    return *rows, broken, wide, np.asarray(target)


def _rows(runs, n_lags: int, edges: str, offset: np.ndarray, device: torch.device) -> FirRows:
    """Design and responses of some runs, one below the other, float64."""
    first = n_lags - 1 if edges == "drop" else 0
    if any(len(y) <= first for _, y in runs):
        raise DataError(f"a run is shorter than {n_lags} volumes: none has a full history")
    design = np.concatenate([delayed(x - offset, n_lags, edges) for x, _ in runs])
    responses = np.concatenate([y[first:] for _, y in runs])
    if not np.isfinite(design).all():
        raise DataError("the features of a run hold NaN or infinite values")
    wide = {"dtype": torch.float64, "device": device}
    return FirRows(torch.as_tensor(design, **wide), torch.as_tensor(responses, **wide))


def _asked(source: Mapping | Callable, run: str) -> np.ndarray:
    if callable(source):
        return source(run)
    if run not in source:
        raise UnknownNameError("run", run, source)
    return source[run]
