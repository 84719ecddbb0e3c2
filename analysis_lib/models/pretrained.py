"""Networks that were pretrained here: ``<folder of the run>/step-<number>.safetensors``.

Beside the checkpoints of a run lies ``network.json``, which says what network they are of.
"""

import json
from pathlib import Path
from types import MappingProxyType

from ..errors import MissingDataError, ParameterError, WeightsError
from .audio_model import AudioModel
from .cards import ModelCard
from .encodecmae import EnCodecMAE
from .residual_transformer import SAMPLE_RATE
from .weights import load_published, parameters_unfilled

__all__ = ["NETWORK", "describe", "open_model"]

NETWORK = "network.json"  # what a run says of its network, beside the checkpoints


def describe(name: str) -> ModelCard:
    """Card of a checkpoint, as told by the file beside it.

    Raises
    ------
    MissingDataError
        When the checkpoint, or the file beside it, is not there.
    WeightsError
        When that file does not describe a network.
    """
    path = Path(name).expanduser()
    told = path.with_name(NETWORK)
    if not path.is_file():
        raise MissingDataError(f"no checkpoint at {path}")
    if not told.is_file():
        raise MissingDataError(
            f"no {told}, which should say of what network {path.name} is. Checkpoints of a "
            "published model are loaded as models.load(<its name>, checkpoint=…)."
        )
    try:
        content = json.loads(told.read_text())
        options = content["options"]
        return ModelCard(
            name=f"{path.absolute().parent.name}/{path.stem}",
            label=content["label"],
            family="EnCodecMAE",
            kind="trained-here",
            architecture=content["architecture"],
            sample_rate=SAMPLE_RATE,
            layers=tuple(f"layer_{i}" for i in range(options["n_layers"])),
            training_data=content["training_data"],
            citation="pepino2023encodecmae",
            options=MappingProxyType(options),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{told} does not describe a network ({error!r})") from error


def open_model(name: str, untrained: bool = False) -> AudioModel:
    """Load the encoder of a checkpoint.

    Raises
    ------
    WeightsError
        When the checkpoint cannot be read, or is not of the network that its run names.
    """
    if untrained:
        raise ParameterError(
            f"{name}: the untrained network of a run is its step 0; load that checkpoint"
        )
    card = describe(name)
    with parameters_unfilled():
        model = EnCodecMAE(card)
    load_published(model, Path(name).expanduser())
    return model
