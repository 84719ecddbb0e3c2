"""Figures: each takes a result and an axis, draws, and gives the axis back.

Nothing is computed here beyond what drawing needs.
"""

from .downstream import (
    explorer_html,
    family_styles,
    plot_association,
    plot_associations,
    plot_intervals,
    plot_leverage,
    plot_rank_gains,
    plot_task_changes,
    plot_task_correlations,
    plot_task_scores,
)
from .encoding import (
    plot_layer_choice,
    plot_null,
    plot_prediction,
    plot_scores,
)
from .features import (
    plot_activations,
    plot_category_counts,
    plot_dimensionality,
    plot_spectrogram,
    plot_zoo,
)
from .similarity import (
    plot_distributions,
    plot_embedding,
    plot_layer_curve,
    plot_rdm,
    plot_region_positions,
    plot_schemes,
    plot_unique,
)
from .style import (
    category_colours,
    label,
    model_colours,
    use_style,
)

__all__ = [
    "category_colours",
    "explorer_html",
    "family_styles",
    "label",
    "model_colours",
    "plot_activations",
    "plot_association",
    "plot_associations",
    "plot_category_counts",
    "plot_dimensionality",
    "plot_distributions",
    "plot_embedding",
    "plot_intervals",
    "plot_layer_choice",
    "plot_layer_curve",
    "plot_leverage",
    "plot_null",
    "plot_prediction",
    "plot_rank_gains",
    "plot_rdm",
    "plot_region_positions",
    "plot_schemes",
    "plot_scores",
    "plot_spectrogram",
    "plot_task_changes",
    "plot_task_correlations",
    "plot_task_scores",
    "plot_unique",
    "plot_zoo",
    "use_style",
]
