"""What happened over training, how sure that is, and when it happened.

Checkpoints of one run, and runs compared over the same sounds, share everything but the weights.
So every difference is taken within a draw of sounds, or of subjects or targets, before its interval
is. The intervals say what another sample of these would give. They do not say what another run of
the training, from another seed, would give.
"""

from collections.abc import Mapping

import numpy as np
import scipy
import xarray as xr

from ..errors import ParameterError, UnknownNameError

__all__ = ["contrast", "curves", "emergence", "gain", "smooth"]

MEASURES = (
    "rsa", "rsa_roi", "encoding", "encoding_roi", "encoding_joint", "encoding_joint_roi", "probe"
)  # fmt: skip
UNITS = ("sounds", "subjects", "targets")


def curves(
    dynamics: xr.Dataset,
    measure: str = "rsa",
    over: str = "sounds",
    each_target: bool = False,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Put an interval around a measure at every step.

    Parameters
    ----------
    dynamics : Dataset
        From :func:`analysis_lib.dynamics.over_steps`, of one brain.
    measure : {"rsa", "encoding", "encoding_joint", "probe"}
        What to follow; the first three also with ``_roi``, by region.
    over : {"sounds", "subjects", "targets"}
        What is drawn with replacement. Sounds are many, and what a conclusion should generalise
        to first; their draws were made by ``over_steps``. Subjects can be drawn where there are
        several. Targets can be drawn too, but six components are few, and no sample.
    each_target : bool
        Leave components apart instead of averaging over them.
    confidence : float
        Coverage of the percentile interval.
    n_boot, seed : int
        Of the draws of subjects or targets.

    Returns
    -------
    Dataset
        ``score``, ``low`` and ``high`` (step, ...) and ``draws`` (draw, step, ...), averaged over
        subjects; the other dimensions are ``layer`` and, where they are there, ``roi`` and
        ``target``. Without draws (a probe, or ``n_boot`` 0 in ``over_steps``) the interval is
        NaN.

    Raises
    ------
    UnknownNameError, ParameterError
        When there is no such measure, or fewer than two of what is to be drawn.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from safetensors.torch import save_file
    >>> from analysis_lib import data, dynamics, models
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for step in (0, 100):
    ...     network = models.load("small-cnn", untrained=True, seed=step, device="cpu").network
    ...     save_file(network.state_dict(), folder / f"step={step}.safetensors")
    ...
    >>> series = dynamics.CheckpointSeries.of_folder(folder, load="small-cnn")
    >>> sounds = data.simulated_sounds(2)
    >>> brain = data.responses("simulated", sounds=sounds, n_subjects=1, n_voxels=3)
    >>> compared = dynamics.over_steps(series, sounds, {"demo": brain}, n_boot=10, device="cpu")
    >>> curve = dynamics.curves(compared["demo"], "rsa")
    >>> sorted(curve.data_vars), curve["score"].dims
    (['draws', 'high', 'low', 'score'], ('step', 'layer'))
    """
    if measure not in MEASURES or measure not in dynamics:
        raise UnknownNameError("measure", measure, [name for name in MEASURES if name in dynamics])
    if over not in UNITS:
        raise UnknownNameError("thing to resample", over, UNITS)
    values = dynamics[measure]
    averaged = [dim for dim in ("subject", "target") if dim in values.dims]
    if each_target and over != "targets":
        averaged = [dim for dim in averaged if dim != "target"]
    if over == "sounds":
        stored = f"{measure}_draws"
        draws = dynamics.get(stored, values.expand_dims(draw=0))
        drawn = dynamics.attrs.get("draws_of", "")
    else:
        dim = over.removesuffix("s")
        if values.sizes.get(dim, 1) < 2:
            raise ParameterError(f"{measure} has fewer than two {over} to draw from")
        draws = _redrawn(values, dim, n_boot, seed)
        drawn = f"{over} {n_boot} {seed} {list(map(str, values[dim].values))}"
    score = values.mean(averaged)
    draws = draws.mean([dim for dim in averaged if dim in draws.dims])
    return _with_interval(score, draws, confidence, over=over, draws_of=drawn, measure=measure)


def gain(curve: xr.Dataset, since: int | None = None, until: int | None = None) -> xr.Dataset:
    """Estimate how much a measure rose between two steps, by default the first and the last.

    Parameters
    ----------
    curve : Dataset
        From :func:`curves`.
    since, until : int, optional
        Steps.

    Returns
    -------
    Dataset
        ``score`` with ``low`` and ``high``: the differences within each draw. And ``draws``.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> dynamics.gain(curve)["score"].values.round(2)
    array([0.3, 0.1])
    """
    before, after = (_at(curve, step, last) for step, last in ((since, False), (until, True)))
    return _difference(after, before, curve.attrs)


def contrast(curve: xr.Dataset, other: xr.Dataset, step: int | None = None) -> xr.Dataset:
    """Estimate how far one run lies above another, by default at the last step of each.

    Parameters
    ----------
    curve, other : Dataset
        From :func:`curves`, of runs compared with the same brain over the same sounds, so that
        their draws are pairs.
    step : int, optional
        A step of both.

    Returns
    -------
    Dataset
        As :func:`gain`.

    Raises
    ------
    ParameterError
        When the draws of the two are not pairs.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> dynamics.contrast(curve, curve)["score"].values.round(2)
    array([0., 0.])
    """
    differing = [
        name
        for name in ("measure", "over", "draws_of", "confidence")
        if curve.attrs[name] != other.attrs[name]
    ]
    if differing or curve.sizes["draw"] != other.sizes["draw"]:
        raise ParameterError(
            f"the two runs cannot be paired: they differ in {', '.join(differing) or 'draws'}. "
            "Compare them with the same responses, n_boot and seed."
        )
    return _difference(_at(curve, step, True), _at(other, step, True), curve.attrs)


def emergence(curve: xr.Dataset, share: float = 0.9) -> xr.Dataset:
    """Find out when a measure rose.

    Parameters
    ----------
    curve : Dataset
        From :func:`curves`, over at least two steps.
    share : float
        Of the rise from the first step to the last.

    Returns
    -------
    Dataset
        Per layer (and region, target):

        ``reached``
            Step at which the measure first had risen by ``share`` of its whole rise; on a line
            between checkpoints. NaN where it did not rise. A curve that peaks and falls again
            reaches its final value early.
        ``low``, ``high``
            Percentile interval of the same over draws. A draw without a rise never reaches it
            and counts as infinite, so that an infinite ``high`` says: it may not have risen.
        ``rising``
            Share of draws in which it rose.
        ``onset``
            First checkpoint from which on, until the last, the interval of the difference from
            the first step lies above 0; NaN where there is none.
        ``peak``
            Step of the highest value.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> dynamics.emergence(curve)["onset"].values
    array([10., 10.])
    """
    if curve.sizes["step"] < 2:
        raise ParameterError("emergence needs at least two steps")
    if not 0 < share <= 1:
        raise ParameterError(f"share must lie above 0 and at most at 1, not at {share}")
    steps = curve["step"].values.astype(float)
    score, draws = curve["score"].transpose("step", ...), curve["draws"].transpose("step", ...)
    reached = xr.zeros_like(score.isel(step=0, drop=True)).copy(
        data=_first_reached(score.values, steps, share)
    )
    result = xr.Dataset({"reached": reached.where(np.isfinite(reached))})
    result["peak"] = score["step"][score.fillna(-np.inf).argmax("step")].drop_vars("step")
    over = draws.isel(step=0, drop=True)
    times = over.copy(data=_first_reached(draws.values, steps, share))
    tail = (1 - curve.attrs["confidence"]) / 2
    if draws.sizes["draw"]:
        result["rising"] = np.isfinite(times).mean("draw")
        limits = {"low": (tail, "lower"), "high": (1 - tail, "higher")}
        for name, (q, method) in limits.items():  # between infinities there is no line
            result[name] = times.quantile(q, "draw", method=method).drop_vars("quantile")
        above = (draws - draws.isel(step=0)).quantile(tail, "draw").drop_vars("quantile") > 0
        stays = (
            above.isel(step=slice(None, None, -1)).cumprod("step").isel(step=slice(None, None, -1))
        )
        onset = stays["step"][stays.argmax("step")].drop_vars("step")
        result["onset"] = onset.where(stays.any("step"))
    else:
        for name in ("rising", "low", "high", "onset"):
            result[name] = xr.full_like(reached, np.nan)
    return result.assign_attrs(
        share=share, first_step=int(steps[steps > 0].min()), last_step=int(steps[-1]), **curve.attrs
    )


def smooth(curve: xr.DataArray, window: int = 10, order: int = 3) -> xr.DataArray:
    """Smooth a curve along its steps, to be shown beside it and never instead of it.

    Parameters
    ----------
    curve : DataArray (step, ...)
        Its checkpoints are taken as evenly spaced.
    window, order : int
        Checkpoints, and degree of the polynomial fitted to them (Savitzky and Golay 1964). The
        default is that of Pepino et al. (2025). An even window has no middle: what it gives at a
        checkpoint belongs half a checkpoint later, away from the ends.

    Returns
    -------
    DataArray
        Of the same shape.

    Raises
    ------
    ParameterError
        When there are fewer checkpoints than the window holds, or too few for the order.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> curve = xr.DataArray(np.arange(12.0), dims="step", coords={"step": np.arange(12)})
    >>> dynamics.smooth(curve, window=5, order=1)[5].round(2).item()
    5.0
    """
    n_steps = curve.sizes["step"]
    if not order < window <= n_steps:
        raise ParameterError(
            f"smoothing {n_steps} steps needs order < window <= {n_steps}; order is {order} and "
            f"window {window}"
        )
    axis = curve.get_axis_num("step")
    return curve.copy(data=scipy.signal.savgol_filter(curve.values, window, order, axis=axis))


def _with_interval(
    score: xr.DataArray, draws: xr.DataArray, confidence: float, **about
) -> xr.Dataset:
    """Score, draws and their percentile interval."""
    draws = draws.transpose("draw", *score.dims)
    tail = (1 - confidence) / 2
    if draws.sizes["draw"]:
        limits = draws.quantile([tail, 1 - tail], "draw", skipna=True)
        low, high = (limits.isel(quantile=i, drop=True) for i in (0, 1))
    else:
        low = high = xr.full_like(score, np.nan)
    return xr.Dataset(
        {"score": score, "low": low, "high": high, "draws": draws},
        attrs={"confidence": confidence, **about},
    )


def _redrawn(values: xr.DataArray, dim: str, n_boot: int, seed: int) -> xr.DataArray:
    """Means over draws of the things along ``dim``, (draw, ...)."""
    n = values.sizes[dim]
    rng = np.random.default_rng(seed)
    times = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(n_boot)])
    weights = xr.DataArray(times.astype(float), dims=("draw", dim))
    return values.weighted(weights.assign_coords({dim: values[dim]})).mean(dim)


def _at(curve: xr.Dataset, step: int | None, last: bool) -> xr.Dataset:
    if step is None:
        return curve.isel(step=-1 if last else 0, drop=True)
    if step not in curve["step"].values:
        raise UnknownNameError("step", str(step), map(str, curve["step"].values))
    return curve.sel(step=step, drop=True)


def _difference(a: xr.Dataset, b: xr.Dataset, about: Mapping) -> xr.Dataset:
    try:
        with xr.set_options(arithmetic_join="exact"):
            score, draws = a["score"] - b["score"], a["draws"] - b["draws"]
    except ValueError as error:
        raise ParameterError(
            f"the two curves cannot be subtracted: they have other layers, regions or targets "
            f"({error})"
        ) from error
    return _with_interval(score, draws, **about)


def _first_reached(values: np.ndarray, steps: np.ndarray, share: float) -> np.ndarray:
    """Step at which values (n_steps, ...) first reach a share of their rise; inf without one."""
    rise = values[-1] - values[0]
    wanted = values[0] + share * rise
    # To a share of 1 rounding may be in the way; the last step has risen by all of it.
    there = values >= wanted - 1e-12 * np.abs(wanted)
    there[-1] = True
    index = np.maximum(there.argmax(axis=0), 1)
    after = np.take_along_axis(values, index[None], axis=0)[0]
    before = np.take_along_axis(values, index[None] - 1, axis=0)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.clip((wanted - before) / (after - before), 0, 1)
    step = steps[index - 1] + part * (steps[index] - steps[index - 1])
    return np.where(rise > 0, step, np.inf)
