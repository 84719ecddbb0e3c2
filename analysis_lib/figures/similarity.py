"""Figures of representational similarity, ceilings and split halves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from .style import category_colours, label, model_colours, new_axis

__all__ = [
    "plot_distributions",
    "plot_embedding",
    "plot_layer_curve",
    "plot_rdm",
    "plot_region_positions",
    "plot_schemes",
    "plot_unique",
]


def plot_rdm(
    matrix: np.ndarray, categories: Sequence[str], title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a dissimilarity matrix, sounds sorted by category.

    Parameters
    ----------
    matrix : array of shape (n_sounds, n_sounds)
        Dissimilarities; drawn as percentile ranks, since ranks are what is compared.
    categories : sequence of str
        One per sound.
    title : str
        Over the matrix.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> from analysis_lib import rsa
    >>> matrix = rsa.rdm(np.random.default_rng(0).standard_normal((6, 20)))
    >>> ax = figures.plot_rdm(matrix, ["speech", "music"] * 3, "Brain")
    """
    ax = new_axis(ax, 4.2, 4.0)
    order = np.argsort(np.array(categories), kind="stable")
    kinds = np.array(categories)[order]
    above = np.triu_indices(len(matrix), 1)
    ranks = np.full(matrix.shape, np.nan)
    ranks[above] = pd.Series(np.asarray(matrix)[np.ix_(order, order)][above]).rank(pct=True)
    ranks = np.where(np.isnan(ranks), ranks.T, ranks)
    np.fill_diagonal(ranks, 0)
    ax.imshow(ranks, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    starts = np.flatnonzero(np.r_[True, kinds[1:] != kinds[:-1]])
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", linewidth=0.5)
        ax.axvline(start - 0.5, color="white", linewidth=0.5)
    middles = (starts + np.r_[starts[1:], len(kinds)]) / 2 - 0.5
    ax.set_yticks(middles, kinds[starts])
    ax.set_xticks([])
    ax.set_xlabel("Sounds, in the same order")
    ax.set_title(title)
    return ax


def plot_embedding(
    places: np.ndarray, categories: Sequence[str], title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw sounds so that near ones are alike.

    Parameters
    ----------
    places : array of shape (n_sounds, 2)
        From :func:`analysis_lib.rsa.embedding`.
    categories : sequence of str
        One per sound.
    title : str
        Over the map.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> places = np.random.default_rng(0).standard_normal((6, 2))
    >>> ax = figures.plot_embedding(places, ["speech", "music"] * 3, "Model")
    """
    ax = new_axis(ax, 4.4, 4.2)
    for kind, colour in category_colours(categories).items():
        of_kind = np.array(categories) == kind
        ax.scatter(
            places[of_kind, 0], places[of_kind, 1], s=26, color=colour, label=kind,
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
    ax.set(xlabel="First dimension", ylabel="Second dimension", title=title, aspect="equal")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def plot_layer_curve(
    curves: Mapping[str, xr.Dataset],
    ceiling: tuple[float, float] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw similarity along the depth of each model, with intervals and the noise ceiling.

    Parameters
    ----------
    curves : mapping of str to Dataset
        By model, from :func:`analysis_lib.rsa.bootstrap`: ``score``, ``low``, ``high`` (layer,).
    ceiling : (float, float), optional
        Lower and upper noise ceiling.
    title : str
        Over the panel.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> features = {"conv1": rng.standard_normal((12, 8)), "conv2": rng.standard_normal((12, 8))}
    >>> curve = rsa.bootstrap(features, rng.standard_normal((12, 20)), n_boot=20, device="cpu")
    >>> ax = figures.plot_layer_curve({"small-cnn": curve}, ceiling=(0.5, 0.6))
    """
    ax = new_axis(ax)
    if ceiling is not None and np.isfinite(ceiling).all():
        ax.axhspan(*ceiling, color="0.85", label="Noise ceiling", zorder=0)
    markers = "osD^vP*Xhd"
    for i, (name, colour) in enumerate(model_colours(list(curves)).items()):
        curve = curves[name]
        n_layers = curve.sizes["layer"]
        depth = np.linspace(0, 1, n_layers) if n_layers > 1 else np.ones(1)
        depth = depth + 0.012 * (i - (len(curves) - 1) / 2)
        below, above = curve["score"] - curve["low"], curve["high"] - curve["score"]
        ax.errorbar(
            depth, curve["score"], yerr=np.clip([below, above], 0, None), color=colour,
            marker=markers[i % len(markers)], capsize=2, label=label(name), linewidth=1.5,
        )  # fmt: skip
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.set(
        xlabel="Relative depth of the layer (0 first, 1 last)",
        ylabel="Similarity (Spearman ρ)",
        title=title,
    )
    return ax


def plot_schemes(table: pd.DataFrame, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw each model's score under several ways of choosing its layer.

    Parameters
    ----------
    table : DataFrame
        Columns ``model``, ``scheme``, ``score``, ``error`` (NaN where there is none).
    title : str
        Over the panel.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("mfcc", "best layer", 0.4, 0.05), ("mfcc", "cross-validated", 0.3, 0.05)]
    >>> table = pd.DataFrame(rows, columns=["model", "scheme", "score", "error"])
    >>> ax = figures.plot_schemes(table)
    """
    names = list(dict.fromkeys(table["model"]))
    schemes = list(dict.fromkeys(table["scheme"]))
    ax = new_axis(ax, 7.6, 1.2 + 0.55 * len(names))
    colours = model_colours(schemes)
    for i, scheme in enumerate(schemes):
        rows = table[table["scheme"] == scheme].set_index("model").reindex(names)
        place = np.arange(len(names)) + 0.18 * (i - (len(schemes) - 1) / 2)
        ax.errorbar(
            rows["score"], place, xerr=rows["error"], fmt="osD^"[i % 4], color=colours[scheme],
            label=scheme, capsize=2, linewidth=1.2,
        )  # fmt: skip
    ax.set_yticks(np.arange(len(names)), [label(name) for name in names])
    ax.invert_yaxis()
    ax.set(xlabel="Similarity (Spearman ρ), mean over subjects", title=title)
    return ax


def plot_distributions(
    draws: Mapping[str, np.ndarray], null: np.ndarray | None = None, ax: Axes | None = None
) -> Axes:
    """Draw bootstrap distributions of the models' scores, and one of chance.

    Parameters
    ----------
    draws : mapping of str to array of shape (n_draws,)
        By model.
    null : array of shape (n_permutations,), optional
        Scores with the sounds' labels permuted.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import figures
    >>> rng = np.random.default_rng(0)
    >>> draws = {"log-mel": rng.normal(0.3, 0.05, 100), "mfcc": rng.normal(0.2, 0.05, 100)}
    >>> ax = figures.plot_distributions(draws, null=rng.normal(0, 0.05, 100))
    """
    ax = new_axis(ax, 7.6, 4.0)
    everything = np.concatenate([*draws.values(), *([] if null is None else [null])])
    bins = np.linspace(everything.min(), everything.max(), 70)
    if null is not None:
        ax.hist(null, bins, density=True, color="0.7", label="Permuted sounds")
    for name, colour in model_colours(list(draws)).items():
        ax.hist(
            draws[name], bins, density=True, histtype="step", linewidth=1.8, color=colour,
            label=label(name),
        )  # fmt: skip
    ax.set(xlabel="Similarity (Spearman ρ)", ylabel="Density")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return ax


def plot_region_positions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how deep the best layer lies in each region, a point per model.

    Parameters
    ----------
    table : DataFrame
        Models as rows, regions as columns, relative depth of the best layer (0 to 1) as values.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> table = pd.DataFrame({"Primary": [0.2, 0.3], "Lateral": [0.6, 0.8]}, ["mfcc", "small-cnn"])
    >>> ax = figures.plot_region_positions(table)
    """
    ax = new_axis(ax, 6.4, 4.0)
    place = np.arange(table.shape[1])
    for name, colour in model_colours(list(table.index)).items():
        ax.plot(place, table.loc[name], marker="o", color=colour, label=label(name))
    ax.plot(place, table.mean(), color="black", linewidth=3, marker="_", markersize=24, zorder=3)
    ax.set_xticks(place, table.columns)
    ax.set(
        xlabel="Region",
        ylabel="Depth of the best layer (0 first, 1 last)",
        ylim=(-0.05, 1.05),
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return ax


def plot_unique(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what two feature spaces explain alone and together, stacked.

    Parameters
    ----------
    table : DataFrame
        Targets as rows; columns are the parts (unique to one, shared, unique to the other).
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> parts = {"Only log-mel": [0.1, 0.2], "Shared": [0.4, 0.3], "Only CNN": [0.1, 0.0]}
    >>> ax = figures.plot_unique(pd.DataFrame(parts, ["Pitch", "Speech"]))
    """
    ax = new_axis(ax, 7.6, 1.2 + 0.45 * len(table))
    colours = model_colours(list(table.columns))
    start = np.zeros(len(table))
    for part in table.columns:
        width = table[part].clip(lower=0).to_numpy()
        ax.barh(np.arange(len(table)), width, left=start, color=colours[part], label=part)
        start = start + width
    ax.set_yticks(np.arange(len(table)), table.index)
    ax.invert_yaxis()
    ax.set(xlabel="Explained variance (R², cross-validated)", ylabel="Target", xlim=(0, None))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    return ax
