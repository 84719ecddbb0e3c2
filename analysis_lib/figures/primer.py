"""Figures of the primer: small pictures of what an analysis does."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from .style import new_axis

__all__ = ["plot_ceiling", "plot_measures", "plot_penalties", "plot_pairs"]


def plot_pairs(
    measured: np.ndarray, predicted: Mapping[str, np.ndarray], axes: np.ndarray
) -> np.ndarray:
    """Draw measured against predicted responses, one axis per prediction.

    Parameters
    ----------
    measured : array of shape (n_sounds,)
    predicted : mapping of str to array of shape (n_sounds,)
        By title.
    axes : array of Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from analysis_lib import figures
    >>> axes = plt.subplots(1, 2)[1]
    >>> axes = figures.plot_pairs([1, 2, 3], {"Fitted": [1, 2, 3], "New": [2, 1, 3]}, axes)
    """
    colours = sns.color_palette("colorblind")
    for ax, (title, values), colour in zip(axes, predicted.items(), colours, strict=False):
        r2 = max(0.0, np.corrcoef(measured, values)[0, 1]) ** 2
        ax.scatter(values, measured, s=18, color=colour, alpha=0.8)
        ax.set(title=f"{title}: R² = {r2:.2f}", xlabel="Predicted response")
    axes[0].set_ylabel("Measured response")
    return axes


def plot_penalties(scores: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw R² against the ridge penalty.

    Parameters
    ----------
    scores : DataFrame
        Penalties in the index, a column per kind of R².

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> ax = figures.plot_penalties(pd.DataFrame({"New sounds": [0.1, 0.3]}, index=[1, 10]))
    """
    ax = new_axis(ax)
    for name, colour in zip(scores, sns.color_palette("colorblind"), strict=False):
        ax.plot(scores.index, scores[name], marker="o", color=colour, label=name)
    ax.set(xscale="log", xlabel="Ridge penalty", ylabel="R², mean over voxels", ylim=(0, 1.02))
    ax.legend()
    return ax


def plot_ceiling(voxels: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw each voxel's R² against the share of its variance that repeats.

    Parameters
    ----------
    voxels : DataFrame
        A row per voxel: ``ceiling`` and ``score``, both between 0 and 1, and ``noise``.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = {"ceiling": [0.9, 0.3], "score": [0.8, 0.2], "noise": [1, 4]}
    >>> ax = figures.plot_ceiling(pd.DataFrame(rows))
    """
    ax = new_axis(ax, 6.4, 4.8)
    colours = sns.color_palette("viridis", voxels["noise"].nunique())
    for (level, here), colour in zip(voxels.groupby("noise"), colours, strict=True):
        ax.scatter(here["ceiling"], here["score"], s=18, color=colour, label=f"noise {level:g}")
    ax.axline((0, 0), slope=1, color="0.5", linestyle="--", label="ceiling")
    ax.set(xlabel="Share of the variance that repeats", ylabel="R² for new sounds")
    ax.set(xlim=(min(0, voxels["ceiling"].min() - 0.03), 1), ylim=(-0.02, 1))
    ax.legend()
    return ax


def plot_measures(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the scores that several measures give to several representations.

    Parameters
    ----------
    table : DataFrame
        A representation per row, a measure per column.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> table = pd.DataFrame({"R²": [0.5, 0.5], "Similarity": [0.8, 0.3]}, ["as is", "turned"])
    >>> ax = figures.plot_measures(table)
    """
    ax = new_axis(ax, 7.6, 0.5 * len(table) + 1.6)
    height = 0.8 / len(table.columns)
    place = np.arange(len(table))[::-1]
    for i, (name, colour) in enumerate(zip(table, sns.color_palette("colorblind"), strict=False)):
        bars = ax.barh(place - (i - (len(table.columns) - 1) / 2) * height, table[name], height,
                       color=colour, label=name)  # fmt: skip
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    ax.set(yticks=place, yticklabels=table.index, xlabel="Score", xlim=(0, 1.08))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return ax
