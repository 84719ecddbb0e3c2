"""Networks to begin with, and fine-tuned ones as files that the zoo opens."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .. import models
from ..data import friends, friends_twin
from ..data.friends_networks import INPUT_SCALE
from ..models.checkpoints import locate
from ..models.soundnet import SoundNet8
from ..models.weights import load_exactly
from ..paths import atomic_path, cache_dir, content_key, file_sha256
from .settings import Settings

__all__ = ["inputs", "save_network", "start_network", "twin_checkpoint"]


def inputs(source: str | Path, checkpoint: str | Path | None = None) -> dict[str, str]:
    """Fingerprint what fine-tuning starts from, for the result store.

    Parameters
    ----------
    source : str or path
        As for :func:`analysis_lib.data.friends.open`.
    checkpoint : path, optional
        By default the published file.

    Returns
    -------
    dict of str to str
        ``data``: of the names, sizes and times of change of all files below ``source``; for a
        twin, of what it is made of. ``weights``: SHA-256 of the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from analysis_lib import finetuning
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> n_bytes = (folder / "weights.safetensors").write_bytes(b"weights")
    >>> found = finetuning.inputs(folder, folder / "weights.safetensors")
    >>> found["weights"][:12]
    '9a129038d9a0'
    >>> n_bytes = (folder / "more.h5").write_bytes(b"responses")
    >>> again = finetuning.inputs(folder, folder / "weights.safetensors")
    >>> again["data"] == found["data"], again["weights"] == found["weights"]
    (False, True)
    """
    if str(source) in friends_twin.TWINS:
        data = friends_twin.write(str(source)).name
    else:
        files = [Path(source), *sorted(Path(source).rglob("*"))]
        stats = [(str(file), file.stat()) for file in files if file.is_file()]
        data = content_key([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    path = Path(checkpoint) if checkpoint else locate(models.card("soundnet"))
    return {"data": data, "weights": file_sha256(path)}


def start_network(settings: Settings, checkpoint: str | Path | None = None) -> SoundNet8:
    """Weights that training begins with.

    Parameters
    ----------
    settings : Settings
        ``untrained`` draws them from ``seed``.
    checkpoint : path, optional
        ``sound8.pth``, ``sound8.npy`` or ``.safetensors``; by default the published file, in
        ``BRAINBOOK_DATA`` or the cache.

    Raises
    ------
    MissingDataError
        When the published file is not here.
    WeightsError
        When a file does not fit the network exactly.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> settings = finetuning.Settings(untrained=True, seed=3)
    >>> one, other = (finetuning.start_network(settings).conv7[0].weight for _ in range(2))
    >>> one.shape, bool((one == other).all())
    (torch.Size([1024, 512, 4, 1]), True)
    """
    if settings.untrained:
        model = models.load("soundnet", untrained=True, seed=settings.seed, device="cpu")
    else:
        model = models.load("soundnet", checkpoint=checkpoint, device="cpu")
    return model.network


def save_network(network: SoundNet8, path: str | Path, input_scale: float) -> Path:
    """Write a network with the published tensor names.

    ``models.load("soundnet", checkpoint=path)`` opens it, and with it features, probes and the
    HEAR module; it then takes sounds at the scale it was trained with.

    Parameters
    ----------
    network : SoundNet8
        With its categories, as published.
    path : path
        Ends in ``.safetensors``.
    input_scale : float
        Factor on waveforms in [-1, 1].

    Examples
    --------
    >>> import tempfile
    >>> from analysis_lib import finetuning, models
    >>> network = finetuning.start_network(finetuning.Settings(untrained=True))
    >>> path = finetuning.save_network(network, f"{tempfile.mkdtemp()}/mine.safetensors", 256.0)
    >>> models.load("soundnet", checkpoint=path, device="cpu").input_scale
    256.0
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    with atomic_path(Path(path)) as temporary:
        settings = json.dumps({"input_scale": input_scale})
        save_file(tensors, temporary, {"settings": settings})
    return Path(path)


def twin_checkpoint(name: str, kind: str = "start") -> Path:
    """Write a twin's network as a complete file, unless it is there.

    Parameters
    ----------
    name : str
        A twin of :mod:`analysis_lib.data.friends`.
    kind : {"start", "brain"}
        The network to begin with, or the one that drives the parcels that have to be learned. A
        twin has no object and scene categories; their layers are 0.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> finetuning.twin_checkpoint("friends")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: ...
    >>> finetuning.twin_checkpoint("friends-twin", "brain")  # doctest: +SKIP
    """
    tensors = getattr(friends.truth(name), kind)
    path = cache_dir("twins", "networks", f"{_digest(tensors)}.safetensors")
    if not path.is_file():
        network = SoundNet8()
        zeros = {
            key: torch.zeros_like(tensor)
            for key, tensor in network.state_dict().items()
            if key.startswith("conv8")
        }
        load_exactly(network, {**tensors, **zeros}, source=f"{name}: {kind}")
        save_network(network, path, INPUT_SCALE)
    return path


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    return content_key({name: tensor.numpy() for name, tensor in tensors.items()})
