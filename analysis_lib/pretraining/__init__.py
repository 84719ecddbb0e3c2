"""Pretraining a masked autoencoder of audio, and controls of what it learned from."""

from .audio import AudioFolder, Clip, Corpus, corpus
from .batches import Batches
from .controls import CONTROLS
from .masking import gap_mask
from .network import SIZES, LabelledEncoder, MaskedAutoencoder, Size
from .recipes import RECIPES, Recipe, recipe_of
from .run import baselines, load, pretrain
from .targets import EncodecTargets, KMeansTargets, TeacherTargets

__all__ = [
    "CONTROLS",
    "RECIPES",
    "SIZES",
    "AudioFolder",
    "Batches",
    "Clip",
    "Corpus",
    "EncodecTargets",
    "KMeansTargets",
    "LabelledEncoder",
    "MaskedAutoencoder",
    "Recipe",
    "Size",
    "TeacherTargets",
    "baselines",
    "corpus",
    "gap_mask",
    "load",
    "pretrain",
    "recipe_of",
]
