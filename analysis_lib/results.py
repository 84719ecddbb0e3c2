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

__all__ = ["analyses", "cached", "load", "open", "provenance", "save"]

log = logging.getLogger("brainbook")

_FINISHED = "[!.]*.nc"  # a killed run may leave a hidden, unfinished file
_HOW_NOT_WHAT = ("device", "n_targets_batch", "progress")
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
        Loaded in memory; ``attrs`` hold ``key``, ``parameters`` and ``provenance``.
    """
    inputs = {name: value for name, value in arguments.items() if name not in _HOW_NOT_WHAT}
    key = content_key(
        analysis,
        f"{function.__module__}.{function.__qualname__}",
        getattr(sys.modules[function.__module__], "ALGORITHM_VERSION", 1),
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
    parameters = {name: _readable(value) for name, value in inputs.items()}
    result = result.assign_attrs(
        analysis=analysis,
        key=key,
        parameters=json.dumps({**parameters, **(about or {})}),
        provenance=json.dumps(history),
    )
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
        result.to_netcdf(temporary, engine="h5netcdf")
    return path


def open(analysis: str, key: str) -> xr.Dataset:
    """Read one result by its key.

    Raises
    ------
    UnknownNameError
        When there is no such result.
    DataError
        When the file is not readable.
    """
    path = _path(analysis, key)
    if not path.is_file():
        known = [file.stem for file in path.parent.glob(_FINISHED)]
        raise UnknownNameError(f"{analysis} result", key, known)
    try:
        with xr.open_dataset(path, engine="h5netcdf") as stored:
            return stored.load()
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable result ({error}). Remove it and run again."
        ) from error


def analyses() -> list[str]:
    """Names of the analyses that have results in the store."""
    return sorted({file.parent.name for file in results_dir().glob(f"*/{_FINISHED}")})


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
    """
    if analysis not in analyses():
        raise UnknownNameError("analysis in the result store", analysis, analyses())
    rows = []
    for path in sorted((results_dir() / analysis).glob(_FINISHED)):
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
    """How a result comes about here and now: versions, machine, commit, time, memory."""
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


def _readable(value: object) -> object:
    """Reduce an input to what is stored for people to read and filter by."""
    if isinstance(value, (Features, Task)):
        return _identity(value)
    if isinstance(value, (xr.DataArray, np.ndarray)):
        return content_key(_identity(value))
    if isinstance(value, Mapping):
        return {str(name): _readable(item) for name, item in value.items()}
    return value
