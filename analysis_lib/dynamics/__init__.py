"""How a network comes to look like a brain while it learns: one analysis over many checkpoints.

:class:`CheckpointSeries` finds and loads the checkpoints of a training run, :func:`over_steps`
compares each of them with a brain, :func:`curves` puts intervals around what came out, and
:func:`gain`, :func:`contrast` and :func:`emergence` ask how much was gained, whether another run
gained less, and when.
"""

from .comparison import encode_layers, over_steps, similarity
from .curves import contrast, curves, emergence, gain, smooth
from .series import PUBLIC_SERIES, CheckpointSeries

__all__ = [
    "PUBLIC_SERIES",
    "CheckpointSeries",
    "contrast",
    "curves",
    "emergence",
    "encode_layers",
    "gain",
    "over_steps",
    "similarity",
    "smooth",
]
