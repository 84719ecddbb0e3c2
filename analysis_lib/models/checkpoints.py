"""Finding published checkpoints, and reading them without running anything they contain."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..data import fetch
from ..errors import DataError, MissingDataError, WeightsError
from ..paths import atomic_path, cache_dir, file_sha256
from ..pickles import CONTAINERS, NUMPY, RestrictedUnpickler
from .cards import ModelCard

__all__ = ["forget", "locate", "read_checkpoint", "read_with_settings", "state", "trained_here"]


def locate(card: ModelCard) -> Path:
    """Path of a card's published checkpoint: mirror first, then cache, then the network.

    Looked up as ``models/<name>/<checkpoint>`` below ``BRAINBOOK_DATA`` and the cache. Where the
    card names several files (separated by spaces), it is the folder that holds them all.

    Raises
    ------
    MissingDataError
        Says which file, from where, how large, and where to put it by hand.
    """
    files = card.checkpoint.split()
    if len(files) < 2:
        return fetch.fetch_checkpoint(
            card.name, card.checkpoint, card.source, card.revision, card.sha256, card.download_mb
        )
    paths = [
        fetch.fetch_checkpoint(
            card.name, file, card.source, card.revision, sha256, card.download_mb
        )
        for file, sha256 in zip_longest(files, card.sha256.split(), fillvalue="")
    ]
    return paths[0].parent


def trained_here(card: ModelCard, seed: int = 0, must_exist: bool = True) -> Path:
    """Path, in the cache, of the weights of a model that this project trains itself.

    Parameters
    ----------
    card : ModelCard
        Its ``revision`` names the recipe, so that weights of another recipe are not found.
    seed : int
        That they were trained from.
    must_exist : bool
        Refuse a path at which there is no file.

    Raises
    ------
    MissingDataError
        Says which command makes them.
    """
    path = cache_dir("light-zoo", f"{card.name}-{card.revision}-seed{seed}.safetensors")
    if must_exist and not path.is_file():
        raise MissingDataError(
            f"{card.name} has not been trained on this machine yet ({path} is not there). Run "
            f"'brainbook train {card.name}' (a minute on a laptop), or pass untrained=True."
        )
    return path


def state(card: ModelCard) -> str:
    """Whether a model runs here and now, or what it needs; fetches nothing.

    Returns
    -------
    str
        ``"runs: …"`` and why, or ``"needs …"`` with the file, its size and its source.
    """
    if card.kind == "trained-here":
        if trained_here(card, must_exist=False).is_file():
            return "runs: trained on this machine"
        return f"needs 'brainbook train {card.name}'"
    if card.kind != "published":
        return f"runs: {card.kind}"
    files = card.checkpoint.split()
    absent = [file for file in files if fetch.find(f"models/{card.name}", file) is None]
    if not absent:
        return "runs: checkpoint is here"
    size = f"{card.download_mb:,.0f} MB" if card.download_mb else "size unknown"
    return f"needs {' and '.join(absent)}, {size}, from {card.source}"


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint without running anything that it contains.

    Parameters
    ----------
    path : path
        ``.safetensors``; a folder of Hugging Face, or with one ``.ckpt`` file per part of the
        network; a torch file (read with ``weights_only=True``); a torch file pickled
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
    return read_with_settings(Path(path))[0]


def read_with_settings(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read the tensors of a checkpoint, and the plain settings that came in the same file.

    As :func:`read_checkpoint`. Settings are text, numbers, and lists and mappings of these.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    converted = _converted(path)
    if not converted.is_file():
        content = _read_torch(path)
        tensors = _innermost_tensors(content, path)
        with atomic_path(converted) as temporary:
            save_file(
                {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata={"settings": json.dumps(_plain_settings(content))},
            )
    return _read_safetensors(converted)


def forget(path: Path) -> None:
    """Remove the converted copy of a checkpoint from the cache, if there is one."""
    _converted(path).unlink(missing_ok=True)


def _converted(path: Path) -> Path:
    """Where the copy of a checkpoint is that was converted to safetensors."""
    return cache_dir("checkpoints", f"{file_sha256(path)}.safetensors")


def _read_folder(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Tensors of a Hugging Face folder, or of one file per part, under the name of the part."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_with_settings(folder / name)
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    if shards:
        return {k: v for shard in shards for k, v in read_with_settings(shard)[0].items()}, {}
    parts = {
        f"{part.stem}.{name}": tensor
        for part in sorted(folder.glob("*.ckpt"))
        for name, tensor in read_with_settings(part)[0].items()
    }
    if not parts:
        raise WeightsError(
            f"{folder} holds neither model.safetensors nor pytorch_model.bin nor *.ckpt files"
        )
    return parts, {}


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), json.loads(metadata.get("settings", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def _plain_settings(content: object) -> dict[str, object]:
    """Entries beside the weights that are text, numbers, or lists and mappings of these."""
    settings = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            continue
        settings[str(key)] = value
    return settings


# Training bookkeeping that comes along in published checkpoints and is left unbuilt.
_BOOKKEEPING = (
    "torch.optim.", "dill.", "robustness.", "cox.", "argparse.", "pytorch_lightning.",
    "omegaconf.", "deepspeech_pytorch.", "typing.", "collections.defaultdict",
    # Names of plain types, as Python 3 and, in older protocols, Python 2 call them.
    "builtins.int", "builtins.float", "builtins.str", "builtins.bool",
    "__builtin__.long", "__builtin__.int", "__builtin__.float", "__builtin__.unicode",
    "__builtin__.bool",
    # dill's name for the globals of a script.
    "builtins.__main__", "__builtin__.__main__",
)  # fmt: skip


_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _read_torch(path: Path) -> object:
    """Contents of a torch or NumPy pickle, by the strictest reader that can."""
    if path.suffix == ".npy":
        with open(path, "rb") as stream:
            try:
                version = np.lib.format.read_magic(stream)
                _NPY_HEADERS[version](stream)
            except (ValueError, KeyError) as error:
                raise WeightsError(f"{path} is not a readable .npy file: {error}") from error
            content = _restricted(stream, path)
        return content.item() if isinstance(content, np.ndarray) else content
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        # PyTorch's own message proposes to load without the check; nobody should.
        if not zipfile.is_zipfile(path):
            raise WeightsError(
                f"{path} is not a readable torch checkpoint. It is damaged, or an old file with "
                "more than tensors in it, and was refused. Fetch it again, or convert it to "
                "safetensors where you trust it."
            ) from error
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise WeightsError(f"{path} is an archive, but not a torch checkpoint")
        folder = pickled[0].removesuffix("data.pkl")

        @cache  # tensors that share a storage go on sharing it
        def stored(kind, key):
            raw = bytearray(archive.read(f"{folder}data/{key}"))
            return torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)

        def storage(identifier):
            _, kind, key, _, n_items = identifier
            return stored(kind, key)[:n_items]

        with archive.open(pickled[0]) as stream:
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
    except DataError as error:
        raise WeightsError(str(error)) from error
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise WeightsError(f"{path} is not a readable checkpoint: {error}") from error


def _innermost_tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Walk down the usual wrappers to the mapping that holds the tensors."""
    while isinstance(content, Mapping):
        wrappers = ("state_dict", "model", "params")
        inner = [content[key] for key in wrappers if isinstance(content.get(key), Mapping)]
        if inner:
            content = inner[0]
            continue
        tensors = {
            str(name): torch.as_tensor(value)
            for name, value in content.items()
            if isinstance(value, (torch.Tensor, np.ndarray))
        }
        if tensors:
            if all(name.startswith("module.") for name in tensors):
                return {name.removeprefix("module."): value for name, value in tensors.items()}
            return tensors
        parts = _tensors_of_parts(content)
        if parts:
            return parts
        break
    raise WeightsError(f"{path} holds no mapping of names to tensors")


def _tensors_of_parts(content: Mapping) -> dict[str, torch.Tensor]:
    """Tensors of a mapping with one mapping per part of the network, as ``part.name``."""
    return {
        f"{part}.{name}": torch.as_tensor(value)
        for part, tensors in content.items()
        if isinstance(tensors, Mapping)
        for name, value in tensors.items()
        if isinstance(value, (torch.Tensor, np.ndarray))
    }
