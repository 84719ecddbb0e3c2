"""Stored activations of Tuckute et al. (2023): models as features, without running a network.

The public archive ``model_actv.tar`` (2.7 GB) holds time-averaged activations of the models of that
paper for the 165 natural sounds, trained and with permuted weights; 18 of them are among the 36 of
Pepino et al. (2025). It has two layouts:

* ``<folder>/natsound_activations[_randnetw].h5``, for the authors' own networks: a dataset (sound,
  unit) per layer, and their names in ``layer_list``. The sounds have no names there; they are in
  the order of their stimulus numbers.
* ``<folder>/<sound>_activations[_randnetw].pkl``, for the others: a pickled mapping of layer to
  vector per sound. The pickles are read by an unpickler that builds arrays and nothing else.
"""

import logging
import pickle
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ..errors import AlignmentError, DataError, MissingDataError, ParameterError, UnknownNameError
from ..paths import atomic_path, cache_dir, storage_errors
from ..pickles import CONTAINERS, NUMPY, RestrictedUnpickler
from . import fetch
from .archives import unpack
from .natural_sounds import stimulus_number

__all__ = ["stored_activations", "stored_models", "stored_sounds", "write_activations"]

log = logging.getLogger("brainbook")
ARCHIVE_URL = "https://mcdermottlab.mit.edu//tuckute_feather_2023/model_actv.tar"


_ADVICE = f"The archive is {ARCHIVE_URL} (2.7 GB)."


@dataclass(frozen=True)
class _Stored:
    """Where a model's activations stand: folder, layout, key of each layer, permuted or not."""

    folder: str
    layout: str
    has_permuted: bool
    keys: Mapping[str, str]

    def file(self, permuted: bool, sound: str = "natsound") -> str:
        """Name of the file (of one sound)."""
        suffix = "_randnetw" if permuted else ""
        return f"{sound}_activations{suffix}.{'h5' if self.layout == 'hdf5' else 'pkl'}"


@lru_cache(maxsize=1)
def _table() -> Mapping[str, _Stored]:
    rows = pd.read_csv(Path(__file__).with_name("tables") / "stored_activations.csv")
    return {
        model: _Stored(
            *of_model.iloc[0][["folder", "layout"]],
            of_model.iloc[0]["permuted"] == "yes",
            dict(zip(of_model["layer"], of_model["key"], strict=True)),
        )
        for model, of_model in rows.groupby("model", sort=False)
    }


def _find(model: str, permuted: bool) -> _Stored:
    if model not in _table():
        raise UnknownNameError("model with stored activations", model, _table())
    stored = _table()[model]
    if permuted and not stored.has_permuted:
        raise ParameterError(f"{model} has no learned weights, so there are none to permute")
    return stored


def stored_models() -> list[str]:
    """Names of the models with stored activations: of the zoo, and two trained on music."""
    return list(_table())


def stored_activations(
    model: str,
    names: Sequence[str] | None = None,
    permuted: bool = False,
    layers: Collection[str] | None = None,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """Read the stored activations of a model.

    Parameters
    ----------
    model : str
        One of :func:`stored_models`.
    names : sequence of str, optional
        Sounds, in any order; by default the 165.
    permuted : bool
        Those of the network with permuted weights.
    layers : collection of str, optional
        By default those that Pepino et al. (2025) score.
    folder : path, optional
        The unpacked archive. By default ``tuckute2023/model_actv`` in ``BRAINBOOK_DATA`` or the
        cache; if there is none, the archive (2.7 GB) is fetched and unpacked into the cache.

    Returns
    -------
    dict of str to array of shape (n_sounds, n_units), float32
        In the order of ``names``.

    Raises
    ------
    AlignmentError
        When sounds were asked for that are not among the 165, or the files lack some.
    DataError
        When a file is damaged, unsafe, lacks a layer, or holds something else than expected.
    MissingDataError
        When a file is not there.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from analysis_lib import data, models
    >>> from analysis_lib.data import activations
    >>> names, model = activations.stored_sounds(), "braindnn_resnet50_word"
    >>> layers, folder = {}, tempfile.mkdtemp()
    >>> for layer in models.card(model).layers:
    ...     layers[layer] = np.ones((165, 3), "f4")
    ...
    >>> written = activations.write_activations(folder, model, layers, names)
    >>> data.stored_activations(model, names[:4], folder=folder)["layer4"].shape
    (4, 3)
    """
    stored = _find(model, permuted)
    for layer in layers or ():
        if layer not in stored.keys:
            raise UnknownNameError(f"stored layer of {model}", layer, stored.keys)
    known = stored_sounds()
    names = known if names is None else tuple(names)
    strangers = sorted(set(names) - set(known))
    if strangers:
        raise AlignmentError(
            f"{model}: there are stored activations for the 165 natural sounds only, not for "
            f"{', '.join(strangers[:5])}"
            + (f" and {len(strangers) - 5} more" * (len(strangers) > 5))
        )
    place = (_unpacked() if folder is None else Path(folder)) / stored.folder
    keys = {layer: stored.keys[layer] for layer in layers or stored.keys}
    if stored.layout == "hdf5":
        found = _read_hdf5(place / stored.file(permuted), names, keys)
    else:
        found = _read_pickles({name: place / stored.file(permuted, name) for name in names}, keys)
    for layer, values in found.items():
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise DataError(
                f"{place}: layer {layer!r} is not finite for {names[broken.argmax()]!r}"
            )
    return found


def stored_sounds() -> tuple[str, ...]:
    """Names of the 165 natural sounds, by stimulus number: the order of the HDF5 files."""
    files = [entry.file for entry in fetch.registry("natsound165").matching("wav/*.wav")]
    return tuple(sorted((Path(file).stem for file in files), key=stimulus_number))


def write_activations(
    folder: Path,
    model: str,
    layers: Mapping[str, np.ndarray],
    names: Sequence[str],
    permuted: bool = False,
) -> None:
    """Write activations in the layout of the archive, so that the same loader reads them.

    Parameters
    ----------
    folder : path
        Stands for ``model_actv``.
    model : str
        One of :func:`stored_models`.
    layers : mapping of str to array of shape (n_sounds, n_units)
        By layer of the model.
    names : sequence of str
        Of the rows: in the order of :func:`stored_sounds` where the layout has no names.
    permuted : bool
        Under the name of the permuted network.
    """
    stored = _find(model, permuted)
    place = Path(folder) / stored.folder
    keyed = {stored.keys[layer]: np.asarray(x, np.float32) for layer, x in layers.items()}
    if stored.layout == "pickles":
        for row, name in enumerate(names):
            with atomic_path(place / stored.file(permuted, name)) as temporary:
                vectors = {key: values[row] for key, values in keyed.items()}
                temporary.write_bytes(pickle.dumps(vectors, protocol=4))
        return
    with (
        atomic_path(place / stored.file(permuted)) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        file["layer_list"] = [key.encode() for key in keyed]
        for key, values in keyed.items():
            file[key] = values


def _unpacked() -> Path:
    """Folder of the archive, unpacked once."""
    folder = fetch.find("tuckute2023", "model_actv")
    if folder is not None:
        return folder
    folder = cache_dir("data", "tuckute2023", "model_actv")
    archive = fetch.fetch_url("tuckute2023", "model_actv.tar", ARCHIVE_URL, n_bytes=2_700_000_000)
    log.info("unpacking %s to %s", archive, folder)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
            written = unpack(archive, Path(temporary), lambda name: name.endswith((".h5", ".pkl")))
            roots = {file.parent.parent for file in written}
            if len(roots) != 1:
                raise DataError(f"{archive} does not hold one folder with a folder per model")
            if not folder.exists():  # another process may have been faster
                shutil.move(roots.pop(), folder)
    return folder


def _read_hdf5(path: Path, names: Sequence[str], keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise MissingDataError(f"there is no {path}. {_ADVICE}")
    known = stored_sounds()
    rows = [known.index(name) for name in names]
    try:
        with h5py.File(path, "r") as file:
            if "layer_list" not in file:
                raise DataError(f"{path} has no layer_list")
            listed = [x.decode() if isinstance(x, bytes) else str(x) for x in file["layer_list"][:]]
            found = {}
            for layer, key in keys.items():
                if key not in file:
                    raise DataError(f"{path} lacks layer {key!r}; it lists {', '.join(listed)}")
                if file[key].ndim != 2 or len(file[key]) != len(known):
                    raise DataError(
                        f"{path}: layer {key!r} has shape {file[key].shape}, expected "
                        f"({len(known)}, n_units)"
                    )
                found[layer] = np.asarray(file[key], dtype=np.float32)[rows]
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file ({error}). Fetch it again.") from error
    return found


def _read_pickles(paths: Mapping[str, Path], keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    absent = [path for path in paths.values() if not path.is_file()]
    if absent and len(absent) == len(paths):
        raise MissingDataError(f"there is no {absent[0]}, nor one of another sound. {_ADVICE}")
    if absent:
        files = ", ".join(path.name for path in absent[:8])
        raise AlignmentError(f"{absent[0].parent} lacks {len(absent)} sounds: {files}")
    found: dict[str, list[np.ndarray]] = {layer: [] for layer in keys}
    for path in paths.values():
        vectors = _read_pickle(path)
        for layer, key in keys.items():
            if key not in vectors:
                raise DataError(f"{path} lacks layer {key!r}; it holds {', '.join(vectors)}")
            vector = np.asarray(vectors[key])
            n_units = found[layer][0].size if found[layer] else vector.size
            if vector.ndim != 1 or vector.dtype.kind != "f" or vector.size != n_units:
                raise DataError(
                    f"{path}: {key!r} is {vector.dtype} of shape {vector.shape}, expected "
                    f"numbers of shape ({n_units},)"
                )
            found[layer].append(vector.astype(np.float32))
    return {layer: np.stack(vectors) for layer, vectors in found.items()}


def _read_pickle(path: Path) -> Mapping[str, np.ndarray]:
    with open(path, "rb") as stream:
        try:
            vectors = RestrictedUnpickler(stream, str(path), {**CONTAINERS, **NUMPY}).load()
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{path} is not a readable pickle ({type(error).__name__}: {error}). "
                "Fetch it again."
            ) from error
    if not isinstance(vectors, Mapping):
        raise DataError(f"{path} holds {type(vectors).__name__}, not a mapping of layer to vector")
    return vectors
