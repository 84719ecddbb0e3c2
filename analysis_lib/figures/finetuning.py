"""Figures of fine-tuning on brain responses."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from .style import legend_below, model_colours, new_axis

__all__ = [
    "plot_batch_norm_drift",
    "plot_conditions",
    "plot_depth",
    "plot_parcels",
    "plot_specificity",
    "plot_task_gain",
    "plot_timestamps",
    "plot_validation",
]


def plot_parcels(
    values: xr.DataArray, label: str, signed: bool = False, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a number per parcel where it lies, both hemispheres from outside.

    Parameters
    ----------
    values : DataArray (target,)
        With coordinates ``x``, ``y``, ``z`` in mm (MNI); without them parcels are sorted by value.
    label : str
        Of the number.
    signed : bool
        Colours from blue over white to red, around 0.
    title : str
        Over the panel.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> places = {"x": [-50.0, 50.0], "y": [-20.0, -20.0], "z": [8.0, 8.0]}
    >>> coords = {axis: ("target", values) for axis, values in places.items()}
    >>> values = xr.DataArray([0.1, 0.2], dims="target", coords=coords)
    >>> figure = figures.plot_parcels(values, label="R²")
    """
    ax = new_axis(ax, 7.2, 3.4)
    numbers = values.values.astype(float)
    ax.set_title(title)
    if not {"x", "y", "z"} <= set(values.coords):
        order = np.argsort(numbers)
        ax.bar(np.arange(len(order)), numbers[order], color="#0173B2", width=1.0)
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set(xlabel="Parcels, sorted", ylabel=label)
        return ax
    known = numbers[np.isfinite(numbers)]
    bound = float(np.abs(known).max()) if known.size else 1.0
    x, y, z = (values[name].values.astype(float) for name in "xyz")
    is_left = x < 0
    # Left: the front points left, as seen from its side; right: the front points right.
    gap = float(np.nanmax(y) - np.nanmin(y)) + 30
    across = np.where(is_left, -(y - np.nanmean(y)), y - np.nanmean(y) + gap)
    points = ax.scatter(
        across, z, c=numbers, s=130, edgecolor="0.3", linewidth=0.6,
        cmap="RdBu_r" if signed else "viridis",
        vmin=-bound if signed else min(0.0, float(known.min()) if known.size else 0.0),
        vmax=bound, plotnonfinite=False, clip_on=False,
    )  # fmt: skip
    for middle, name in ((0.0, "left hemisphere"), (gap, "right hemisphere")):
        ax.annotate(
            name, (middle, np.nanmin(z)), xytext=(0, -22), textcoords="offset points",
            ha="center", annotation_clip=False,
        )  # fmt: skip
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.margins(0.12, 0.3)
    ax.figure.colorbar(points, ax=ax, label=label, shrink=0.85)
    return ax


def plot_validation(trained: Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Draw the validation score along training; a diamond marks the weights that were kept.

    Parameters
    ----------
    trained : mapping of str to Dataset
        By name, from :func:`analysis_lib.finetuning.finetune`.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> coords = {"measure": ["r2_mean"], "epoch": [0, 1]}
    >>> curve = xr.DataArray([[0.1, 0.2]], dims=("measure", "epoch"), coords=coords)
    >>> trained = xr.Dataset({"validation": curve}, attrs={"best_epoch": 1})
    >>> ax = figures.plot_validation({"conv4": trained})
    """
    ax = new_axis(ax)
    for name, colour in model_colours(list(trained)).items():
        curve = trained[name]["validation"].sel(measure="r2_mean")
        best = int(trained[name].attrs["best_epoch"])
        ax.plot(curve["epoch"], curve, color=colour, marker=".", label=name)
        ax.scatter(best, curve[best], color=colour, marker="D", s=60, edgecolor="black", zorder=3)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set(xlabel="Epoch", ylabel="Mean R² on validation runs")
    legend_below(ax, len(trained))
    return ax


def plot_conditions(
    table: pd.DataFrame, ceiling: Mapping[str, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the score of each model, apart for kinds of parcels.

    Parameters
    ----------
    table : DataFrame
        Columns ``model``, ``parcels``, ``score``, ``low`` and ``high``.
    ceiling : mapping of str to float, optional
        By kind of parcels: what could be reached.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("frozen", "auditory", 0.1, 0.0, 0.2), ("tuned", "auditory", 0.2, 0.1, 0.3)]
    >>> table = pd.DataFrame(rows, columns=["model", "parcels", "score", "low", "high"])
    >>> ax = figures.plot_conditions(table)
    """
    ax = new_axis(ax, 7.2, 4.2)
    kinds = list(dict.fromkeys(table["parcels"]))
    models = list(dict.fromkeys(table["model"]))
    width = 0.8 / len(models)
    for i, (model, colour) in enumerate(model_colours(models).items()):
        rows = table[table["model"] == model].set_index("parcels").loc[kinds]
        place = np.arange(len(kinds)) + width * (i - (len(models) - 1) / 2)
        spread = np.clip([rows["score"] - rows["low"], rows["high"] - rows["score"]], 0, None)
        ax.errorbar(
            place, rows["score"], yerr=spread, fmt="o", color=colour, capsize=3, label=model
        )
    for i, kind in enumerate(kinds):
        if ceiling and np.isfinite(ceiling.get(kind, np.nan)):
            ax.hlines(ceiling[kind], i - 0.42, i + 0.42, color="0.4", linestyle="--")
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set(ylabel="R² on the test season")
    legend_below(ax, len(models))
    return ax


def plot_depth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the score by the first layer that learns, apart for kinds of parcels.

    Parameters
    ----------
    table : DataFrame
        Columns ``start``, ``parcels`` and ``score``.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("conv7", "auditory", 0.1), ("conv4", "auditory", 0.2)]
    >>> ax = figures.plot_depth(pd.DataFrame(rows, columns=["start", "parcels", "score"]))
    """
    ax = new_axis(ax)
    starts = list(dict.fromkeys(table["start"]))
    for kind, colour in model_colours(list(dict.fromkeys(table["parcels"]))).items():
        rows = table[table["parcels"] == kind].set_index("start").loc[starts]
        ax.plot(range(len(starts)), rows["score"], marker="o", color=colour, label=kind)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xticks(range(len(starts)), starts)
    ax.set(xlabel="First layer that learns", ylabel="R² on the test season")
    legend_below(ax, table["parcels"].nunique())
    return ax


def plot_specificity(scores: xr.DataArray, ax: Axes | None = None) -> Axes:
    """Draw how well each subject's model predicts every subject.

    Parameters
    ----------
    scores : DataArray (trained, tested)
        Mean score.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> subjects = ["s1", "s2"]
    >>> coords = {"trained": subjects, "tested": subjects}
    >>> scores = xr.DataArray([[0.2, 0.1], [0.1, 0.3]], dims=("trained", "tested"), coords=coords)
    >>> ax = figures.plot_specificity(scores)
    """
    ax = new_axis(ax, 4.8, 4.0)
    table = scores.transpose("trained", "tested").to_pandas()
    sns.heatmap(
        table, annot=True, fmt=".3f", cmap="viridis", ax=ax, square=True,
        cbar_kws={"label": "Mean R² on the test season"},
    )  # fmt: skip
    ax.set(xlabel="Tested on", ylabel="Trained on")
    return ax


def plot_batch_norm_drift(drift: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how far the statistics of a network without learning move, layer by layer.

    Parameters
    ----------
    drift : Dataset
        From :func:`analysis_lib.finetuning.batch_norm_drift`.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> shift = xr.DataArray([[0.0, 0.3]], dims=("layer", "step"), coords={"layer": ["conv1"]})
    >>> change = xr.DataArray([[0.0], [0.1]], dims=("step", "probe"))
    >>> drift = xr.Dataset({"mean_shift": shift, "embedding_change": change}, {"step": [0, 10]})
    >>> ax = figures.plot_batch_norm_drift(drift)
    """
    ax = new_axis(ax)
    palette = sns.color_palette("viridis", drift.sizes["layer"])
    for layer, colour in zip(drift["layer"].values, palette, strict=True):
        ax.plot(drift["step"], drift["mean_shift"].sel(layer=layer), color=colour, label=layer)
    ax.set(xlabel="Step", ylabel="Shift of the running means (first SD)")
    embedding = ax.twinx()
    embedding.plot(
        drift["step"], drift["embedding_change"].mean("probe"), color="black", linestyle="--"
    )
    embedding.set_ylabel("Relative change of the embedding (dashed)")
    embedding.set_ylim(bottom=0)
    legend_below(ax, drift.sizes["layer"])
    return ax


def plot_timestamps(times: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the times that a wrapper claims for its frames against the true ones.

    Parameters
    ----------
    times : Dataset
        From :func:`analysis_lib.finetuning.timestamp_error`.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> times = xr.Dataset({"true": ("frame", [0.0, 1.0]), "claimed": ("frame", [0.0, 1.2])})
    >>> ax = figures.plot_timestamps(times)
    """
    ax = new_axis(ax, 5.4, 4.0)
    last = float(times["true"].max())
    ax.plot([0, last], [0, last], color="0.5", linestyle="--", label="truth")
    ax.plot(times["true"], times["claimed"], color="#D55E00", label="as published")
    ax.set(xlabel="True time of the frame (s)", ylabel="Claimed time (s)")
    ax.legend(loc="upper left")
    return ax


def plot_task_gain(gains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what fine-tuning changed in each task, by the sound that was there to learn from.

    Parameters
    ----------
    gains : DataFrame
        From :func:`analysis_lib.finetuning.downstream_gain`.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("pitch", "conv4", 10.0, 0.1), ("pitch", "conv4", 100.0, 0.05)]
    >>> gains = pd.DataFrame(rows, columns=["task", "network", "train_seconds", "gain"])
    >>> ax = figures.plot_task_gain(gains)
    """
    ax = new_axis(ax)
    keys = gains["task"] + ", " + gains["network"]
    for name, colour in model_colours(list(dict.fromkeys(keys))).items():
        rows = gains[keys == name].sort_values("train_seconds")
        ax.plot(rows["train_seconds"], rows["gain"], marker="o", color=colour, label=name)
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set_xscale("log")
    ax.set(xlabel="Sound to learn from (s)", ylabel="Gain over the frozen baseline")
    legend_below(ax, keys.nunique())
    return ax
