"""Probes: how much of a task can be read off a representation.

:func:`evaluate` trains a classifier on the embeddings of a scene task, :func:`evaluate_events` on
the frames of a sound-event task.
"""

from .evaluation import LINEAR_PENALTIES, PROTOCOLS, evaluate, require_disjoint, ridge_path
from .events import evaluate_events

__all__ = [
    "LINEAR_PENALTIES",
    "PROTOCOLS",
    "evaluate",
    "evaluate_events",
    "require_disjoint",
    "ridge_path",
]
