"""Responses of your own: from an array, or from a netCDF file that any chapter takes by its path.

A file holds the responses and says where its sounds are, so that the path alone names a data set:
``data.responses("mine.nc")`` and ``data.sounds("mine.nc")``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import AlignmentError, DataError, MissingDataError
from ..paths import atomic_path
from .natural_sounds import Sounds, natural_sounds
from .simulated import simulated_sounds

__all__ = ["files_of", "own_responses", "read_responses", "sounds_at", "write_responses"]

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
SOUND_SETS = {"natsound165": natural_sounds, "simulated": simulated_sounds}


def own_responses(
    values: np.ndarray,
    sounds: Sounds | Sequence[str],
    targets: Sequence | None = None,
    **labels: object,
) -> xr.DataArray:
    """Label an array of responses, so that every analysis takes it.

    Parameters
    ----------
    values : array of shape (n_sounds, n_targets) or (n_sounds, n_targets, n_repetitions)
        Voxels, parcels, electrodes, components: one number per sound and target. A target that
        holds NaN is kept, and gets NaN as its score.
    sounds : Sounds or sequence of str
        In the order of the rows. Sounds bring their categories along.
    targets : sequence, optional
        One unique name per target; by default numbers from 0.
    **labels
        What is known of the targets, one value for all or one each: ``subject`` (averages and
        RSA are made within it), ``roi`` (areas that figures compare), ``hemisphere`` (lh or rh)
        with ``x`` and ``y`` in mm on a flattened grid of 2 mm steps (maps), ``kind`` (voxel,
        parcel, component), or anything else. ``subject`` and ``roi`` are ``"all"`` by default.

    Returns
    -------
    DataArray (sound, target[, repetition])
        With ``category`` along ``sound``.

    Raises
    ------
    AlignmentError
        When rows and sounds, or targets and their labels, differ in number, or a sound is named
        twice.
    DataError
        When the array has another shape, or a sound has no finite response; it is named.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import data
    >>> values = np.array([[0.1, 0.3], [0.2, 0.1], [0.4, 0.9]])
    >>> responses = data.own_responses(values, ["rain", "bell", "dog"], subject="s1")
    >>> responses.sel(sound="bell").values
    array([0.2, 0.1])
    """
    values = np.asarray(values, dtype=float)
    names = [str(name) for name in sounds]
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise DataError(
            f"responses of shape {values.shape}: (sound, target) or (sound, target, repetition) "
            "is needed, with at least one of each"
        )
    if len(values) != len(names):
        raise AlignmentError(
            f"the array has {len(values)} rows, but {len(names)} sounds are named. Each row is "
            "one sound, in the order of the names; transpose it if its rows are the targets."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AlignmentError(f"sounds named twice: {', '.join(twice)}. Average, or rename them.")
    if np.isinf(values).any():
        row, target = np.argwhere(np.isinf(values))[0][:2]
        raise DataError(f"the response of target {target} to sound {names[row]!r} is infinite")
    silent = [names[row] for row in np.flatnonzero(np.isnan(values).reshape(len(names), -1).all(1))]
    if silent:
        raise DataError(f"no response at all to {', '.join(silent)}: leave them out")
    n_targets = values.shape[1]
    targets = np.arange(n_targets) if targets is None else _column(targets)
    _require_length("targets", targets, n_targets)
    if len(set(targets.tolist())) != n_targets:
        raise AlignmentError("names of targets must be unique; number them, or add the subject")
    categories = sounds.categories if isinstance(sounds, Sounds) else ("",) * len(names)
    coords = {
        "sound": _column(names),
        "category": ("sound", _column(categories)),
        "target": targets,
    }
    for label, value in {"kind": "voxel", "subject": "all", "roi": "all", **labels}.items():
        one_for_all = isinstance(value, str) or np.ndim(value) == 0
        column = _column([value] * n_targets if one_for_all else value)
        _require_length(label, column, n_targets)
        coords[label] = ("target", column)
    dims = ("sound", "target", "repetition")[: values.ndim]
    return xr.DataArray(values, dims=dims, coords=coords, name="response")


def write_responses(responses: xr.DataArray, path: str | Path, sounds: str | Path) -> Path:
    """Write responses to a file whose path is then a data set's name.

    Parameters
    ----------
    responses : DataArray (sound, target[, repetition])
        From :func:`own_responses` or :func:`bids_responses`.
    path : path
        Ending in ``.nc``.
    sounds : path or str
        Folder with one audio file per sound, named as the sound; files may lie in subfolders,
        which are then the categories. Or the name of a sound set: ``"natsound165"``,
        ``"simulated"``. A folder is kept relative to the file, so that both can move together.

    Returns
    -------
    Path
        Give it to :func:`responses`, to :func:`sounds`, or to a chapter as ``dataset``.

    Raises
    ------
    AlignmentError
        When there is no audio for a sound; it is named.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np, soundfile
    >>> from analysis_lib import data
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("rain", "bell"):
    ...     soundfile.write(folder / f"{name}.wav", np.full(800, 0.1), 8000)
    ...
    >>> measured = data.own_responses([[0.1, 0.2], [0.4, 0.3]], ["rain", "bell"])
    >>> path = data.write_responses(measured, folder / "mine.nc", folder)
    >>> data.responses(str(path)).equals(measured), data.sounds(str(path)).names
    (True, ('rain', 'bell'))
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise DataError(f"{path.name} must end in .nc, by which a chapter knows it for a file")
    if str(sounds) not in SOUND_SETS:
        folder = Path(sounds).expanduser().resolve()
        sounds = os.path.relpath(folder, path.expanduser().resolve().parent)
    heard = _chosen(_sound_set(str(sounds), path), responses["sound"].values, path)
    array = responses.assign_coords(category=("sound", _column(heard.categories)))
    array = array.assign_attrs(sounds=str(sounds)).rename("response")
    with atomic_path(path) as temporary:
        array.to_netcdf(temporary, engine="h5netcdf")
    return path


def read_responses(path: str | Path) -> xr.DataArray:
    """Read what :func:`write_responses` wrote, or a DataArray of that form.

    Raises
    ------
    MissingDataError
        When there is no such file.
    DataError
        When it holds something else.
    """
    array = _opened(path)
    absent = [dim for dim in ("sound", "target") if dim not in array.dims]
    if absent or "sound" not in array.coords:
        raise DataError(
            f"{path} has dimensions {array.dims}; sound and target, with the names of the sounds, "
            "are needed. Make it with data.own_responses and data.write_responses."
        )
    labels = {
        name: (coord.dims, _column(coord.values))
        for name, coord in array.coords.items()
        if coord.dtype.kind in "UOT"
    }
    array = array.assign_coords(labels)
    known = {
        name: array[name].values
        for name, coord in array.coords.items()
        if coord.dims == ("target",)
    }
    checked = own_responses(
        array.transpose("sound", "target", ...).values, array["sound"].values,
        known.pop("target", None), **known,
    )  # fmt: skip
    if "category" in array.coords:
        checked["category"] = ("sound", array["category"].values)
    return checked


def sounds_at(path: str | Path) -> Sounds:
    """Find the sounds of a file of responses, or those in a folder.

    Parameters
    ----------
    path : path
        A ``.nc`` file from :func:`write_responses`: its sounds, in its order. Or a folder: every
        audio file in it and below, named without its ending, the subfolder its category.

    Raises
    ------
    MissingDataError
        When there is no such file or folder, or no audio in it.
    AlignmentError
        When there is no audio for a sound of the file, or two files have one name.
    """
    path = Path(path).expanduser()
    if path.suffix != ".nc":
        return _folder(path)
    array = _opened(path)
    return _chosen(_sound_set(_origin(array, path), path), array["sound"].values, path)


def files_of(path: str | Path) -> list[Path]:
    """List the files that a data set's path stands for: itself, and the audio that it names."""
    path = Path(path).expanduser()
    origin = _origin(_opened(path), path)
    return [path] if origin in SOUND_SETS else [path, *_audio(path.parent / origin)]


def _opened(path: str | Path) -> xr.DataArray:
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingDataError(f"no file {path}. Write it with data.write_responses.")
    try:
        with xr.open_dataarray(path, engine="h5netcdf") as array:
            return array.load()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} does not hold one array of responses ({error})") from error


def _origin(array: xr.DataArray, path: Path) -> str:
    if "sounds" not in array.attrs:
        raise DataError(
            f"{path} does not say where its sounds are. Write it with data.write_responses."
        )
    return str(array.attrs["sounds"])


def _sound_set(origin: str, path: Path) -> Sounds:
    return SOUND_SETS[origin]() if origin in SOUND_SETS else _folder(path.parent / origin)


def _folder(folder: Path) -> Sounds:
    files = _audio(folder)
    if not files:
        raise MissingDataError(f"no audio ({', '.join(AUDIO)}) in {folder}. Put the sounds there.")
    categories = ["" if file.parent == folder else file.parent.name for file in files]
    return Sounds([file.stem for file in files], files, categories)


def _audio(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in AUDIO)


def _chosen(known: Sounds, names: Sequence[str], path: Path) -> Sounds:
    missing = [str(name) for name in names if name not in known.names]
    if missing:
        raise AlignmentError(
            f"{path.name}: no audio for {len(missing)} of {len(names)} sounds: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}. A file is found by its "
            "name without the ending."
        )
    return known[[str(name) for name in names]]


def _column(values: Sequence) -> np.ndarray:
    """One-dimensional array; texts as objects, as everywhere in the package."""
    column = np.array([str(v) if isinstance(v, str) else v for v in values])
    return column.astype(object) if column.dtype.kind == "U" else column


def _require_length(label: str, column: np.ndarray, n_targets: int) -> None:
    if np.shape(column) != (n_targets,):
        raise AlignmentError(
            f"{label} has {len(column)} entries, the responses have {n_targets} targets"
        )
