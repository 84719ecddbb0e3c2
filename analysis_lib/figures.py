"""Figures: each takes a result and an axis, draws, and gives the axis back.

Nothing is computed here beyond what drawing needs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from . import models
from .errors import UnknownNameError

__all__ = [
    "category_colours",
    "label",
    "model_colours",
    "plot_activations",
    "plot_category_counts",
    "plot_dimensionality",
    "plot_layer_choice",
    "plot_null",
    "plot_prediction",
    "plot_scores",
    "plot_spectrogram",
    "plot_zoo",
    "use_style",
]


def use_style() -> None:
    """Apply the book's figure style to this process."""
    matplotlib.style.use(Path(__file__).with_name("brainbook.mplstyle"))


def label(model: str) -> str:
    """Short name of a model for figures: its card's label, or the name itself."""
    if model == "planted":
        return "Planted truth"
    if model.startswith("activations:"):
        _, name, *permuted = model.split(":")
        return f"{label(name)} (stored{', permuted' if permuted else ''})"
    try:
        return models.card(model).label
    except UnknownNameError:
        return model


def model_colours(names: Sequence[str]) -> dict[str, tuple]:
    """Colour-blind safe colour for each model, the same in every figure of a chapter."""
    palette = sns.color_palette("colorblind", max(len(names), 1))
    return dict(zip(names, palette, strict=False))


def category_colours(categories: Sequence[str]) -> dict[str, tuple]:
    """Colour for each category of sounds; those of speech and music stand next to each other."""
    kinds = sorted(set(categories))
    palette = sns.color_palette("colorblind", 10) + [(0.1, 0.1, 0.1), (0.6, 0.85, 0.2)]
    return {kind: palette[i % len(palette)] for i, kind in enumerate(kinds)}


def _axis(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _legend_below(ax: Axes, n_entries: int) -> None:
    """Put the legend under the axis, so that the drawing keeps the page's width."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=min(n_entries, 3))


def plot_category_counts(categories: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the number of sounds in each category.

    Parameters
    ----------
    categories : sequence of str
        One per sound.
    """
    ax = _axis(ax, height=3.4)
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
    """
    ax = _axis(ax, 3.4, 2.4)
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
    """
    ax = _axis(ax)
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
    """
    ax = _axis(ax)
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
    _legend_below(ax, len(names))
    return ax


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
    """
    groups = list(dict.fromkeys(table[across]))
    names = list(dict.fromkeys(table["model"]))
    ax = _axis(ax, float(np.clip(0.25 * len(groups) * len(names), 7.6, 14)), 4.4)
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
    _legend_below(ax, len(names) + bool(known))
    return ax


def plot_layer_choice(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw which layer was chosen how often, as shares of each row.

    Parameters
    ----------
    shares : DataFrame
        Targets or areas as rows, layers first to last as columns, shares that sum to 1.
    """
    ax = _axis(ax, 1.2 + 0.9 * shares.shape[1] + 1.5, 0.8 + 0.45 * shares.shape[0])
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
    """
    ax = _axis(ax, 3.6, 3.4)
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
    """
    ax = _axis(ax)
    furthest = max([*observed.values(), float(np.max(null))])
    bins = np.linspace(0, furthest, 60)
    ax.hist(null, bins, color="0.6", label=f"Shuffled responses ({len(null)})")
    for name, colour in model_colours(list(observed)).items():
        ax.axvline(observed[name], color=colour, label=label(name))
    ax.set(xlabel="Mean R² over targets", ylabel="Number of shuffles", xlim=(0, None))
    _legend_below(ax, len(observed) + 1)
    return ax


def plot_zoo(cards: Sequence[models.ModelCard], ax: Axes | None = None) -> Axes:
    """Draw the size of each model: a dot at its number of parameters, its layers beside it.

    Parameters
    ----------
    cards : sequence of ModelCard
        In the order of drawing. Families of one or two models share a colour. Models without
        learned parameters, or with an unknown number, are written at the left edge.
    """
    ax = _axis(ax, 7.2, 0.8 + 0.21 * len(cards))
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
