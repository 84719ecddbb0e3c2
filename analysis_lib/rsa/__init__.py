"""Representational similarity: whether a model and a brain find the same sounds alike.

A representation is described by its dissimilarity matrix (RDM): 1 minus the correlation between
the patterns of two sounds, for every pair of sounds. Two representations are compared by the
Spearman correlation of their matrices' upper triangles; they need not have units in common.
"""

from .comparison import cross_validated, layerwise, noise_ceiling
from .dissimilarity import compare, embedding, rdm
from .resampling import bootstrap, permutation

__all__ = [
    "bootstrap",
    "compare",
    "cross_validated",
    "embedding",
    "layerwise",
    "noise_ceiling",
    "permutation",
    "rdm",
]
