"""Finding and loading models by name."""

import re
from contextlib import nullcontext
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from ..device import resolve_device
from ..errors import ParameterError, UnknownNameError
from . import cards, checkpoints, weights
from .audio_model import AudioModel
from .cards import KINDS, ModelCard

__all__ = ["card", "family_class", "list_models", "load"]

# Which class runs a family. Families are imported when first used, so that a model that needs
# a large package costs nothing to those who do not load it.
FAMILIES = {
    "Spectrogram": "handcrafted:Spectrogram",
    "Cochleagram": "spectrotemporal:Cochleagram",
    "Baseline": "spectrotemporal:SpectroTemporal",
    "SmallCNN": "small_cnn:SmallCNN",
    "EnCodecMAE": "encodecmae:EnCodecMAE",
    "BEATs": "beats:BEATs",
    "Dasheng": "dasheng:Dasheng",
    "CochResNet50": "cochresnet50:CochResNet50",
    "CochCNN9": "cochcnn9:CochCNN9",
    "AST": "transformers_audio:AST",
    "wav2vec2": "transformers_audio:Wav2Vec2",
    "Speech2Text": "transformers_audio:Speech2Text",
    "VGGish": "vggish:VGGish",
    "DCASE2020": "dcase2020:DCASE2020",
    "DeepSpeech2": "deepspeech2:DeepSpeech2",
    "SepFormer": "sepformer:SepFormer",
    "MetricGAN": "metricgan:MetricGAN",
    "ZeroSpeech": "zerospeech:ZeroSpeech",
    "SoundNet": "soundnet:SoundNet",
}


def list_models(pattern: str = "*", kind: str | None = None) -> list[str]:
    """Names of the models in the zoo.

    Parameters
    ----------
    pattern : str
        Shell pattern on the name, such as ``"mel256-*"``.
    kind : {"published", "trained-here", "untrained", "handcrafted"}, optional
        Only models of one kind.

    Examples
    --------
    >>> from analysis_lib import models
    >>> models.list_models("dasheng*")
    ['dasheng_base', 'dasheng_06B', 'dasheng_12B', 'dasheng_base_ft-as']
    >>> models.list_models(kind="untrained")
    ['small-cnn', 'small-cnn-wide', 'small-cnn-shallow']
    """
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of model", kind, KINDS)
    return [
        name
        for name, entry in cards.all_cards().items()
        if fnmatchcase(name, pattern) and kind in (None, entry.kind)
    ]


def card(name: str) -> ModelCard:
    """Card of a model, by its name or an alias; one from outside the zoo describes itself.

    Examples
    --------
    >>> from analysis_lib import models
    >>> models.card("spectrotemporal").name
    'braindnn_spectemp_filters'
    """
    outside = _outside_the_zoo(name)
    return cards.find_card(name) if outside is None else outside.describe(name)


def _outside_the_zoo(name: str) -> ModuleType | None:
    """Find the module that opens models by this kind of name; None for the zoo's own."""
    if name.startswith("hf:"):
        return import_module(".huggingface", __package__)
    if re.fullmatch(r".+\.py:\w+", name):
        return import_module(".own", __package__)
    if name.endswith(".safetensors"):
        return import_module(".pretrained", __package__)
    return None


def family_class(family: str) -> type[AudioModel]:
    """Class that runs the models of a family."""
    module, name = FAMILIES[family].split(":")
    return getattr(import_module(f".{module}", __package__), name)


def load(
    name: str,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    untrained: bool = False,
    permuted: bool = False,
    seed: int = 0,
) -> AudioModel:
    """Load a model, ready to embed sounds.

    Parameters
    ----------
    name : str
        A name or alias from :func:`list_models`; ``"hf:<repository or folder>"`` for any audio
        encoder of the transformers library; ``"path/to/file.py:function"`` for a model of your
        own; ``"<run>/step-<number>.safetensors"`` for one that was pretrained here.
    checkpoint : path, optional
        The published checkpoint file, or a ``.safetensors`` file with the published tensor
        names. By default the file in ``BRAINBOOK_DATA`` or the cache, fetched where possible.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    untrained : bool
        Fresh weights drawn from ``seed``: the same network before it learned anything.
    permuted : bool
        The trained weights, shuffled within each tensor by ``seed``: the same weight
        statistics, nothing learned (the control of Tuckute et al. 2023).
    seed : int
        For ``untrained`` and ``permuted``.

    Returns
    -------
    AudioModel
        In evaluation mode.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    MissingDataError
        When the checkpoint is not here and cannot be fetched.
    WeightsError
        When it does not fit the network exactly.

    Examples
    --------
    >>> from analysis_lib import models
    >>> model = models.load("small-cnn", device="cpu")
    >>> model.layers, model.sample_rate
    (('conv1', 'conv2', 'conv3', 'conv4', 'conv5'), 16000)
    >>> models.load("smal-cnn")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown model 'smal-cnn'. Did you mean ...
    """
    if untrained and (permuted or checkpoint):
        raise ParameterError("untrained=True takes neither a checkpoint nor permuted=True")
    resolved = resolve_device(device)
    outside = _outside_the_zoo(name)
    if outside is None:
        model = _from_card(card(name), checkpoint, untrained, seed)
    elif checkpoint is not None:
        raise ParameterError(f"{name} brings its own weights and takes no checkpoint")
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = outside.open_model(name, untrained)
    if permuted:
        weights.permute(model, seed)
    model.network.eval().requires_grad_(False)
    return model.to(resolved)


def _from_card(
    entry: ModelCard, checkpoint: str | Path | None, untrained: bool, seed: int
) -> AudioModel:
    """Build a model of the zoo and fill it."""
    if entry.kind == "published" and not untrained:
        checkpoint = checkpoint or checkpoints.locate(entry)
    elif entry.kind == "trained-here" and not untrained:
        checkpoint = checkpoint or checkpoints.trained_here(entry)
    with (
        torch.random.fork_rng(devices=[]),
        weights.parameters_unfilled() if checkpoint is not None else nullcontext(),
    ):
        torch.manual_seed(seed)
        model = family_class(entry.family)(entry)
    if checkpoint is not None:
        weights.load_published(model, checkpoint)
    return model
