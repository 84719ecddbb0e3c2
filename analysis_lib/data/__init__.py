"""Sounds, brain responses and tasks."""

from .activations import stored_activations
from .components import COMPONENTS
from .cortex import folds, is_generated, responses, sounds, splits
from .hear import Task, list_tasks, task
from .natural_sounds import Sounds, natural_sounds, read_audio
from .simulated import plant, planted_features, simulated_sounds

__all__ = [
    "COMPONENTS",
    "Sounds",
    "Task",
    "folds",
    "is_generated",
    "list_tasks",
    "natural_sounds",
    "plant",
    "planted_features",
    "read_audio",
    "responses",
    "simulated_sounds",
    "sounds",
    "splits",
    "stored_activations",
    "task",
]
