"""The result store: one netCDF file per result, named by its content, with its history inside."""

import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .data import Task
from .device import peak_memory, resolve_device
from .errors import DataError, ParameterError, UnknownNameError
from .extraction import Features
from .paths import atomic_path, content_key, project_root, results_dir

__all__ = [
    "FINISHED",
    "analyses",
    "cached",
    "load",
    "open",
    "provenance",
    "read",
    "readable",
    "save",
]

log = logging.getLogger("brainbook")

FINISHED = "[!.]*.nc"  # a killed run may leave a hidden, unfinished file
_HOW_NOT_WHAT = ("device", "n_targets_batch", "progress")
_SEALED = ("analysis", "key", "parameters", "provenance")
_PACKAGES = ("torch", "numpy", "scipy", "xarray", "transformers", "scikit-learn", "nilearn")


def cached(
    analysis: str,
    function: Callable[..., xr.Dataset],
    about: Mapping[str, object] | None = None,
    **arguments,
) -> xr.Dataset:
    """Call an analysis, or give the result that the same call gave before.

    Parameters
    ----------
    analysis : str
        Name of the analysis, the folder in the store.
    function : callable
        Makes the Dataset. The ``ALGORITHM_VERSION`` of its module is part of the key.
    about : mapping, optional
        What people will look for, such as the model's name; part of the key.
    **arguments
        Of the function. Arrays and features enter the key by their content; arguments that say
        how to compute and not what (``device``, batch sizes) do not enter.

    Returns
    -------
    Dataset
        Loaded in memory; ``attrs`` hold ``key``, ``parameters``, ``provenance`` and ``digest``.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> def halve(values):
    ...     print("computing")
    ...     return xr.Dataset({"score": ("target", [value / 2 for value in values])})
    ...
    >>> first = results.cached("halves", halve, {"model": "log-mel"}, values=[1.0, 2.0])
    computing
    >>> second = results.cached("halves", halve, {"model": "log-mel"}, values=[1.0, 2.0])
    >>> second["score"].values
    array([0.5, 1. ])
    """
    inputs = {name: value for name, value in arguments.items() if name not in _HOW_NOT_WHAT}
    maker = f"{function.__module__}.{function.__qualname__}"
    algorithm = getattr(sys.modules[function.__module__], "ALGORITHM_VERSION", 1)
    key = content_key(
        analysis,
        maker,
        algorithm,
        dict(about or {}),
        {name: _identity(value) for name, value in inputs.items()},
    )
    described = " ".join(str(value) for value in (about or {}).values())
    if _path(analysis, key).is_file():
        log.info("reused %s %s (%s)", analysis, described, key)
        return open(analysis, key)
    log.info("computed %s %s (%s): not stored yet", analysis, described, key)
    started = time.perf_counter()
    result = function(**arguments)
    history = provenance(time.perf_counter() - started)
    history["device"] = str(resolve_device(arguments.get("device", "auto")))
    history["seed"] = arguments.get("seed")
    history["dtype"] = {name: str(variable.dtype) for name, variable in result.data_vars.items()}
    parameters = {name: readable(value) for name, value in inputs.items()}
    history |= {"function": maker, "algorithm_version": algorithm, "arguments": parameters}
    result = result.assign_attrs(
        analysis=analysis,
        key=key,
        parameters=json.dumps({**parameters, **(about or {})}),
        provenance=json.dumps(history),
    )
    result = _sealed(result)
    save(result)
    return result


def save(result: xr.Dataset, analysis: str | None = None, **parameters) -> Path:
    """Write a result, completely or not at all.

    Parameters
    ----------
    result : Dataset
        As :func:`cached` makes them; or any Dataset, with ``analysis`` given.
    analysis : str, optional
        Name of the analysis, where ``result.attrs`` does not say.
    **parameters
        Stored with the result, to find it by.

    Returns
    -------
    Path
        ``<results>/<analysis>/<key>.nc``.

    Raises
    ------
    StorageError
        When the folder cannot be written or the disk is full.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="log-mel")
    >>> path.parent.name, path.suffix
    ('demo', '.nc')
    """
    analysis = analysis or result.attrs.get("analysis")
    if not analysis:
        raise ParameterError("results.save needs to know which analysis made the result")
    if "key" not in result.attrs:
        content = {name: _identity(result[name]) for name in result.data_vars}
        result = result.assign_attrs(
            analysis=analysis,
            key=content_key(analysis, content, parameters),
            parameters=json.dumps(parameters),
            provenance=json.dumps(provenance()),
        )
    path = _path(analysis, result.attrs["key"])
    with atomic_path(path) as temporary:
        _sealed(result).to_netcdf(temporary, engine="h5netcdf")
    return path


def open(analysis: str, key: str) -> xr.Dataset:
    """Read one result by its key.

    Raises
    ------
    UnknownNameError
        When there is no such result.
    DataError
        When the file is not readable, or was changed after it was written.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> results.open("demo", path.stem)["score"].values
    array([0.1, 0.3])
    """
    path = _path(analysis, key)
    if not path.is_file():
        known = [file.stem for file in path.parent.glob(FINISHED)]
        raise UnknownNameError(f"{analysis} result", key, known)
    return read(path)


def read(path: Path) -> xr.Dataset:
    """Read a result file, of this store or another.

    Raises
    ------
    DataError
        When the file is not readable, or was changed after it was written.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> results.read(path)["score"].values
    array([0.1, 0.3])
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as stored:
            result = stored.load()
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable result ({error}). Remove it and run again."
        ) from error
    if result.attrs.get("digest", "") not in ("", _digest(result)):
        raise DataError(
            f"{path} was changed after it was written: its content does not have its digest. "
            "Remove it and run again."
        )
    return result


def analyses() -> list[str]:
    """Names of the analyses that have results in the store.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> path = results.save(xr.Dataset({"score": ("target", [0.5])}), "demo", model="log-mel")
    >>> results.analyses()
    ['demo']
    """
    return sorted({file.parent.name for file in results_dir().glob(f"*/{FINISHED}")})


def load(analysis: str, **filters) -> pd.DataFrame:
    """List the stored results of an analysis.

    Parameters
    ----------
    analysis : str
        One of :func:`analyses`.
    **filters
        Parameter values that a result must have, such as ``model="log-mel"``.

    Returns
    -------
    DataFrame
        A row per result: its parameters, ``key``, ``created``, ``wall_seconds``, the mean of its
        ``score`` where it has one, and ``path``. :func:`open` gives the result itself.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="log-mel")
    >>> table = results.load("demo", model="log-mel")
    >>> table["model"].tolist(), table["key"].tolist() == [path.stem]
    (['log-mel'], True)
    """
    if analysis not in analyses():
        raise UnknownNameError("analysis in the result store", analysis, analyses())
    rows = []
    for path in sorted((results_dir() / analysis).glob(FINISHED)):
        stored = open(analysis, path.stem)
        row = json.loads(stored.attrs["parameters"])
        if any(row.get(name) != value for name, value in filters.items()):
            continue
        history = json.loads(stored.attrs["provenance"])
        row |= {"key": path.stem, "created": history["created"]}
        row |= {"wall_seconds": history["wall_seconds"], "path": str(path)}
        if "score" in stored:
            row["mean_score"] = float(stored["score"].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def provenance(wall_seconds: float | None = None) -> dict:
    """How a result comes about here and now: versions, machine, commit, time, memory.

    Examples
    --------
    >>> from analysis_lib import results
    >>> sorted(results.provenance())
    ['commit', 'created', 'peak_memory_gb', 'platform', 'python', 'versions', 'wall_seconds']
    """
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wall_seconds": wall_seconds and round(wall_seconds, 3),
        "peak_memory_gb": round(peak_memory(resolve_device("cpu")) / 1e9, 3),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "versions": _versions(),
        "commit": _commit(),
    }


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


@lru_cache(maxsize=1)
def _commit() -> str:
    """Commit of the book's repository, with a mark when the tree has changes."""
    command = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return reply.stdout.strip()


def _path(analysis: str, key: str) -> Path:
    return results_dir() / analysis / f"{key}.nc"


def _sealed(result: xr.Dataset) -> xr.Dataset:
    """Write the digest of a result's content into it."""
    return result.assign_attrs(digest=_digest(result))


def _digest(result: xr.Dataset) -> str:
    """Digest of all values, names and history, the same before writing and after reading."""
    content = {}
    for name, variable in result.variables.items():
        values = variable.values
        if values.dtype.kind not in "biufc":  # text comes back from a file as another type
            values = [str(value) for value in values.ravel()]
        content[str(name)] = [list(map(str, variable.dims)), list(variable.shape), values]
    return content_key(content, {name: result.attrs.get(name) for name in _SEALED})


def _identity(value: object) -> object:
    """Reduce an input to what enters the key."""
    if isinstance(value, Features):
        return value.key
    if isinstance(value, Task):
        return value.content_key
    if isinstance(value, xr.DataArray):
        coords = {str(name): coord.values for name, coord in value.coords.items()}
        return [value.values, list(map(str, value.dims)), coords]
    if isinstance(value, Mapping):
        return {str(name): _identity(item) for name, item in value.items()}
    return value


def readable(value: object) -> object:
    """Reduce an input to what is stored with a result: its value, or the key of its content.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import results
    >>> results.readable({"model": "mfcc", "folds": np.array([0, 1])})
    {'model': 'mfcc', 'folds': 'bb97fa6868eb3bac9fd4ded4'}
    """
    if isinstance(value, (Features, Task)):
        return _identity(value)
    if isinstance(value, (xr.DataArray, np.ndarray)):
        return content_key(_identity(value))
    if isinstance(value, Mapping):
        return {str(name): readable(item) for name, item in value.items()}
    return value
