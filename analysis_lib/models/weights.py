"""Reading published checkpoints: strictly, and without running anything they contain."""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..data import fetch
from ..errors import DataError, WeightsError
from ..paths import atomic_path, cache_dir, file_sha256
from ..pickles import CONTAINERS, NUMPY, RestrictedUnpickler
from .audio_model import AudioModel
from .cards import ModelCard

__all__ = ["load_exactly", "load_published", "locate", "permute", "read_checkpoint"]


def locate(card: ModelCard) -> Path:
    """Path of a card's published checkpoint: mirror first, then cache, then the network.

    Looked up as ``models/<name>/<checkpoint>`` below ``BRAINBOOK_DATA`` and the cache.

    Raises
    ------
    MissingDataError
        Says which file, from where, how large, and where to put it by hand.
    """
    return fetch.fetch_checkpoint(
        card.name, card.checkpoint, card.source, card.sha256, card.download_mb
    )


def load_published(model: AudioModel, path: str | Path) -> None:
    """Fill a model from a published checkpoint, every tensor accounted for.

    Parameters
    ----------
    model : AudioModel
        Its family says which published name belongs where
        (:meth:`AudioModel.from_published`) and which published tensors inference does not
        need (``unused_tensors``).
    path : path
        The published file, a ``.safetensors`` file with the same tensor names, or a folder.

    Raises
    ------
    WeightsError
        Naming every tensor that is missing, left over or of the wrong shape.
    """
    tensors = model.from_published(read_checkpoint(path))
    load_exactly(model.network, tensors, unused=model.unused_tensors, source=path)
    model.__dict__.pop("weights_sha256", None)


def load_exactly(
    network: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    unused: Sequence[str] = (),
    source: str | Path = "checkpoint",
) -> None:
    """Copy tensors into a network; a silently random network is the failure to prevent.

    Parameters
    ----------
    network : torch.nn.Module
        Where every parameter and persistent buffer must be filled.
    tensors : mapping of str to tensor
        By the network's own names.
    unused : sequence of str
        Regular expressions (full match) of tensors that may be there and are not needed.
    source : path
        For messages.

    Raises
    ------
    WeightsError
    """
    wanted = network.state_dict()
    missing = sorted(
        name for name in wanted.keys() - tensors.keys() if not name.endswith("num_batches_tracked")
    )
    left_over = sorted(
        name
        for name in tensors.keys() - wanted.keys()
        if not any(re.fullmatch(pattern, name) for pattern in unused)
    )
    misshaped = [
        f"{name} is {tuple(tensors[name].shape)}, should be {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{label}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for label, names in (
            ("missing", missing),
            ("unexpected", left_over),
            ("wrong shape", misshaped),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"{source} does not fit the network. {'. '.join(problems)}.")
    with torch.no_grad():
        for name, target in wanted.items():
            if name in tensors:
                target.copy_(tensors[name])


def permute(model: AudioModel, seed: int = 0) -> None:
    """Shuffle the values within every learned tensor, in place.

    The control of Tuckute et al. (2023): the same distribution of weights in each layer,
    nothing of what was learned.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
    model.__dict__.pop("weights_sha256", None)


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint without running anything that it contains.

    Parameters
    ----------
    path : path
        ``.safetensors``; a torch file (read with ``weights_only=True``); a torch file pickled
        with dill and holding objects of other packages, or a ``.npy`` of pickled arrays (both
        read by an unpickler that builds tensors, arrays and containers and nothing else).
        Files of the last two kinds are converted once to safetensors in the cache.

    Returns
    -------
    dict of str to tensor
        The innermost mapping of names to tensors (``state_dict``, ``model`` and ``module.``
        wrappers removed).

    Raises
    ------
    WeightsError
        When the file is damaged, or holds anything that would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    converted = cache_dir("checkpoints", f"{file_sha256(path)}.safetensors")
    if converted.is_file():
        return load_file(converted)
    tensors = _innermost_tensors(_read_torch(path), path)
    with atomic_path(converted) as temporary:
        save_file(
            {name: tensor.clone().contiguous() for name, tensor in tensors.items()}, temporary
        )
    return tensors


# Training bookkeeping that comes along in published checkpoints and is left unbuilt.
_BOOKKEEPING = ("torch.optim.", "dill.", "robustness.", "cox.", "argparse.", "pytorch_lightning.")


def _read_torch(path: Path) -> object:
    """Contents of a torch or NumPy pickle, by the strictest reader that can."""
    if path.suffix == ".npy":
        with open(path, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            np.lib.format._read_array_header(stream, version)
            content = _restricted(stream, path)
        return content.item() if isinstance(content, np.ndarray) else content
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path} is not a readable torch checkpoint: {error}") from error
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")

        def storage(identifier):
            _, kind, key, _, n_items = identifier
            raw = bytearray(archive.read(f"{folder}data/{key}"))
            return torch.frombuffer(raw, dtype=kind)[:n_items] if n_items else torch.empty(0)

        with archive.open(pickled) as stream:
            return _restricted(stream, path, storage)


def _restricted(stream, path: Path, persistent=None) -> object:
    """Unpickle tensors, arrays and containers; leave bookkeeping out; refuse the rest."""

    def rebuild_tensor(storage, offset, size, stride, *_):
        return torch.as_strided(storage, size, stride, offset)

    allowed = {
        **CONTAINERS,
        **NUMPY,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch.Size": tuple,
        **{
            f"torch.{kind}Storage": dtype
            for kind, dtype in {
                "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
                "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32,
                "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
                "Bool": torch.bool,
            }.items()
        },
    }  # fmt: skip
    try:
        return RestrictedUnpickler(stream, str(path), allowed, _BOOKKEEPING, persistent).load()
    except (DataError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(str(error)) from error


def _innermost_tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Walk down the usual wrappers to the mapping that holds the tensors."""
    while isinstance(content, Mapping):
        tensors = {
            str(name): torch.as_tensor(value)
            for name, value in content.items()
            if isinstance(value, (torch.Tensor, np.ndarray))
        }
        if tensors:
            if all(name.startswith("module.") for name in tensors):
                return {name.removeprefix("module."): value for name, value in tensors.items()}
            return tensors
        inner = [content[key] for key in ("state_dict", "model", "params") if key in content]
        if not inner:
            break
        content = inner[0]
    raise WeightsError(f"{path} holds no mapping of names to tensors")
