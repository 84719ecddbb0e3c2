"""Encoding models: how well a linear map from features predicts each voxel.

:func:`nested_cv_ridge` is the protocol of Pepino et al. (2025), :func:`split_half_ridge` that of
Tuckute et al. (2023), :func:`variance_partition` asks what a model explains beyond another, and
:func:`fir_ridge` predicts long recordings from the last few volumes' features.
"""

from .banded import variance_partition
from .fir import FirAccumulator, fir_predict, fir_ridge
from .layer_choice import best_layer_position, choose_by_split_halves, subject_medians
from .nested import PAPER_ALPHAS, aggregate, explainable, gram, nested_cv_ridge
from .split_half import split_half_ridge

__all__ = [
    "FirAccumulator",
    "PAPER_ALPHAS",
    "aggregate",
    "best_layer_position",
    "choose_by_split_halves",
    "explainable",
    "fir_predict",
    "fir_ridge",
    "gram",
    "nested_cv_ridge",
    "split_half_ridge",
    "subject_medians",
    "variance_partition",
]
