"""Figures of sounds, models and features."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from .. import models
from .style import category_colours, label, legend_below, model_colours, new_axis

__all__ = [
    "plot_activations",
    "plot_category_counts",
    "plot_dimensionality",
    "plot_spectrogram",
    "plot_zoo",
]


def plot_category_counts(categories: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the number of sounds in each category.

    Parameters
    ----------
    categories : sequence of str
        One per sound.

    Examples
    --------
    >>> from analysis_lib import figures
    >>> ax = figures.plot_category_counts(["speech", "speech", "music"])
    """
    ax = new_axis(ax, height=3.4)
    counts = pd.Series(list(categories)).value_counts()
    colours = category_colours(categories)
    ax.barh(counts.index, counts.values, color=[colours[kind] for kind in counts.index])
    ax.bar_label(ax.containers[0], padding=3)
    ax.invert_yaxis()
    ax.set(xlabel="Number of sounds", ylabel="Category")
    return ax


def plot_spectrogram(
    values: np.ndarray, duration: float, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a time-frequency picture of one sound.

    Parameters
    ----------
    values : array of shape (n_frames, n_channels)
        Low to high frequency.
    duration : float
        Of the sound, in seconds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> ax = figures.plot_spectrogram(np.random.default_rng(0).random((98, 40)), duration=1.0)
    """
    ax = new_axis(ax, 3.4, 2.4)
    ax.imshow(
        values.T, aspect="auto", origin="lower", extent=(0, duration, 0, values.shape[1]),
        cmap="magma", interpolation="nearest",
    )  # fmt: skip
    ax.set(xlabel="Time (s)", ylabel="Channel", title=title)
    return ax


def plot_activations(activations: xr.DataArray, ax: Axes | None = None, n_units: int = 60) -> Axes:
    """Draw a layer's activations, sounds sorted by category.

    Parameters
    ----------
    activations : DataArray (sound, unit)
        With ``category``. Units are standardised; ``n_units`` of them are drawn, evenly spaced.

    Examples
    --------
    >>> from analysis_lib import data, extraction, figures
    >>> features = extraction.extract("mfcc", data.simulated_sounds(1), device="cpu")
    >>> ax = figures.plot_activations(features["mfcc"])
    """
    ax = new_axis(ax)
    ordered = activations.sortby("category")
    spread = ordered.std("sound")
    alive = ordered.isel(unit=np.flatnonzero(spread.data > 1e-9))
    if alive.sizes["unit"]:
        step = np.linspace(0, alive.sizes["unit"] - 1, min(n_units, alive.sizes["unit"]))
        alive = alive.isel(unit=np.unique(step.astype(int)))
    z = (alive - alive.mean("sound")) / alive.std("sound")
    ax.imshow(z.data, aspect="auto", cmap="RdBu_r", vmin=-2.5, vmax=2.5, interpolation="nearest")
    kinds = ordered["category"].data
    starts = np.flatnonzero(np.r_[True, kinds[1:] != kinds[:-1]])
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="black", linewidth=0.6)
    middles = (starts + np.r_[starts[1:], len(kinds)]) / 2 - 0.5
    ax.set_yticks(middles, kinds[starts])
    ax.set_xticks([])
    ax.set(
        xlabel=f"{z.sizes['unit']} of {activations.sizes['unit']:,} units (z-scored)",
        ylabel="Sounds, by category",
    )
    return ax


def plot_dimensionality(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw effective dimensionality along the depth of each model.

    Parameters
    ----------
    table : DataFrame
        Columns ``model``, ``depth`` (0 first layer, 1 last), ``dimensionality``.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> table = pd.DataFrame(
    ...     {"model": ["small-cnn"] * 3, "depth": [0, 0.5, 1], "dimensionality": [3.0, 5.0, 9.0]}
    ... )
    >>> ax = figures.plot_dimensionality(table)
    """
    ax = new_axis(ax)
    names = list(dict.fromkeys(table["model"]))
    colours = model_colours(names)
    markers = "osD^vP*Xhd"
    for i, name in enumerate(names):
        rows = table[table["model"] == name]
        ax.plot(
            rows["depth"], rows["dimensionality"], color=colours[name], label=label(name),
            marker=markers[i % len(markers)],
        )  # fmt: skip
    ax.set(
        xlabel="Relative depth of the layer (0 first, 1 last)",
        ylabel="Effective dimensionality",
        ylim=(0, None),
    )
    legend_below(ax, len(names))
    return ax


def plot_zoo(cards: Sequence[models.ModelCard], ax: Axes | None = None) -> Axes:
    """Draw the size of each model: a dot at its number of parameters, its layers beside it.

    Parameters
    ----------
    cards : sequence of ModelCard
        In the order of drawing. Families of one or two models share a colour. Models without
        learned parameters, or with an unknown number, are written at the left edge.

    Examples
    --------
    >>> from analysis_lib import figures, models
    >>> ax = figures.plot_zoo([models.card(name) for name in models.list_models("dasheng*")])
    """
    ax = new_axis(ax, 7.2, 0.8 + 0.21 * len(cards))
    members = Counter(card.family for card in cards)
    groups = [card.family if members[card.family] > 2 else "Others" for card in cards]
    colours = model_colours(list(dict.fromkeys(groups)))
    smallest = min(card.parameters for card in cards if card.parameters)
    for row, (card, group) in enumerate(zip(cards, groups, strict=True)):
        if card.parameters:
            ax.plot(card.parameters, row, "o", color=colours[group], markersize=7)
            text, x = f"{len(card.layers)}", card.parameters * 1.25
        else:
            known = "none learned" if card.kind == "handcrafted" else "number not known"
            text, x = f"{known} ({len(card.layers)})", smallest
        ax.text(x, row, text, va="center", fontsize="small", color="0.25")
    for group, colour in colours.items():
        ax.plot([], [], "o", color=colour, label=group)
    ax.set_yticks(range(len(cards)), [card.label for card in cards], fontsize="small")
    ax.set(xscale="log", xlabel="Learned parameters; in numbers: layers", ylabel="Model")
    ax.set_ylim(len(cards) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.4)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=4)
    return ax
