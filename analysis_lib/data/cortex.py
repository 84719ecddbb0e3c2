"""Responses of auditory cortex, by name, and the folds to cross-validate them with."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import xarray as xr
from filelock import FileLock

from ..errors import AlignmentError, ParameterError, UnknownNameError
from ..paths import cache_dir, content_key
from . import components, own, simulated, voxels
from .natural_sounds import Sounds, natural_sounds
from .splits import tuckute_splits
from .voxel_twin import write_twin

__all__ = ["folds", "is_generated", "may_be_passed_on", "responses", "sounds", "splits"]

_TABLES = Path(__file__).with_name("tables")


def sounds(name: str) -> Sounds:
    """Load the sounds that a response data set was measured with, or a sound set by name.

    Parameters
    ----------
    name : str
        A name that :func:`responses` takes, or ``"natsound165"``; or the path of a folder with
        audio files, whose subfolders are the categories.

    Examples
    --------
    >>> from analysis_lib import data
    >>> data.sounds("simulated")
    Sounds(60 sounds in 6 categories)
    """
    if name.endswith(".nc") or Path(name).expanduser().is_dir():
        return own.sounds_at(name)
    if is_generated(name):
        return simulated.simulated_sounds()
    if name == "natsound165" or name in RESPONSES:
        return natural_sounds()
    raise UnknownNameError("sound set", name, ["natsound165", *RESPONSES])


def is_generated(name: str) -> bool:
    """Whether the responses of a data set were made by a program and not by a brain.

    Examples
    --------
    >>> from analysis_lib import data
    >>> data.is_generated("simulated"), data.is_generated("nh2015")
    (True, False)
    """
    return name in RESPONSES and (name.startswith("simulated") or name.endswith("-twin"))


def may_be_passed_on(name: str) -> bool:
    """Whether the sounds of a data set may stand in a copy of the book for others.

    Generated sounds are ours to give; the 165 natural sounds come without a licence.

    Examples
    --------
    >>> from analysis_lib import data
    >>> data.may_be_passed_on("simulated"), data.may_be_passed_on("nh2015-components")
    (True, False)
    """
    return is_generated(name)


def responses(name: str, **options) -> xr.DataArray:
    """Responses of auditory cortex to the sounds.

    Parameters
    ----------
    name : str
        ``"nh2015-components"``: the 6 components of Norman-Haignere et al. (2015), 165 × 6.
        ``"nh2015-reconstructed"``: 165 × 11,065 voxel responses rebuilt from the components and
        their voxel weights; of rank 6 by construction, without noise, subjects or positions.
        ``"nh2015"``, ``"b2021"``: the voxels of Norman-Haignere et al. (2015) and Boebinger et
        al. (2021), three repetitions each (:mod:`analysis_lib.data.voxels`).
        ``"nh2015-twin"``, ``"b2021-twin"``: simulated data in exactly that layout, through the
        same loader.
        ``"simulated"``: a cortex with planted truth
        (:func:`analysis_lib.data.simulated.plant`, whose arguments ``options`` may give).
        ``"simulated-components"``: one noise-free target for each layer planted there.
        ``"path/to/file.nc"``: responses of your own (:func:`analysis_lib.data.write_responses`).
    **options
        Passed on to the data set's loader.

    Returns
    -------
    DataArray (sound, target[, repetition])
        Sounds by name, in ascending order of stimulus number. ``target`` carries ``kind`` and,
        where known, ``subject``, ``roi``, ``hemisphere``, ``x`` and ``y``.

    Raises
    ------
    UnknownNameError
        With the nearest names.

    Examples
    --------
    >>> from analysis_lib import data
    >>> few = data.simulated_sounds(2)
    >>> responses = data.responses("simulated", sounds=few, n_subjects=2, n_voxels=5)
    >>> dict(responses.sizes)
    {'sound': 12, 'target': 60, 'repetition': 3}
    """
    if name.endswith(".nc"):
        return own.read_responses(name)
    if name not in RESPONSES:
        raise UnknownNameError("response data set", name, RESPONSES)
    return RESPONSES[name](**options)


def _simulated(sounds: Sounds | None = None, **options) -> xr.DataArray:
    heard = simulated.simulated_sounds() if sounds is None else sounds
    planted = simulated.plant(simulated.planted_features(heard), heard.names, **options)
    return planted.assign_coords(category=("sound", np.array(heard.categories, dtype=object)))


def _simulated_components() -> xr.DataArray:
    """One voxel per planted layer, without noise: the twin of the real components."""
    heard = simulated.simulated_sounds()
    layers = simulated.planted_features(heard)
    planted = simulated.plant(
        layers, heard.names, {layer: layer for layer in layers}, n_subjects=1, n_voxels=1,
        n_repetitions=1, noise=0.0, n_null=0,
    )  # fmt: skip
    return (
        planted.isel(repetition=0)
        .drop_vars(["subject", "roi", "hemisphere", "x", "y", "ceiling"])
        .assign_coords(
            target=[layer.capitalize() for layer in layers],
            kind=("target", np.full(len(layers), "component", dtype=object)),
            category=("sound", np.array(heard.categories, dtype=object)),
        )
    )


def _twin(loader: Callable[..., xr.DataArray]) -> xr.DataArray:
    """Write the twin of the public voxel data, and read it as the real data are read."""
    heard = simulated.simulated_sounds()
    hashes = [heard.content_hash(name) for name in heard]
    folder = cache_dir("twins", content_key("voxel twin", 2, heard.names, hashes))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "written").is_file():
            layers = simulated.planted_features(heard)
            write_twin(folder, layers, heard.names, heard.categories, n_voxels=18)
            (folder / "written").touch()
    array = loader(folder / "data")
    category = dict(zip(heard.names, heard.categories, strict=True))
    kinds = np.array([category[name] for name in array["sound"].data], dtype=object)
    return array.assign_coords(category=("sound", kinds))


RESPONSES: Mapping[str, Callable[..., xr.DataArray]] = MappingProxyType(
    {
        "nh2015-components": components.components,
        "nh2015-reconstructed": components.reconstructed_voxels,
        "nh2015": voxels.nh2015,
        "b2021": voxels.b2021,
        "nh2015-twin": partial(_twin, voxels.nh2015),
        "b2021-twin": partial(_twin, voxels.b2021),
        "simulated": _simulated,
        "simulated-components": _simulated_components,
    }
)


def folds(name: str = "pepino", sounds: Sounds | None = None, n_folds: int = 5) -> xr.DataArray:
    """Cross-validation folds over sounds.

    Parameters
    ----------
    name : {"pepino", "stratified", "auto"}
        The 5 folds of 33 natural sounds of Pepino et al. (2025), or folds drawn here with seed
        0 so that every category is spread evenly. ``"auto"``: the first for sounds that it
        covers, the second for others.
    sounds : Sounds, optional
        What to align to; required for ``"stratified"`` and ``"auto"``.
    n_folds : int
        For ``"stratified"``.

    Returns
    -------
    DataArray (sound,)
        Fold of each sound, from 0.

    Raises
    ------
    AlignmentError
        When a sound has no fold.
    ParameterError
        When the sounds are too few for the folds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import data
    >>> fold_of = data.folds("pepino")
    >>> fold_of.sizes["sound"], np.bincount(fold_of).tolist()
    (165, [33, 33, 33, 33, 33])
    >>> sounds = data.simulated_sounds(4)
    >>> np.bincount(data.folds("stratified", sounds, n_folds=4)).tolist()
    [6, 6, 6, 6]
    """
    table = pd.read_csv(_TABLES / "pepino_folds.csv", comment="#")
    if name == "auto" and sounds is not None:
        name = "pepino" if set(sounds.names) <= set(table["name"]) else "stratified"
    if name == "pepino":
        array = xr.DataArray(
            table["fold"].to_numpy(dtype=int),
            dims="sound",
            coords={"sound": table["name"].to_numpy(dtype=object)},
            name="fold",
        )
        if sounds is None:
            return array
        without = [sound for sound in sounds if sound not in set(table["name"])]
        if without:
            raise AlignmentError(
                f"the pepino folds cover the 165 natural sounds; no fold for "
                f"{', '.join(without[:5])}{' …' if len(without) > 5 else ''}. "
                "Use folds='stratified' for other sounds."
            )
        return array.sel(sound=list(sounds.names))
    if name in ("stratified", "auto"):
        if sounds is None:
            raise AlignmentError(f"folds={name!r} needs the sounds that it is to divide")
        labels = np.array(sounds.categories)
        largest = int(np.unique(labels, return_counts=True)[1].max())
        if not 2 <= n_folds <= largest:
            raise ParameterError(
                f"{n_folds} stratified folds cannot be drawn from {len(sounds)} sounds whose "
                f"largest category has {largest}: choose a number from 2 to that"
            )
        from sklearn.model_selection import StratifiedKFold  # slow to load, seldom needed

        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        fold = np.empty(len(sounds), dtype=int)
        for k, (_, test) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
            fold[test] = k
        coords = {"sound": np.array(sounds.names, dtype=object)}
        return xr.DataArray(fold, dims="sound", coords=coords, name="fold")
    raise UnknownNameError("set of folds", name, ["auto", "pepino", "stratified"])


def splits(name: str = "tuckute", sounds: Sounds | None = None) -> xr.DataArray:
    """Random halves of the sounds: which are for training in each split.

    Parameters
    ----------
    name : {"tuckute"}
        The 10 halves of Tuckute et al. (2023), drawn from seed 0.
    sounds : Sounds, optional
        What to divide; by default the 165 natural sounds.

    Returns
    -------
    DataArray (split, sound) of bool
        True where a sound trains.

    Examples
    --------
    >>> from analysis_lib import data
    >>> trains = data.splits("tuckute")
    >>> trains.dims, trains.shape, trains.sum("sound").values[:3]
    (('split', 'sound'), (10, 165), array([83, 83, 83]))
    """
    if name != "tuckute":
        raise UnknownNameError("set of splits", name, ["tuckute"])
    if sounds is None:
        return tuckute_splits(folds("pepino")["sound"].data)
    return tuckute_splits(sounds.names)
