"""How well a model predicts long recordings, and how far to trust it.

Volumes of a recording are no independent samples: what is in one is half in the next. So every
test here works with whole runs, or with blocks of volumes that are longer than the memory of the
signal. Arrays come by run, ``{"s04e01a": (n_trs, n_targets), ...}``; rows of the prediction that
are NaN (no full history) are left out, and a target that is NaN in a run is NaN in its results.

References
----------
Freteault et al. (2025) for the tests over runs; Nastase et al. (2019) for correlations between
subjects; Theiler et al. (1992) for surrogates that keep the autocorrelation.
"""

from .comparison import compare_runs, intersubject_ceiling, specificity
from .resampling import block_bootstrap, block_permutation, circular_shift_null, compare_models
from .scores import score_runs

__all__ = [
    "block_bootstrap",
    "block_permutation",
    "circular_shift_null",
    "compare_models",
    "compare_runs",
    "intersubject_ceiling",
    "score_runs",
    "specificity",
]
