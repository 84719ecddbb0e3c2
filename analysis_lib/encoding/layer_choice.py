"""From scores per layer and voxel to one score per subject, and to the place of the best layer."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..errors import DataError, ParameterError

__all__ = ["best_layer_position", "choose_by_split_halves", "subject_medians"]


def choose_by_split_halves(
    scores: xr.DataArray, n_iterations: int = 10, independent: bool = True
) -> xr.Dataset:
    """Choose each target's layer on half of the splits and read its score on the other half.

    Parameters
    ----------
    scores : DataArray (layer, split, target)
        As ``r2_corrected`` of :func:`split_half_ridge`.
    n_iterations : int
        Random divisions of the splits; iteration k has seed k.
    independent : bool
        True, as published ("CV-splits-nit-10"): the division is drawn anew for every layer and
        target. Where splits differ in difficulty, the layer that happened to be tried on easy
        ones wins and is read on the hard ones: the score is biased downwards. False: one
        division per iteration, the same for all, without that bias.

    Returns
    -------
    Dataset
        ``score`` and ``layer`` per (iteration, target). Medians over splits are clipped to at
        most 1; ties between layers are broken at random; NaN and empty for targets without
        scores.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import encoding
    >>> r2 = np.random.default_rng(0).uniform(0, 0.2, (2, 6, 3))
    >>> r2[1] += 0.3
    >>> layers = {"layer": ["early", "late"]}
    >>> scores = xr.DataArray(r2, dims=("layer", "split", "target"), coords=layers)
    >>> chosen = encoding.choose_by_split_halves(scores, n_iterations=2)
    >>> chosen["layer"].values.tolist()
    [['late', 'late', 'late'], ['late', 'late', 'late']]
    """
    values = scores.transpose("layer", "split", "target").values
    n_layers, n_splits, n_targets = values.shape
    if n_splits < 2:
        raise ParameterError("choosing by split halves needs at least two splits")
    names = np.array([*scores["layer"].values.astype(str), ""], dtype=object)
    read = np.full((n_iterations, n_targets), np.nan)
    layer = np.full((n_iterations, n_targets), "", dtype=object)
    valid = np.isfinite(values).all(axis=(0, 1))
    for iteration in range(n_iterations):
        rng = np.random.default_rng(iteration)
        shape = (n_layers, n_splits, n_targets) if independent else (1, n_splits, 1)
        order = np.broadcast_to(rng.random(shape).argsort(axis=1), values.shape)
        shuffled = np.take_along_axis(values, order, axis=1)
        half = n_splits // 2
        chosen_on, read_on = (
            np.minimum(np.median(part, axis=1), 1.0)
            for part in (shuffled[:, :half], shuffled[:, half:])
        )
        tied = chosen_on == chosen_on.max(axis=0)
        best = np.where(tied, rng.random(tied.shape), -1).argmax(axis=0)
        read[iteration] = np.where(valid, read_on[best, np.arange(n_targets)], np.nan)
        layer[iteration] = names[np.where(valid, best, -1)]
    along_target = {
        name: coord.variable for name, coord in scores.coords.items() if coord.dims == ("target",)
    }
    dims = ("iteration", "target")
    return xr.Dataset(
        {"score": (dims, read), "layer": (dims, layer.astype(str))}, coords=along_target
    )


def subject_medians(scores: xr.DataArray, groupby: str | Sequence[str] = "subject") -> xr.DataArray:
    """Aggregate voxels to subjects: median over each subject's voxels, mean over iterations.

    Parameters
    ----------
    scores : DataArray (..., target)
        With ``subject`` (and ``roi``) along ``target``. ``iteration`` is averaged if it is there;
        other dimensions stay.
    groupby : "subject" or ("subject", "roi")
        Voxels without a region belong to none.

    Returns
    -------
    DataArray (..., subject[, roi])
        NaN where a subject has no voxels with a score.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import encoding
    >>> subject = ("target", ["s1", "s1", "s1", "s2"])
    >>> scores = xr.DataArray([0.1, 0.2, 0.9, 0.5], dims="target", coords={"subject": subject})
    >>> encoding.subject_medians(scores).values
    array([0.2, 0.5])
    """
    groupby = (groupby,) if isinstance(groupby, str) else tuple(groupby)
    absent = [name for name in groupby if name not in scores.coords]
    if absent:
        raise DataError(f"scores have no {' or '.join(absent)} along target to group by")
    if "roi" in groupby:
        scores = scores[..., (scores["roi"] != "").values]
    levels = [np.unique(scores[name].values) for name in groupby]
    lead = scores.transpose(..., "target")
    result = np.full((*lead.shape[:-1], *map(len, levels)), np.nan)
    for place in np.ndindex(*map(len, levels)):
        member = np.logical_and.reduce(
            [
                lead[name].values == level[k]
                for name, level, k in zip(groupby, levels, place, strict=True)
            ]
        )
        inside = lead.values[..., member]
        inside = inside[..., np.isfinite(inside).all(axis=tuple(range(inside.ndim - 1)))]
        if inside.shape[-1]:
            result[(..., *place)] = np.median(inside, axis=-1)
    dims = (*lead.dims[:-1], *groupby)
    coords = {dim: lead.coords[dim] for dim in lead.dims[:-1] if dim in lead.coords}
    medians = xr.DataArray(
        result, dims=dims, coords={**coords, **dict(zip(groupby, levels, strict=True))}
    )
    return medians.mean("iteration") if "iteration" in dims else medians


def best_layer_position(scores: xr.DataArray) -> xr.DataArray:
    """Depth of the best layer: 0 for the first, 1 for the last.

    Parameters
    ----------
    scores : DataArray with a dimension ``layer``
        Layers in the order of the network. Of equal layers the first counts.

    Returns
    -------
    DataArray without ``layer``
        NaN where no layer has a score.

    Raises
    ------
    ParameterError
        With a single layer, which has no depth.

    Notes
    -----
    Chosen and read on the same data: a description of a model, not a score. For the published
    figure of Tuckute et al. (2023), give it ``r2_corrected.median("split").clip(max=1)`` and take
    medians over a region's voxels and means over subjects (:func:`subject_medians`).

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import encoding
    >>> scores = xr.DataArray([[0.1, 0.4], [0.3, 0.2], [0.2, 0.1]], dims=("layer", "target"))
    >>> encoding.best_layer_position(scores).values
    array([0.5, 0. ])
    """
    n_layers = scores.sizes["layer"]
    if n_layers < 2:
        raise ParameterError("the position of the best layer needs at least two layers")
    position = scores.fillna(-np.inf).argmax("layer") / (n_layers - 1)
    return position.where(scores.notnull().any("layer")).rename("best_layer_position")
