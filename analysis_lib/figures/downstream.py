"""Figures of what models can do beside how much they look like a brain.

As in :mod:`analysis_lib.figures`: a function takes a table and an axis, and gives the axis back.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..errors import ParameterError
from .style import label, model_colours, new_axis
from .templates import filled

__all__ = [
    "explorer_html",
    "family_styles",
    "plot_association",
    "plot_associations",
    "plot_intervals",
    "plot_leverage",
    "plot_rank_gains",
    "plot_task_changes",
    "plot_task_correlations",
    "plot_task_scores",
]

_MARKERS = "osD^vPXhd<"
_VERDICTS = {"improved": "#0173B2", "worsened": "#D55E00", "unchanged": "#949494"}


def _in_lines(name: object) -> str:
    return str(name).replace(" ", "\n").replace("-", "-\n")


def family_styles(families: Sequence[str]) -> dict[str, tuple[tuple, str]]:
    """Colour and marker of each family, the same wherever the same families are drawn.

    Examples
    --------
    >>> from analysis_lib import figures
    >>> styles = figures.family_styles(["BEATs", "Dasheng", "BEATs"])
    >>> list(styles)
    ['BEATs', 'Dasheng']
    """
    names = list(dict.fromkeys(families))
    colours = model_colours(names)
    return {name: (colours[name], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(names)}


def plot_task_scores(scores: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what each model scores on each task: the number, and as colour its place in the task.

    Parameters
    ----------
    scores : DataFrame of shape (n_models, n_columns)
        By model; tasks, and last a global score.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> scores = pd.DataFrame({"pitch": [0.9, 0.6], "global": [0.7, -0.7]}, ["small-cnn", "mfcc"])
    >>> ax = figures.plot_task_scores(scores)
    """
    ax = new_axis(ax, 2.6 + 1.05 * scores.shape[1], 1.2 + 0.36 * len(scores))
    z = (scores - scores.mean()) / scores.std(ddof=1).replace(0, np.inf)
    sns.heatmap(
        z.rename(index=label), ax=ax, cmap="RdBu_r", center=0, vmin=-2, vmax=2,
        annot=scores.to_numpy(), fmt=".2f", cbar_kws={"label": "z over models"},
    )  # fmt: skip
    ax.axvline(scores.shape[1] - 1, color="white", linewidth=4)
    ax.set_xticks(ax.get_xticks(), [_in_lines(name) for name in scores.columns])
    ax.tick_params(axis="x", rotation=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="Task", ylabel="Model")
    return ax


def plot_association(
    table: pd.DataFrame, x: str, y: str, ax: Axes | None = None, named: Sequence[str] = ()
) -> Axes:
    """Draw one measure of models against another, in families, with the line that fits best.

    Parameters
    ----------
    table : DataFrame
        By model, with columns ``x``, ``y`` and ``family``; with ``number`` the points carry it.
    x, y : str
        Columns.
    named : sequence of str
        Models whose label is written beside their point.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> names = ["log-mel", "mfcc", "small-cnn", "cochleagram"]
    >>> table = pd.DataFrame({"score": [1.0, 2, 3, 4], "voxels": [0.1, 0.3, 0.2, 0.4]}, names)
    >>> table["family"] = ["handcrafted", "handcrafted", "network", "ear"]
    >>> ax = figures.plot_association(table, "score", "voxels", named=["mfcc"])
    """
    ax = new_axis(ax, 5.0, 4.2)
    table = table.dropna(subset=[x, y])
    numbered = "number" in table
    for family, (colour, marker) in family_styles(table["family"]).items():
        rows = table[table["family"] == family]
        ax.scatter(
            rows[x], rows[y], s=190 if numbered else 50, color=colour, label=family,
            marker="o" if numbered else marker, edgecolor="white", linewidth=0.7,
        )  # fmt: skip
    slope, intercept = np.polyfit(table[x], table[y], 1)
    ends = np.array([table[x].min(), table[x].max()])
    ax.plot(ends, slope * ends + intercept, color="0.6", linewidth=1.2, zorder=0)
    for model, row in table.iterrows():
        if numbered:
            ax.annotate(
                f"{row['number']:.0f}", (row[x], row[y]), ha="center", va="center_baseline",
                color="white", fontsize=8, fontweight="bold",
            )  # fmt: skip
        if model in named:
            right = row[x] > ends.mean()
            ax.annotate(
                label(model), (row[x], row[y]), xytext=(-7 if right else 7, -3), fontsize=9,
                textcoords="offset points", ha="right" if right else "left",
            )  # fmt: skip
    ax.margins(0.09)
    r = np.corrcoef(table[x], table[y])[0, 1]
    ranks = table[[x, y]].rank().corr().iloc[0, 1]
    ax.set(xlabel=x, ylabel=y, title=f"r = {r:.2f}, rank r = {ranks:.2f} (n = {len(table)})")
    return ax


def plot_associations(
    table: pd.DataFrame, x: str, measures: Sequence[str], named: Sequence[str] | None = None
) -> np.ndarray:
    """Draw several measures against one, two panels in a row, with a common legend.

    Parameters
    ----------
    table : DataFrame
        By model, with columns ``x``, ``measures`` and ``family``.
    x : str
        Column on the horizontal axis.
    measures : sequence of str
        Columns, one per panel.
    named : sequence of str, optional
        Models to write beside their points. By default every point carries a number, the model's
        place by ``x``, and the key is written below.

    Returns
    -------
    array of Axes

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> names = ["log-mel", "mfcc", "small-cnn", "cochleagram"]
    >>> table = pd.DataFrame({"score": [1.0, 2, 3, 4], "voxels": [0.1, 0.3, 0.2, 0.4]}, names)
    >>> table["rsa"] = [0.2, 0.1, 0.4, 0.3]
    >>> table["family"] = ["handcrafted", "handcrafted", "network", "ear"]
    >>> axes = figures.plot_associations(table, "score", ["voxels", "rsa"])
    >>> len(axes)
    1
    """
    n_rows = -(-len(measures) // 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(9.5, 4.2 * n_rows + 0.5), squeeze=False)
    place = table[x].rank(ascending=False, method="first").astype(int).sort_values()
    if named is None:
        table = table.assign(number=place)
        key = [f"{number} {label(model)}" for model, number in place.items()]
        lines = ["     ".join(key[i : i + 3]) for i in range(0, len(key), 3)]
        figure.supxlabel("\n".join(lines), size=9.5)
    for ax, measure in zip(axes.flat, measures, strict=False):
        plot_association(table, x, measure, ax, () if named is None else named)
    for ax in axes.flat[len(measures) :]:
        ax.remove()
    kinds = axes.flat[0].get_legend_handles_labels()
    figure.legend(*kinds, loc="outside upper center", ncols=4)
    return axes


def plot_intervals(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the correlation of each measure with performance, and how far to trust it.

    Parameters
    ----------
    table : DataFrame
        From :func:`analysis_lib.across_models.associate`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from analysis_lib import across_models, figures
    >>> rng, names = np.random.default_rng(0), [f"model-{k}" for k in range(8)]
    >>> score, families = pd.Series(rng.random(8), names), pd.Series(list("aabbccdd"), names)
    >>> alignment = pd.DataFrame({"voxels": score**2, "rsa": rng.random(8)})
    >>> table = across_models.associate(score, alignment, families, n_boot=50, n_permutations=50)
    >>> ax = figures.plot_intervals(table)
    """
    ax = new_axis(ax, 7.2, 1.6 + 0.5 * len(table))
    place = np.arange(len(table))
    ax.hlines(
        place, table["without_family_low"], table["without_family_high"],
        color="0.85", linewidth=11, label="Pearson, any one family left out",
    )  # fmt: skip
    ax.hlines(
        place, table["without_model_low"], table["without_model_high"],
        color="0.65", linewidth=11, label="Pearson, any one model left out",
    )  # fmt: skip
    kinds = {"pearson": (-0.13, "#0173B2", "o"), "spearman": (0.13, "#DE8F05", "D")}
    for kind, (shift, colour, marker) in kinds.items():
        middle = table[kind]
        error = [middle - table[f"{kind}_low"], table[f"{kind}_high"] - middle]
        ax.errorbar(
            middle, place + shift, xerr=np.maximum(error, 0), fmt=marker, color=colour,
            elinewidth=1.6, label=f"{kind.capitalize()}, 95 % interval",
        )  # fmt: skip
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.set_yticks(place, table.index)
    ax.invert_yaxis()
    lowest = table.filter(regex="_low$").min(axis=None)
    ax.set(
        xlabel="Correlation with the global task score, over models",
        xlim=(max(-1.03, min(lowest, 0) - 0.08), 1.03),
    )
    handles, names = ax.get_legend_handles_labels()
    ax.figure.legend(handles, names, loc="outside lower center", ncols=2)
    return ax


def plot_task_correlations(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the correlation of every task with every measure; a star where it survives.

    Parameters
    ----------
    table : DataFrame
        From :func:`analysis_lib.across_models.associate_tasks`; the star is for an adjusted p
        value below .05.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from analysis_lib import across_models, figures
    >>> rng, names = np.random.default_rng(0), [f"model-{k}" for k in range(8)]
    >>> score, families = pd.Series(rng.random(8), names), pd.Series(list("aabbccdd"), names)
    >>> alignment = pd.DataFrame({"voxels": score**2, "rsa": rng.random(8)})
    >>> scores = pd.DataFrame({"pitch": score, "digits": rng.random(8)})
    >>> ax = figures.plot_task_correlations(across_models.associate_tasks(scores, alignment))
    """
    tasks, measures = table["task"].unique(), table["measure"].unique()
    ax = new_axis(ax, 3.2 + 0.95 * len(tasks), 1.4 + 0.36 * len(measures))
    r, p = (
        table.pivot(index="measure", columns="task", values=column).loc[measures, tasks]
        for column in ("pearson", "p_adjusted")
    )
    written = [
        [f"{value:.2f}{'*' if q < 0.05 else ''}" for value, q in zip(*row, strict=True)]
        for row in zip(r.to_numpy(), p.to_numpy(), strict=True)
    ]
    sns.heatmap(
        r, ax=ax, cmap="RdBu_r", vmin=-1, vmax=1, annot=np.array(written), fmt="",
        cbar_kws={"label": "Pearson r"},
    )  # fmt: skip
    ax.set_xticks(ax.get_xticks(), [_in_lines(task) for task in tasks])
    ax.tick_params(axis="x", rotation=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="Task", ylabel="Alignment")
    return ax


def plot_leverage(tables: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Draw the correlation as the weakest models go, one after the other.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Name of the measure to the table of :func:`analysis_lib.published.weakest_models`.

    Examples
    --------
    >>> from analysis_lib import figures, published
    >>> ax = figures.plot_leverage({"Voxels": published.weakest_models(n_most=3)})
    """
    ax = new_axis(ax, 7.0, 4.2)
    for (name, table), colour in zip(
        tables.items(), model_colours(list(tables)).values(), strict=True
    ):
        ax.plot(table.index, table["pearson"], color=colour, marker="o", label=f"{name}, Pearson")
        ax.plot(
            table.index, table["spearman"], color=colour, marker="D", linestyle="--",
            markerfacecolor="white", label=f"{name}, Spearman",
        )  # fmt: skip
    names = [_in_lines(label(model)) if model else "none" for model in table["left_out"]]
    ax.set_xticks(table.index, [f"{n}\n{name}" for n, name in zip(table.index, names, strict=True)])
    ax.tick_params(axis="x", labelsize=8.5)
    ax.set(
        xlabel="Weakest models left out: how many, and who goes at this step",
        ylabel="Correlation with the global score",
        ylim=(0, 1),
    )
    ax.figure.legend(loc="outside lower center", ncols=2)
    return ax


def plot_task_changes(
    changes: pd.DataFrame, verdicts: pd.Series | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how much each task changed by brain-tuning, in colours for what a test makes of it.

    Parameters
    ----------
    changes : DataFrame
        From :func:`analysis_lib.published.task_changes`.
    verdicts : Series, optional
        Of another way to count, by task; where it differs the point has a ring in its colour.

    Examples
    --------
    >>> from analysis_lib import figures, published
    >>> ax = figures.plot_task_changes(published.task_changes())
    """
    ax = new_axis(ax, 7.2, 5.6)
    ordered = changes.sort_values("median_change")
    place = np.arange(len(ordered))
    ax.axvline(0, color="0.4", linewidth=0.8)
    ax.hlines(place, 0, ordered["median_change"], color="0.8", linewidth=1.5, zorder=0)
    for verdict, colour in _VERDICTS.items():
        rows = (ordered["verdict"] == verdict).to_numpy()
        ax.scatter(
            ordered["median_change"][rows], place[rows], color=colour, s=48,
            label=f"{verdict} ({rows.sum()})",
        )  # fmt: skip
    if verdicts is not None:
        other = verdicts.loc[ordered.index]
        differs = (other != ordered["verdict"]).to_numpy()
        ax.scatter(
            ordered["median_change"][differs], place[differs], s=150, facecolor="none",
            edgecolor=[_VERDICTS[verdict] for verdict in other[differs]], linewidth=1.8,
            label="verdict without the missing scores",
        )  # fmt: skip
    ax.set_yticks(place, ordered.index)
    ax.set(xlabel="Median change of the score by brain-tuning (each task's own unit)")
    ax.legend(loc="lower right")
    return ax


def plot_rank_gains(gains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw places gained on the leaderboard: a dot per task, a diamond for the mean.

    Parameters
    ----------
    gains : DataFrame
        From :func:`analysis_lib.published.rank_gains`.

    Examples
    --------
    >>> from analysis_lib import figures, published
    >>> ax = figures.plot_rank_gains(published.rank_gains())
    """
    ax = new_axis(ax, 7.0, 3.6)
    by_task = gains.groupby(["atlas", "training", "task"], sort=False)["gain"].mean().reset_index()
    groups = list(by_task.groupby(["atlas", "training"]))
    rng = np.random.default_rng(0)
    for place, ((_, training), rows) in enumerate(groups):
        colour = {"individual": "#0173B2", "group": "#DE8F05"}[training]
        jitter = rng.uniform(-0.18, 0.18, len(rows))
        ax.scatter(rows["gain"], place + jitter, s=26, color=colour, alpha=0.65)
        mean = gains.set_index(["atlas", "training"]).loc[groups[place][0], "gain"].mean()
        ax.scatter(mean, place, marker="D", s=90, color=colour, edgecolor="black", zorder=3)
        ax.annotate(
            f"{mean:.2f}", (mean, place), xytext=(0, 12), textcoords="offset points", ha="center"
        )
    ax.axvline(0, color="0.4", linewidth=0.8)
    names = {"wholebrain": "whole brain", "STG": "auditory (STG)"}
    ax.set_yticks(
        range(len(groups)), [f"{names.get(atlas, atlas)}, {how}" for (atlas, how), _ in groups]
    )
    ax.set(xlabel="Places gained on the leaderboard of 31 by brain-tuning")
    ax.margins(y=0.18)
    return ax


def explorer_html(table: pd.DataFrame, x: str, y: str, title: str = "Model explorer") -> str:
    """Build an interactive scatter plot that works without a network.

    Either axis can be any measure; pointing at a model shows its name; clicking it (or Enter on
    it) leaves it out, and the correlations are computed again.

    Parameters
    ----------
    table : DataFrame
        By model: numeric columns are the measures to choose from; ``family`` gives the colour.
    x, y : str
        Measures to begin with.
    title : str
        Read out to those who do not see the plot.

    Returns
    -------
    str
        HTML with the data, the drawing code and the style inside; a few kilobytes.

    Raises
    ------
    ParameterError
        When a measure is missing or not numeric, or there is no ``family``.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> names = ["log-mel", "mfcc", "small-cnn", "cochleagram"]
    >>> table = pd.DataFrame({"score": [1.0, 2, 3, 4], "voxels": [0.1, 0.3, 0.2, 0.4]}, names)
    >>> table["family"] = ["handcrafted", "handcrafted", "network", "ear"]
    >>> html = figures.explorer_html(table, "score", "voxels")
    >>> "https://" in html
    False
    """
    measures = [str(name) for name in table.select_dtypes("number").columns]
    unknown = [name for name in (x, y) if name not in measures]
    if unknown or "family" not in table:
        raise ParameterError(
            f"the explorer needs the column family and numeric columns; it has {measures}, "
            f"and not {', '.join(unknown) or 'family'}"
        )
    values = table[measures].round(5).astype(object).where(table[measures].notna(), None)
    content = {
        "x": x,
        "y": y,
        "title": title,
        "measures": measures,
        "models": [
            {"name": label(model), "family": str(family), "values": row}
            for model, family, row in zip(
                table.index, table["family"], values.to_numpy().tolist(), strict=True
            )
        ],
        "colours": {
            family: "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
            for family, (colour, _) in family_styles(table["family"]).items()
        },
    }
    return filled("explorer", content)
