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
from .dynamics import (
    plot_contrasts,
    plot_dynamics,
    plot_emergence,
    plot_loss,
    plot_loss_alignment,
    plot_published_ranges,
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
from .finetuning import (
    plot_batch_norm_drift,
    plot_conditions,
    plot_depth,
    plot_parcels,
    plot_specificity,
    plot_task_gain,
    plot_timestamps,
    plot_validation,
)
from .listening import listening_html
from .primer import plot_ceiling, plot_measures, plot_pairs, plot_penalties
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
    "listening_html",
    "model_colours",
    "plot_activations",
    "plot_association",
    "plot_associations",
    "plot_batch_norm_drift",
    "plot_category_counts",
    "plot_ceiling",
    "plot_conditions",
    "plot_contrasts",
    "plot_depth",
    "plot_dimensionality",
    "plot_distributions",
    "plot_dynamics",
    "plot_embedding",
    "plot_emergence",
    "plot_intervals",
    "plot_layer_choice",
    "plot_layer_curve",
    "plot_leverage",
    "plot_loss",
    "plot_loss_alignment",
    "plot_measures",
    "plot_null",
    "plot_pairs",
    "plot_parcels",
    "plot_penalties",
    "plot_prediction",
    "plot_published_ranges",
    "plot_rank_gains",
    "plot_rdm",
    "plot_region_positions",
    "plot_schemes",
    "plot_scores",
    "plot_specificity",
    "plot_spectrogram",
    "plot_task_changes",
    "plot_task_correlations",
    "plot_task_gain",
    "plot_task_scores",
    "plot_timestamps",
    "plot_unique",
    "plot_validation",
    "plot_zoo",
    "use_style",
]
