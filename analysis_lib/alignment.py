"""Rows that belong together, matched by the sounds' names.

The data sets list the same sounds in different orders, so that a match by row position is wrong
without looking wrong. Whatever carries names is matched by them; plain arrays are taken to be in
the order of what they come with.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from .errors import AlignmentError, DataError

__all__ = ["align", "align_rows", "target_coords"]


def align(
    features: Mapping[str, np.ndarray | xr.DataArray], responses: np.ndarray | xr.DataArray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray | None]:
    """Bring features and responses into one order of sounds: that of the responses.

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        One array per layer; a DataArray ``(sound, unit)`` with a ``sound`` coordinate is matched
        by name, and may hold sounds that the responses lack.
    responses : array of shape (n_sounds, n_targets) or (n_sounds, n_targets, n_repetitions)
        Plain, or a DataArray ``(sound, target[, repetition])``. NaN is left as it is.

    Returns
    -------
    features : dict of str to array of shape (n_sounds, n_units)
        float32 where they were float32, float64 otherwise.
    responses : array of shape (n_sounds, n_targets[, n_repetitions]), float64
    names : array of shape (n_sounds,) of str, or None
        The sounds' names; None when nothing carries any.

    Raises
    ------
    AlignmentError
        When sounds are missing (it names them), are named twice, or row counts differ.
    DataError
        When a layer is empty, not two-dimensional, or holds NaN or infinite values.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import alignment
    >>> def labelled(values, names):
    ...     return xr.DataArray(values, dims=("sound", "unit"), coords={"sound": names})
    ...
    >>> features = {"layer": labelled(np.arange(3.0)[:, None], ["rain", "bell", "dog"])}
    >>> responses = labelled(np.ones((2, 1)), ["dog", "rain"]).rename(unit="target")
    >>> layers, measured, names = alignment.align(features, responses)
    >>> names.tolist(), layers["layer"].ravel().tolist()
    (['dog', 'rain'], [2.0, 0.0])
    """
    if not features:
        raise DataError("no layers were given: features must hold at least one")
    names = _names(responses, "responses")
    if isinstance(responses, xr.DataArray):
        last = [dim for dim in responses.dims if dim not in ("sound", "target")]
        _require_dims(responses, ("sound", "target"), "responses")
        responses = responses.transpose("sound", "target", *last)
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim not in (2, 3):
        raise DataError(
            f"responses have shape {responses.shape}; (sound, target) or "
            "(sound, target, repetition) is needed"
        )
    if names is None:
        named = [layer for layer in features if _names(features[layer], layer) is not None]
        names = _names(features[named[0]], named[0]) if named else None
        order_from = f"layer {named[0]!r}" if named else "responses"
        if names is not None and len(names) != len(responses):
            raise AlignmentError(
                f"{order_from} has {len(names)} sounds and the responses, which carry no names, "
                f"{len(responses)} rows. Give responses as a DataArray with a 'sound' coordinate."
            )
    aligned = {}
    for layer in list(features):
        x = features[layer]
        if isinstance(x, xr.DataArray):
            _require_dims(x, ("sound",), f"layer {layer!r}")
            x = x.transpose("sound", ...)
        aligned[layer] = _checked(align_rows(x, names, f"layer {layer!r}", len(responses)), layer)
    return aligned, responses, names


def align_rows(
    values: np.ndarray | xr.DataArray,
    names: Iterable[str] | None,
    what: str = "folds",
    n_sounds: int | None = None,
) -> np.ndarray:
    """Take the sounds ``names``, in their order, out of something that has one entry per sound.

    Parameters
    ----------
    values : array of shape (n_sounds, ...), or DataArray with a dimension ``sound``
        Folds ``(sound,)``, splits ``(split, sound)``, features ``(sound, unit)``. A plain array
        has the sounds on its first axis and is returned as it is.
    names : sequence of str, or None
        The wanted order; None leaves the order alone.
    what : str
        For messages.
    n_sounds : int, optional
        The wanted number when ``names`` is None.

    Raises
    ------
    AlignmentError
        When sounds are missing or named twice, or the number of rows differs.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import alignment
    >>> folds = xr.DataArray([0, 1, 2], dims="sound", coords={"sound": ["rain", "bell", "dog"]})
    >>> alignment.align_rows(folds, ["dog", "rain"])
    array([2, 0])
    """
    own = _names(values, what)
    axis = values.get_axis_num("sound") if isinstance(values, xr.DataArray) else 0
    array = np.asarray(values)
    if own is None or names is None:
        expected = n_sounds if names is None else len(list(names))
        found = array.shape[axis] if array.ndim else 0
        if expected is not None and found != expected:
            raise AlignmentError(f"{what} has {found} rows, the responses have {expected} sounds")
        return array
    position = {name: row for row, name in enumerate(own)}
    missing = [str(name) for name in names if name not in position]
    if missing:
        raise AlignmentError(
            f"{what} lacks {len(missing)} of {len(list(names))} sounds: {_some(missing)}. "
            "Compute it for these sounds, or leave them out of the responses."
        )
    return np.take(array, [position[name] for name in names], axis=axis)


def target_coords(responses: np.ndarray | xr.DataArray) -> dict[str, xr.Variable]:
    """Collect what the responses say about their targets: subject, roi, hemisphere, x, y, ...

    Returns
    -------
    dict of str to Variable
        Every coordinate along ``target``, ready to be the ``coords`` of a result; for a plain
        array only the running number ``target``.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import alignment
    >>> list(alignment.target_coords(np.zeros((10, 4))))
    ['target']
    """
    if not isinstance(responses, xr.DataArray):
        return {"target": xr.Variable("target", np.arange(np.shape(responses)[1]))}
    found = {
        name: coord.variable
        for name, coord in responses.coords.items()
        if coord.dims == ("target",)
    }
    found.setdefault("target", xr.Variable("target", np.arange(responses.sizes["target"])))
    return found


def _names(values: object, what: str) -> np.ndarray | None:
    """Sound names carried by a DataArray, checked to be unique."""
    if not isinstance(values, xr.DataArray) or "sound" not in values.coords:
        return None
    names = np.asarray(values["sound"].values).astype(str)
    kinds, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise AlignmentError(f"{what} names sounds twice: {_some(kinds[counts > 1])}")
    return names


def _require_dims(array: xr.DataArray, needed: tuple[str, ...], what: str) -> None:
    absent = [dim for dim in needed if dim not in array.dims]
    if absent:
        raise DataError(f"{what} has dimensions {array.dims} and lacks {', '.join(absent)}")


def _checked(x: np.ndarray, layer: str) -> np.ndarray:
    """Layer as a finite float array (n_sounds, n_units)."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise DataError(
            f"layer {layer!r} has shape {x.shape}; (sound, unit) is needed. "
            "Average over time and flatten the units first."
        )
    x = x.astype(np.float32 if x.dtype in (np.float16, np.float32) else np.float64, copy=False)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise DataError(
            f"layer {layer!r} holds NaN or infinite values in {bad.sum()} of {len(x)} sounds "
            f"(first: row {int(bad.argmax())}). Extract it again, or leave the layer out."
        )
    return x


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(map(str, names))
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
