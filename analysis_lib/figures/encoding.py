"""Figures of encoding models."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from .style import category_colours, label, legend_below, model_colours, new_axis

__all__ = [
    "plot_layer_choice",
    "plot_null",
    "plot_prediction",
    "plot_scores",
]


def plot_scores(
    table: pd.DataFrame,
    ax: Axes | None = None,
    across: str = "target",
    ceiling: Mapping[str, float] | None = None,
) -> Axes:
    """Draw R² of each model for each target or area, with standard errors where given.

    Parameters
    ----------
    table : DataFrame
        Columns ``model``, ``across``, ``score`` and optionally ``error``.
    across : str
        Column on the horizontal axis.
    ceiling : mapping of str to float, optional
        What a perfect model could reach in each group, drawn as a line over it.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("mfcc", "Pitch", 0.4), ("mfcc", "Speech", 0.5), ("log-mel", "Pitch", 0.3)]
    >>> table = pd.DataFrame(rows, columns=["model", "target", "score"])
    >>> ax = figures.plot_scores(table, ceiling={"Pitch": 0.8, "Speech": 0.7})
    """
    groups = list(dict.fromkeys(table[across]))
    names = list(dict.fromkeys(table["model"]))
    ax = new_axis(ax, float(np.clip(0.25 * len(groups) * len(names), 7.6, 14)), 4.4)
    colours = model_colours(names)
    width = 0.82 / len(names)
    for i, name in enumerate(names):
        rows = table[table["model"] == name].set_index(across).reindex(groups)
        place = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
        error = rows["error"] if "error" in rows and rows["error"].notna().any() else None
        ax.bar(
            place, rows["score"], width, yerr=error, color=colours[name], label=label(name),
            error_kw={"elinewidth": 1},
        )  # fmt: skip
    ceiling = {} if ceiling is None else dict(ceiling)
    known = {group: high for group, high in ceiling.items() if np.isfinite(high)}
    for place, group in enumerate(groups):
        if group in known:
            once = {} if ax.get_lines() else {"label": "Noise ceiling"}
            ax.plot([place - 0.45, place + 0.45], [known[group]] * 2, color="black", **once)
    wrapped = [str(group).replace(" ", "\n") for group in groups]
    ax.set_xticks(np.arange(len(groups)), wrapped)
    ax.set(ylabel="R² (squared correlation)", ylim=(0, None), xlabel=across.capitalize())
    legend_below(ax, len(names) + bool(known))
    return ax


def plot_layer_choice(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw which layer was chosen how often, as shares of each row.

    Parameters
    ----------
    shares : DataFrame
        Targets or areas as rows, layers first to last as columns, shares that sum to 1.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> shares = pd.DataFrame({"conv1": [0.8, 0.3], "conv2": [0.2, 0.7]}, ["Primary", "Lateral"])
    >>> ax = figures.plot_layer_choice(shares)
    """
    ax = new_axis(ax, 1.2 + 0.9 * shares.shape[1] + 1.5, 0.8 + 0.45 * shares.shape[0])
    sns.heatmap(
        shares, ax=ax, cmap="viridis", vmin=0, vmax=1, annot=True, fmt=".0%",
        cbar_kws={"label": "Share of outer folds"},
    )  # fmt: skip
    ax.set(xlabel="Layer, first to last", ylabel="Area or target")
    ax.tick_params(axis="y", rotation=0)
    return ax


def plot_prediction(
    measured: xr.DataArray, predicted: xr.DataArray, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw predicted against measured responses, a point per sound in its category's colour.

    Parameters
    ----------
    measured, predicted : DataArray (sound,)
        ``measured`` with ``category``.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import figures
    >>> category = ("sound", ["speech", "music", "speech"])
    >>> measured = xr.DataArray([0.1, 0.5, 0.9], dims="sound", coords={"category": category})
    >>> ax = figures.plot_prediction(measured, measured * 0.8, "Pitch")
    """
    ax = new_axis(ax, 3.6, 3.4)
    predicted = predicted.sel(sound=measured["sound"])
    colours = category_colours(measured["category"].data)
    for kind, colour in colours.items():
        of_kind = measured["category"].data == kind
        ax.scatter(
            measured.data[of_kind], predicted.data[of_kind], s=18, color=colour, label=kind,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
    low = float(min(measured.min(), predicted.min()))
    high = float(max(measured.max(), predicted.max()))
    ax.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
    ax.set(xlabel="Measured response", ylabel="Predicted response", title=title)
    return ax


def plot_null(observed: Mapping[str, float], null: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw scores obtained with shuffled responses, and the observed scores as lines.

    Parameters
    ----------
    observed : mapping of str to float
        Score of each model.
    null : array of shape (n_shuffles,)
        Scores with responses shuffled across sounds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> null = np.random.default_rng(0).normal(0.02, 0.01, 100)
    >>> ax = figures.plot_null({"log-mel": 0.21, "mfcc": 0.18}, null)
    """
    ax = new_axis(ax)
    furthest = max([*observed.values(), float(np.max(null))])
    bins = np.linspace(0, furthest, 60)
    ax.hist(null, bins, color="0.6", label=f"Shuffled responses ({len(null)})")
    for name, colour in model_colours(list(observed)).items():
        ax.axvline(observed[name], color=colour, label=label(name))
    ax.set(xlabel="Mean R² over targets", ylabel="Number of shuffles", xlim=(0, None))
    legend_below(ax, len(observed) + 1)
    return ax
