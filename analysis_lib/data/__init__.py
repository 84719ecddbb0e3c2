"""Sounds, brain responses and tasks."""

from . import friends
from .activations import stored_activations
from .bids import bids_responses, simulated_bids
from .components import COMPONENTS
from .cortex import folds, is_generated, may_be_passed_on, responses, sounds, splits
from .hear import Task, list_tasks, task
from .natural_sounds import Sounds, natural_sounds, read_audio
from .own import own_responses, write_responses
from .simulated import plant, planted_features, simulated_sounds

__all__ = [
    "COMPONENTS",
    "Sounds",
    "Task",
    "bids_responses",
    "folds",
    "friends",
    "is_generated",
    "list_tasks",
    "may_be_passed_on",
    "natural_sounds",
    "own_responses",
    "plant",
    "planted_features",
    "read_audio",
    "responses",
    "simulated_bids",
    "simulated_sounds",
    "sounds",
    "splits",
    "stored_activations",
    "task",
    "write_responses",
]
