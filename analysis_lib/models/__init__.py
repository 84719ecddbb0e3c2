"""The model zoo: cards, and one module per family of networks."""

from .audio_model import AudioModel
from .cards import ModelCard
from .registry import card, list_models, load

__all__ = ["AudioModel", "ModelCard", "card", "list_models", "load"]
