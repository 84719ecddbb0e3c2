"""What all figures share: style, names, colours, the place of the legend."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from .. import models
from ..errors import UnknownNameError

__all__ = [
    "category_colours",
    "label",
    "legend_below",
    "model_colours",
    "new_axis",
    "use_style",
]


def use_style() -> None:
    """Apply the book's figure style to this process.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from analysis_lib import figures
    >>> with plt.rc_context():
    ...     figures.use_style()
    ...
    """
    matplotlib.style.use(Path(__file__).with_name("brainbook.mplstyle"))


def label(model: str) -> str:
    """Short name of a model for figures: its card's label, or the name itself.

    Examples
    --------
    >>> from analysis_lib import figures
    >>> figures.label("dasheng_base"), figures.label("my own")
    ('Dasheng (B)', 'my own')
    """
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
    """Colour-blind safe colour for each model, the same in every figure of a chapter.

    Examples
    --------
    >>> from analysis_lib import figures
    >>> list(figures.model_colours(["log-mel", "mfcc"]))
    ['log-mel', 'mfcc']
    """
    palette = sns.color_palette("colorblind", max(len(names), 1))
    return dict(zip(names, palette, strict=False))


def category_colours(categories: Sequence[str]) -> dict[str, tuple]:
    """Colour for each category of sounds; those of speech and music stand next to each other.

    Examples
    --------
    >>> from analysis_lib import figures
    >>> list(figures.category_colours(["speech", "music", "speech"]))
    ['music', 'speech']
    """
    kinds = sorted(set(categories))
    palette = sns.color_palette("colorblind", 10) + [(0.1, 0.1, 0.1), (0.6, 0.85, 0.2)]
    return {kind: palette[i % len(palette)] for i, kind in enumerate(kinds)}


def new_axis(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """Give the axis back, or a new one of a size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def legend_below(ax: Axes, n_entries: int) -> None:
    """Put the legend under the axis, so that the drawing keeps the page's width."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=min(n_entries, 3))
