"""Figures of training: what fell, what rose, and when.

Steps stand on a logarithmic axis. Step 0, the untrained network, has no place on one; it is drawn
to the left of a break in the axis, and nothing is drawn as if it had been measured in between.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes

from .style import model_colours, new_axis

__all__ = [
    "plot_contrasts",
    "plot_dynamics",
    "plot_emergence",
    "plot_loss",
    "plot_loss_alignment",
    "plot_published_ranges",
]

_NAMES = {
    "rsa": "Similarity (Spearman ρ)",
    "encoding": "R²",
    "encoding_joint": "R², layer chosen per target",
    "probe": "Probe score",
}
_GAP = 0.6  # decades between step 0 and the first step


class _StepAxis:
    """Places of steps: logarithmic, with room for 0 on the left."""

    def __init__(self, steps: Sequence[float]):
        steps = np.asarray(steps, dtype=float)
        self.has_zero = bool((steps == 0).any())
        positive = steps[steps > 0]
        self.first, self.last = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)

    def __call__(self, steps) -> np.ndarray:
        """Horizontal places; between 0 and the first step on a straight line."""
        steps = np.asarray(steps, dtype=float)
        before = np.log10(self.first) + _GAP * (steps / self.first - 1)
        return np.where(steps < self.first, before, np.log10(np.maximum(steps, self.first)))

    def draw(self, ax: Axes) -> None:
        """Ticks at the decades, 0, and a break between 0 and the first step."""
        decades = 10.0 ** np.arange(np.ceil(np.log10(self.first)), np.log10(self.last) + 1e-9)
        apart = [self.last]
        for tick in (*decades[::-1], self.first):
            if all(abs(np.log10(tick / other)) > 0.2 for other in apart):
                apart.append(tick)
        if self.has_zero:
            apart.append(0.0)
        ax.set_xticks(self(apart), [_short(tick) for tick in apart])
        first, last = self(0.0 if self.has_zero else self.first), self(self.last)
        margin = 0.05 * max(float(last - first), 0.1)
        ax.set_xlim(first - margin, last + margin)
        ax.set_xlabel("Training steps")
        if self.has_zero:
            middle = float(np.log10(self.first) - _GAP / 2)
            for shift in (-0.03, 0.03):
                ax.plot(
                    middle + shift + np.array([-0.03, 0.03]), [-0.02, 0.02], color="black",
                    linewidth=1, transform=ax.get_xaxis_transform(), clip_on=False, zorder=5,
                )  # fmt: skip


def _short(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 1000 else f"{step:g}"


def plot_loss(
    histories: Mapping[str, pd.DataFrame],
    levels: Mapping[str, float] | None = None,
    ylabel: str = "Loss (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Draw training curves: every step faintly, and what held-out recordings gave as a line.

    Parameters
    ----------
    histories : mapping of str to DataFrame
        By run: ``step``, ``loss`` and ``held_out``, NaN where there is none. With no run at all
        the figure says so.
    levels : mapping of str to float, optional
        Horizontal lines, such as the entropy of the targets.
    ylabel : str
        What the loss is.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from analysis_lib import figures
    >>> history = pd.DataFrame({"step": np.arange(21), "loss": np.linspace(2, 1, 21)})
    >>> history["held_out"] = history["loss"].where(history["step"] % 10 == 0) + 0.1
    >>> ax = figures.plot_loss({"speech": history}, {"entropy": 1.5})
    """
    ax = new_axis(ax, 7.2, 4.0)
    if not histories:
        return _without_record(ax, ylabel)
    place = _StepAxis(np.concatenate([table["step"] for table in histories.values()]))
    for (name, table), colour in zip(
        histories.items(), model_colours(list(histories)).values(), strict=True
    ):
        ax.plot(place(table["step"]), table["loss"], color=colour, alpha=0.35, linewidth=0.8)
        known = table.dropna(subset=["held_out"])
        x, y = place(known["step"]), known["held_out"].to_numpy()
        start = int(place.has_zero)
        ax.plot(x[start:], y[start:], color=colour, marker="o", markersize=3.5, label=name)
        if start:
            ax.plot(x[:2], y[:2], ":", color=colour, linewidth=1)
            ax.plot(x[:1], y[:1], "o", color=colour, markersize=4.5)
    for (name, level), style in zip((levels or {}).items(), ("--", ":", "-."), strict=False):
        ax.axhline(level, color="0.3", linestyle=style, linewidth=1.2, label=name)
    place.draw(ax)
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax


def _without_record(ax: Axes, missing: str) -> Axes:
    """Say on an empty axis that there is nothing to draw."""
    ax.text(0.5, 0.5, "These checkpoints came without a record of the training.", ha="center",
            va="center", transform=ax.transAxes)  # fmt: skip
    ax.set(xticks=[], yticks=[], ylabel=missing)
    return ax


def plot_dynamics(
    curves: xr.Dataset | Mapping[str, xr.Dataset],
    along: str = "layer",
    shown: Sequence | None = None,
    smoothed: xr.DataArray | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure over training with its interval, a line per layer, target or run.

    Parameters
    ----------
    curves : Dataset, or mapping of str to Dataset
        From :func:`analysis_lib.dynamics.curves`: over steps and ``along``; or several runs over
        steps alone.
    along : str
        Dimension that lines stand for. Layers have colours from dark (first) to bright (last).
    shown : sequence, optional
        Which of them; by default all.
    smoothed : DataArray (step, along), optional
        From :func:`analysis_lib.dynamics.smooth`: drawn as the line, with the measured values as
        dots beside it.
    title : str
        Over the panel.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import figures
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> ax = figures.plot_dynamics(curve)
    """
    ax = new_axis(ax, 7.2, 4.2)
    if isinstance(curves, Mapping) and not isinstance(curves, xr.Dataset):
        lines = dict(curves)
        colours = model_colours(list(lines))
    else:
        names = curves[along].values if shown is None else shown
        lines = {str(name): curves.sel({along: name}) for name in names}
        colours = model_colours(list(lines))
        if along == "layer":
            levels = np.linspace(0.05, 0.85, len(lines))
            colours = dict(zip(lines, colormaps["viridis"](levels), strict=True))
    place = _StepAxis(np.concatenate([line["step"].values for line in lines.values()]))
    # Few checkpoints have bars beside each other; between many, bands are easier to follow.
    dodge = 0.03 if all(line.sizes["step"] <= 20 for line in lines.values()) else 0.0
    for i, (name, line) in enumerate(lines.items()):
        x = place(line["step"]) + dodge * (i - (len(lines) - 1) / 2)
        calm = None if smoothed is None else smoothed.sel({along: name}).values
        look = {"color": colours[name], "marker": "osD^vP*Xhd"[i % 10]}
        _line(ax, x, line, name, look, calm, int(place.has_zero), bool(dodge))
    place.draw(ax)
    measure = next(iter(lines.values())).attrs.get("measure", "")
    ax.set(ylabel=_name(measure), title=title)
    return ax


def _name(measure: str) -> str:
    return _NAMES.get(measure.removesuffix("_roi"), measure)


def _line(ax, x, line: xr.Dataset, name, look, calm, start: int, bars: bool) -> None:
    """One curve: its interval, its values, dotted across the break of the axis."""
    score, low, high = (line[kind].values for kind in ("score", "low", "high"))
    colour = look["color"]
    if np.isfinite(low).any():
        barred = slice(None) if bars else slice(0, start)
        ax.vlines(x[barred], low[barred], high[barred], color=colour, alpha=0.45, linewidth=1.3)
        if not bars:
            after = slice(start, None)
            ax.fill_between(
                x[after], low[after], high[after], color=colour, alpha=0.13, linewidth=0
            )
    drawn = score if calm is None else calm
    marker = look["marker"] if bars and calm is None else None
    ax.plot(
        x[start:], drawn[start:], color=colour, label=name, marker=marker, markersize=4.5, zorder=3
    )
    if calm is not None:
        ax.plot(x, score, look["marker"], color=colour, markersize=3.5, alpha=0.6)
    if start:
        ax.plot(x[:2], drawn[:2], ":", color=colour, linewidth=1)
        ax.plot(x[:1], score[:1], look["marker"], color=colour, markersize=4.5, zorder=3)


def plot_emergence(found: Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Draw when each layer had risen by most of its rise, and when it first had risen at all.

    Parameters
    ----------
    found : mapping of str to Dataset
        By brain or region, from :func:`analysis_lib.dynamics.emergence`, over layers. An interval
        without an upper end has an arrow; a layer that did not rise has only words.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics, figures
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> ax = figures.plot_emergence({"Primary": dynamics.emergence(curve)})
    """
    layers = [str(layer) for layer in next(iter(found.values()))["layer"].values]
    ax = new_axis(ax, 7.2, 1.8 + 0.42 * len(layers) * max(1, 0.7 * len(found)))
    last = max(one.attrs["last_step"] for one in found.values())
    place = _StepAxis([0, min(one.attrs["first_step"] for one in found.values()), last])
    for i, (name, colour) in enumerate(model_colours(list(found)).items()):
        one = found[name]
        y = np.arange(len(layers)) + 0.5 * (i - (len(found) - 1) / 2) / len(found)
        share = round(100 * one.attrs["share"])
        rose = np.isfinite(one["reached"].values)
        bounded = np.isfinite(one["high"].values)
        ends = place(np.where(bounded, one["high"], last))
        for row in np.flatnonzero(rose & np.isfinite(one["low"].values)):
            ax.hlines(y[row], place(one["low"].values[row]), ends[row], color=colour, linewidth=2)
            if not bounded[row]:
                ax.plot(ends[row], y[row], ">", color=colour, markersize=7)
        ax.plot(
            place(one["reached"])[rose], y[rose], "o", color=colour,
            label=f"{name}: {share} % of the rise",
        )  # fmt: skip
        ax.plot(
            place(one["onset"]), y, "|", color=colour, markersize=14, markeredgewidth=2.5,
            label=f"{name}: above step 0 from here on",
        )  # fmt: skip
        for row in np.flatnonzero(~rose):
            ax.annotate(
                f"no rise (it rises in {100 * float(one['rising'][row]):.0f} % of the draws)",
                (place(0), y[row]), color=colour, fontsize=9, va="center",
            )  # fmt: skip
    place.draw(ax)
    ax.set_yticks(np.arange(len(layers)), layers)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.figure.legend(loc="outside lower center", ncols=2)
    return ax


def plot_loss_alignment(
    loss: Mapping[str, pd.Series],
    curves: Mapping[str, xr.Dataset],
    xlabel: str = "Loss (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Draw alignment against loss, a path per run from its first checkpoint to its last.

    Parameters
    ----------
    loss : mapping of str to Series
        By run; by step.
    curves : mapping of str to Dataset
        By run, from :func:`analysis_lib.dynamics.curves`, over steps alone.
    xlabel : str
        What the loss is.
    ax : Axes, optional
        Where to draw. The loss falls to the right.

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> from analysis_lib import figures
    >>> rng, dims = np.random.default_rng(0), ("step", "layer")
    >>> score = np.linspace([0.1, 0.1], [0.4, 0.2], 4)
    >>> draws = score + 0.01 * rng.standard_normal((50, 4, 2))
    >>> low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    >>> values = {"score": (dims, score), "low": (dims, low), "high": (dims, high)}
    >>> about = {"confidence": 0.95, "measure": "rsa", "over": "sounds", "draws_of": ""}
    >>> coords = {"step": [0, 10, 100, 1000], "layer": ["first", "last"]}
    >>> curve = xr.Dataset({**values, "draws": (("draw", *dims), draws)}, coords, about)
    >>> loss = pd.Series([3.0, 2.5, 2.0, 1.0], [0, 10, 100, 1000])
    >>> ax = figures.plot_loss_alignment({"speech": loss}, {"speech": curve.isel(layer=0)})
    """
    ax = new_axis(ax, 6.4, 4.4)
    if not loss:
        return _without_record(ax, xlabel)
    for (name, curve), colour in zip(
        curves.items(), model_colours(list(curves)).values(), strict=True
    ):
        steps = [step for step in curve["step"].values if step in loss[name].index]
        x, y = loss[name].loc[steps].to_numpy(), curve["score"].sel(step=steps).values
        ax.plot(x, y, color=colour, alpha=0.7, linewidth=1.2)
        sizes = np.linspace(18, 80, len(steps))
        ax.scatter(x, y, s=sizes, color=colour, label=name, edgecolor="white", zorder=3)
        ax.annotate(
            f"{steps[-1]}", (x[-1], y[-1]), xytext=(8, -3), textcoords="offset points", fontsize=9
        )
    ax.invert_xaxis()
    measure = next(iter(curves.values())).attrs.get("measure", "")
    ax.set(xlabel=f"{xlabel}, falling to the right", ylabel=_name(measure))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    return ax


def plot_contrasts(table: pd.DataFrame, xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw differences with their intervals against 0.

    Parameters
    ----------
    table : DataFrame
        A row per difference: ``label``, ``score``, ``low``, ``high``, and ``kind``, which gives
        the colour.
    xlabel : str
        What is drawn.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> rows = [("gained", "layer 1", 0.1, 0.0, 0.2), ("gained", "layer 2", 0.2, 0.1, 0.3)]
    >>> table = pd.DataFrame(rows, columns=["kind", "label", "score", "low", "high"])
    >>> ax = figures.plot_contrasts(table, "Difference")
    """
    labels = list(dict.fromkeys(table["label"]))
    colours = model_colours(list(dict.fromkeys(table["kind"])))
    ax = new_axis(ax, 7.6, 1.6 + 0.2 * len(labels) * (1 + len(colours)))
    for i, (kind, colour) in enumerate(colours.items()):
        rows = table[table["kind"] == kind]
        place = np.array([labels.index(label) for label in rows["label"]])
        error = np.clip([rows["score"] - rows["low"], rows["high"] - rows["score"]], 0, None)
        ax.errorbar(
            rows["score"], place + 0.7 * (i - (len(colours) - 1) / 2) / len(colours), xerr=error,
            fmt="osD^"[i % 4], color=colour, markersize=5, capsize=2, linewidth=1.5, label=kind,
        )  # fmt: skip
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="0.9", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.4", linewidth=0.9)
    ax.set_yticks(np.arange(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.45, -0.55)
    ax.set_xlabel(xlabel)
    ax.figure.legend(loc="outside lower center", ncols=4)
    return ax


def plot_published_ranges(
    published: pd.DataFrame, ours: pd.DataFrame, ax: Axes | None = None
) -> Axes:
    """Draw the published range of each layer's similarity over training, and ours beside it.

    Parameters
    ----------
    published, ours : DataFrame
        ``depth`` (0 first layer, 1 last), ``low`` and ``high``: lowest and highest value over the
        steps; ``label``, the layer.
    ax : Axes, optional
        Where to draw. Networks of different depth are put side by side by relative depth.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import figures
    >>> columns = ["depth", "low", "high", "label"]
    >>> ours = pd.DataFrame([(0.0, 0.1, 0.3, "1"), (1.0, 0.2, 0.4, "2")], columns=columns)
    >>> ax = figures.plot_published_ranges(ours.assign(high=0.5), ours)
    """
    ax = new_axis(ax, 7.2, 4.0)
    looks = (("Published", published, "0.55", -1), ("Here", ours, "#0173B2", 1))
    for name, table, colour, side in looks:
        x = table["depth"].to_numpy() + 0.012 * side
        ax.vlines(x, table["low"], table["high"], color=colour, linewidth=7, label=name)
        for place, row in zip(x, table.itertuples(), strict=True):
            ax.annotate(
                row.label, (place, row.high), xytext=(0, 4), textcoords="offset points",
                ha="center", fontsize=8.5, color=colour,
            )  # fmt: skip
    ax.set(
        xlabel="Relative depth of the layer (0 first, 1 last)",
        ylabel="Similarity (Spearman ρ),\nlowest to highest over training",
    )
    ax.margins(y=0.12)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax
