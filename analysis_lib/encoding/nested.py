"""The protocol of Pepino et al. (2025), computed exactly but not literally."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from ..alignment import align, align_rows, target_coords
from ..device import require_memory, resolve_device
from ..errors import AlignmentError, DataError, ParameterError, UnknownNameError
from .search import NestedSearch

__all__ = ["PAPER_ALPHAS", "aggregate", "explainable", "gram", "nested_cv_ridge"]

log = logging.getLogger("brainbook")

PAPER_ALPHAS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0)
ALGORITHM_VERSION = 1  # raised when results change; part of every stored result's key


def gram(x: np.ndarray | torch.Tensor, device: str = "cpu", block: int = 65_536) -> torch.Tensor:
    """Inner products of centred rows, in float64.

    Parameters
    ----------
    x : array of shape (n_sounds, n_units)
        Activations.
    device : str
        Where to compute.
    block : int
        Units converted to float64 at a time.

    Returns
    -------
    tensor of shape (n_sounds, n_sounds), float64

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> encoding.gram(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])).round(decimals=2)
    tensor([[ 1.,  0., -1.],
            [ 0.,  1., -1.],
            [-1., -1.,  2.]], dtype=torch.float64)
    """
    x = torch.as_tensor(x)
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=device)
    for part in x.split(block, dim=1):
        part = part.to(device=device, dtype=torch.float64)
        part = part - part.mean(dim=0)
        total += part @ part.T
    return total


def nested_cv_ridge(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    folds: np.ndarray | xr.DataArray | Sequence[int],
    alphas: Sequence[float] = PAPER_ALPHAS,
    extend: str = "greedy",
    device: str = "auto",
    n_targets_batch: int = 1024,
) -> xr.Dataset:
    """Predict every target by ridge regression, its layer and penalty chosen in nested folds.

    For each target and outer fold, the layer and the penalty are chosen together on the other
    folds by leave-one-fold-out cross-validation, refitted on all of them, and used to predict the
    sounds of the outer fold. Features and responses are centred on the training sounds, not
    scaled. The protocol of Pepino et al. (2025).

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        One array per layer, first to last.
    responses : array of shape (n_sounds, n_targets[, n_repetitions])
        Repetitions are averaged. Labelled arrays are aligned by the names of their sounds.
    folds : array of shape (n_sounds,)
        Outer fold of each sound; at least three folds.
    alphas : sequence of float
        Penalties of the grid, in any order.
    extend : {"greedy", "none"}
        ``"greedy"``: while the best penalty lies at an end of the grid, go on by factors of two
        for the chosen layer as long as the score improves (the paper's rule). ``"none"``: only
        the grid, which may then be wide.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    n_targets_batch : int
        Targets processed together; bounds the memory, does not change the result.

    Returns
    -------
    Dataset
        ``score`` (target,): squared Pearson correlation of measured and predicted responses over
        all sounds, 0 where the correlation is negative or the prediction constant.
        ``prediction`` (sound, target): out-of-fold predictions, in units of the responses.
        ``layer``, ``alpha``, ``inner_score`` (fold, target): what was chosen and its
        cross-validated score. Targets with NaN are NaN throughout (layer ``""``), constant
        targets have score 0.

    Raises
    ------
    AlignmentError
        When sounds do not match by name or by number.
    ParameterError
        For impossible folds, penalties or options.
    MemoryBudgetError
        When the data do not fit.

    References
    ----------
    Pepino, Riera, Kamienkowski & Ferrer (2025), arXiv 2511.16849, voxel-wise regression.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> features = {"early": rng.standard_normal((40, 6)), "late": rng.standard_normal((40, 6))}
    >>> responses = features["late"] @ rng.standard_normal((6, 3))
    >>> result = encoding.nested_cv_ridge(features, responses, np.arange(40) % 5, device="cpu")
    >>> result["score"].round(2).values
    array([1., 1., 1.])
    >>> sorted(set(result["layer"].values.ravel()))
    ['late']
    """
    if extend not in ("greedy", "none"):
        raise UnknownNameError("extension rule", extend, ["greedy", "none"])
    alphas = _checked_alphas(alphas)
    layers, measured, names = align(features, responses)
    fold_of = _checked_folds(align_rows(_as_labelled(folds), names, "folds", len(measured)))
    if measured.ndim == 3:
        measured = measured.mean(axis=2)
    on = resolve_device(device, float64=True)
    n_sounds, n_targets = measured.shape
    n_folds = len(set(fold_of))
    require_memory(
        nested_cv_bytes(n_sounds, n_targets, len(layers), len(alphas), n_folds, n_targets_batch),
        on,
        f"encoding {n_targets} targets from {len(layers)} layers",
        "Lower n_targets_batch, or give fewer targets at a time.",
    )
    usable = _usable_targets(measured)
    y = torch.from_numpy(measured[:, usable]).to(on)
    mean, scale = y.mean(dim=0), y.std(dim=0, correction=0)
    y = (y - mean) / scale
    grams = torch.stack([gram(x, on) for x in layers.values()])
    search = NestedSearch(grams, torch.from_numpy(fold_of).to(on), alphas, extend == "greedy")
    chosen = search.run(y, n_targets_batch)
    chosen["prediction"] = chosen["prediction"] * scale + mean
    labels = np.array(list(layers), dtype=object)
    return _as_dataset(chosen, measured, usable, labels, names, responses)


def nested_cv_bytes(
    n_sounds: int,
    n_targets: int,
    n_layers: int,
    n_alphas: int = len(PAPER_ALPHAS),
    n_folds: int = 5,
    n_targets_batch: int = 1024,
) -> float:
    """Estimate the most memory, in bytes, that :func:`nested_cv_ridge` takes at once."""
    n_scores = n_layers * n_alphas * n_targets_batch * n_folds
    return 8.0 * (4 * n_sounds * n_targets + 5 * n_scores)


def aggregate(result: xr.Dataset, by: str | None = None) -> pd.DataFrame:
    """Summarise scores as the paper does: median over voxels, then mean over subjects.

    Parameters
    ----------
    result : Dataset
        With ``score`` (target,) and, where known, ``subject``.
    by : str, optional
        Coordinate of the targets to group by first, such as ``"roi"``; unlabelled targets
        (``""``) are left out then.

    Returns
    -------
    DataFrame
        A row per group: ``score``, its standard error over subjects ``error`` (population
        standard deviation over the root of n - 1; NaN with fewer than two subjects),
        ``n_subjects`` and ``n_targets``.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import encoding
    >>> subject = ("target", ["s1", "s1", "s2", "s2"])
    >>> result = xr.Dataset({"score": ("target", [0.1, 0.3, 0.4, 0.6])}, {"subject": subject})
    >>> encoding.aggregate(result).round(3)
           score  error  n_subjects  n_targets
    group
    all     0.35   0.15           2          4
    """
    table = result["score"].to_dataframe().reset_index()
    if "subject" not in table:
        table["subject"] = "all"
    if by is None:
        table["group"] = "all"
    elif by not in table:
        raise UnknownNameError("coordinate of the targets", by, result["target"].coords)
    else:
        table = table[table[by] != ""].rename(columns={by: "group"})
    medians = table.groupby(["group", "subject"], sort=False)["score"].median()
    medians = medians.groupby("group", sort=False)
    n_subjects = medians.count()
    return pd.DataFrame(
        {
            "score": medians.mean(),
            "error": medians.std(ddof=0) / np.sqrt(n_subjects.where(n_subjects > 1) - 1),
            "n_subjects": n_subjects,
            "n_targets": table.groupby("group", sort=False)["score"].count(),
        }
    ).rename_axis(by or "group")


def explainable(responses: xr.DataArray) -> xr.DataArray:
    """Estimate the highest score that a perfect model could reach on each target.

    The squared correlation of the true response with the mean of ``n`` noisy repetitions is the
    reliability of that mean: the median correlation of two repetitions over sounds, stepped up to
    ``n`` by Spearman-Brown.

    Parameters
    ----------
    responses : DataArray (sound, target, repetition)
        At least two repetitions.

    Returns
    -------
    DataArray (target,)
        Between 0 and 1; 0 where repetitions are not positively correlated, NaN for targets with
        NaN or without repetitions.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import encoding
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((200, 1, 1))
    >>> noisy = signal + rng.standard_normal((200, 1, 3))
    >>> responses = xr.DataArray(noisy, dims=("sound", "target", "repetition"))
    >>> encoding.explainable(responses).round(1).values
    array([0.8])
    """
    if responses.sizes.get("repetition", 1) < 2:
        return xr.full_like(responses.isel(sound=0, repetition=0, missing_dims="ignore"), np.nan)
    values = responses.transpose("repetition", "sound", "target")
    z = (values - values.mean("sound")) / values.std("sound")
    n = responses.sizes["repetition"]
    pairs = [
        (z.isel(repetition=i) * z.isel(repetition=j)).mean("sound")
        for i in range(n)
        for j in range(i + 1, n)
    ]
    r = xr.concat(pairs, "pair").median("pair").clip(min=0)
    return n * r / (1 + (n - 1) * r)


def _checked_alphas(alphas: Sequence[float]) -> list[float]:
    alphas = [float(alpha) for alpha in alphas]
    if not alphas or not all(np.isfinite(alpha) and alpha > 0 for alpha in alphas):
        raise ParameterError(f"alphas must be positive numbers, at least one; got {alphas}")
    return alphas


def _as_labelled(folds) -> np.ndarray | xr.DataArray:
    return folds if isinstance(folds, xr.DataArray) else np.asarray(folds)


def _checked_folds(folds: np.ndarray) -> np.ndarray:
    """Folds as integers from 0, in ascending order of their labels."""
    if folds.ndim != 1 or (folds.dtype.kind == "f" and not np.isfinite(folds).all()):
        raise AlignmentError("folds must be one finite number for each sound")
    labels, fold_of, counts = np.unique(folds, return_inverse=True, return_counts=True)
    if len(labels) < 3:
        raise ParameterError(
            f"nested cross-validation needs at least 3 folds, not {len(labels)}: one to test, one "
            "to choose by, one to train on"
        )
    if counts.min() < 2:
        raise ParameterError(f"fold {labels[counts.argmin()]} has a single sound; 2 are needed")
    return fold_of


def _usable_targets(measured: np.ndarray) -> np.ndarray:
    """Targets that can be regressed; the others are kept out of every shared product."""
    finite = np.isfinite(measured).all(axis=0)
    varies = np.zeros_like(finite)
    spread = measured[:, finite].std(axis=0)
    varies[finite] = spread > 1e-12 * (np.abs(measured[:, finite]).max(axis=0) + 1e-300)
    if not finite.all():
        log.warning(
            "%d of %d targets hold NaN: their results are NaN", (~finite).sum(), len(finite)
        )
    if (finite & ~varies).any():
        log.warning("%d targets are constant: their score is 0", (finite & ~varies).sum())
    if not varies.any():
        raise DataError("every target is constant or holds NaN: there is nothing to predict")
    return varies


def _as_dataset(chosen, measured, usable, labels, names, responses) -> xr.Dataset:
    """Put the results of the usable targets among all targets, with their coordinates."""
    n_folds = chosen["layer"].shape[0]
    constant = np.isfinite(measured).all(axis=0) & ~usable
    prediction = np.full(measured.shape, np.nan)
    prediction[:, usable] = chosen["prediction"].cpu().numpy()
    prediction[:, constant] = measured[:, constant]
    layer = np.full((n_folds, len(usable)), "", dtype=object)
    layer[:, usable] = labels[chosen["layer"].cpu().numpy()]
    variables = {"layer": (("fold", "target"), layer)}
    for name in ("alpha", "inner_score"):
        values = np.full((n_folds, len(usable)), np.nan)
        values[:, usable] = chosen[name].cpu().numpy()
        variables[name] = (("fold", "target"), values)
    score = np.full(len(usable), np.nan)
    score[constant] = 0.0
    y, p = measured[:, usable], prediction[:, usable]
    y, p = y - y.mean(axis=0), p - p.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (y * p).sum(axis=0) / np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0))
    score[usable] = np.nan_to_num(r).clip(min=0) ** 2
    variables["score"] = ("target", score)
    variables["prediction"] = (("sound", "target"), prediction)
    coords = dict(target_coords(responses))
    coords["fold"] = np.arange(n_folds)
    coords["sound"] = np.arange(len(measured)) if names is None else np.asarray(names, dtype=object)
    return xr.Dataset(variables, coords)
