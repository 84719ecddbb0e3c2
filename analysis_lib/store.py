"""The result store as a whole: a table, two stores compared, results computed again."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from . import data, extraction, results
from .errors import BrainbookError, DataError, ParameterError, UnknownNameError
from .paths import results_dir

__all__ = ["Difference", "compare", "compare_stores", "export", "table", "verify"]

TOLERANCE = 1e-5  # of a number, relative to the largest of its array: another machine's rounding
# What the data do not determine: where the penalty no longer matters, rounding chooses it.
_UNDETERMINED = ("alpha",)


def table(analysis: str | None = None, **filters) -> pd.DataFrame:
    """List the stored results of one analysis or all.

    Parameters
    ----------
    analysis : str, optional
        One of :func:`analysis_lib.results.analyses`.
    **filters
        Parameter values that a result must have, such as ``model="log-mel"``.

    Returns
    -------
    DataFrame
        As :func:`analysis_lib.results.load`, with the column ``analysis`` first.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results, store
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> store.table()[["analysis", "model", "mean_score"]]
      analysis model  mean_score
    0     demo  mfcc         0.2
    """
    names = results.analyses() if analysis is None else [analysis]
    parts = [results.load(name, **filters).assign(analysis=name) for name in names]
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame({"analysis": []})
    joined = pd.concat(parts, ignore_index=True)
    return joined[["analysis", *joined.columns.drop("analysis")]]


def export(listed: pd.DataFrame, path: str | Path) -> Path:
    """Write a table of results as CSV or Parquet, by the end of the name.

    Raises
    ------
    ParameterError
        For another ending, or where Parquet cannot be written here.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results, store
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> store.export(store.table(), "all.csv").read_text().split(",")[0]
    'analysis'
    """
    path = Path(path)
    plain = listed.map(lambda v: json.dumps(v) if isinstance(v, (list, dict)) else v)
    if path.suffix == ".csv":
        plain.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        try:
            plain.to_parquet(path, index=False)
        except ImportError as error:
            raise ParameterError(
                "Parquet needs the package pyarrow: pip install pyarrow, or export to .csv"
            ) from error
    else:
        raise ParameterError(f"{path}: the name must end in .csv or .parquet")
    return path


@dataclass(frozen=True)
class Difference:
    """What differs between two results.

    Attributes
    ----------
    inputs, versions : mapping of str to (object, object)
        Parameters, and versions of packages, Python and commit, that are not equal.
    numbers : mapping of str to float
        For each array that is not identical, the largest difference relative to the largest
        number of the first; infinite where shape, names or text differ.

    Examples
    --------
    >>> from analysis_lib import store
    >>> difference = store.Difference(inputs={}, versions={}, numbers={"score": 1e-7})
    >>> difference.verdict
    'equal to rounding'
    >>> print(difference)
    numbers: equal to rounding
      score: up to 1e-07
    inputs: the same
    versions: the same
    """

    inputs: Mapping[str, tuple]
    versions: Mapping[str, tuple]
    numbers: Mapping[str, float]

    @property
    def verdict(self) -> str:
        """``"identical"``, ``"equal to rounding"`` or ``"differs"``."""
        if not self.numbers:
            return "identical"
        decisive = [n for name, n in self.numbers.items() if name not in _UNDETERMINED]
        return "equal to rounding" if max(decisive, default=0) <= TOLERANCE else "differs"

    def __str__(self) -> str:
        lines = [f"numbers: {self.verdict}"]
        lines += [f"  {name}: up to {size:.2g}" for name, size in self.numbers.items()]
        for title, pairs in (("inputs", self.inputs), ("versions", self.versions)):
            lines.append(f"{title}: {'differ' if pairs else 'the same'}")
            lines += [f"  {name}: {a!r} | {b!r}" for name, (a, b) in pairs.items()]
        return "\n".join(lines)


def compare(a: xr.Dataset, b: xr.Dataset) -> Difference:
    """Compare two results: their inputs, the versions they were made with, their numbers.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results, store
    >>> paths = [
    ...     results.save(xr.Dataset({"score": ("target", values)}), "demo", model="mfcc")
    ...     for values in ([0.1, 0.4], [0.1, 0.3])
    ... ]
    >>> difference = store.compare(*map(results.read, paths))
    >>> difference.verdict, round(difference.numbers["score"], 6)
    ('differs', 0.25)
    """
    histories = [json.loads(result.attrs["provenance"]) for result in (a, b)]
    made_with = [
        {"python": h["python"], "commit": h["commit"], "device": h.get("device"), **h["versions"]}
        for h in histories
    ]
    inputs = [json.loads(result.attrs["parameters"]) for result in (a, b)]
    names = [name for name in {**a.variables, **b.variables}]
    sizes = {str(name): _distance(a.variables.get(name), b.variables.get(name)) for name in names}
    return Difference(
        _unequal(*inputs), _unequal(*made_with), {n: s for n, s in sizes.items() if s > 0}
    )


def compare_stores(a: str | Path, b: str | Path) -> pd.DataFrame:
    """Compare two result stores, such as that of a cluster with that of a laptop.

    Parameters
    ----------
    a, b : path
        Folders of result stores.

    Returns
    -------
    DataFrame
        A row per result: ``analysis``, ``key``, ``model``, ``on`` (data set or task),
        ``verdict`` (``"only in a"``, ``"only in b"``, or that of :class:`Difference`), the
        ``largest`` difference, and the names of the ``versions`` that differ.

    Raises
    ------
    DataError
        When a folder is no store, or a result in it is damaged.

    Examples
    --------
    >>> import shutil
    >>> import xarray as xr
    >>> from analysis_lib import results, store
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> for folder in ("laptop", "cluster"):
    ...     copied = shutil.copytree(path.parent, f"{folder}/demo")
    ...
    >>> store.compare_stores("laptop", "cluster")[["analysis", "model", "verdict"]]
      analysis model    verdict
    0     demo  mfcc  identical
    """
    stores = [_files(Path(folder)) for folder in (a, b)]
    rows = []
    for name in sorted({**stores[0], **stores[1]}):
        here = [store.get(name) for store in stores]
        read = [results.read(path) for path in here if path is not None]
        row = _about(read[0])
        if len(read) < 2:
            rows.append({**row, "verdict": f"only in {'ab'[here[0] is None]}"})
            continue
        found = compare(*read)
        largest = max(found.numbers.values(), default=0.0)
        versions = ", ".join(found.versions)
        rows.append({**row, "verdict": found.verdict, "largest": largest, "versions": versions})
    columns = ["analysis", "key", "model", "on", "verdict", "largest", "versions"]
    return pd.DataFrame(rows, columns=columns)


def verify(sample: int | None = None, analysis: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Compute a sample of the stored results again, and compare.

    The digest of every file is checked. Inputs are found by the names that a result carries and
    used only if their content is that which the result was made from; features are taken from
    the cache where they are there.

    Parameters
    ----------
    sample : int, optional
        How many to compute again; by default all.
    analysis : str, optional
        Only results of one analysis.
    seed : int
        Decides which.

    Returns
    -------
    DataFrame
        A row per result: ``analysis``, ``key``, ``model``, ``on``, ``file`` (``"intact"``,
        ``"changed"``, or ``"no digest"`` for those of earlier versions), ``again`` (the verdict
        of :class:`Difference`, or why it could not be computed, or empty outside the sample).
        Column ``as_stored`` is False where the file is changed or the numbers differ.

    Examples
    --------
    >>> import xarray as xr
    >>> from analysis_lib import results, store
    >>> path = results.save(xr.Dataset({"score": ("target", [0.1, 0.3])}), "demo", model="mfcc")
    >>> store.verify(sample=0)[["analysis", "model", "file", "as_stored"]]
      analysis model    file  as_stored
    0     demo  mfcc  intact       True
    """
    if analysis is not None and analysis not in results.analyses():
        raise UnknownNameError("analysis in the result store", analysis, results.analyses())
    paths = [p for p in _files(results_dir()).values() if analysis in (None, p.parent.name)]
    size = len(paths) if sample is None else min(sample, len(paths))
    chosen = set(np.random.default_rng(seed).permutation(len(paths))[:size])
    rows = []
    for i, path in enumerate(paths):
        try:
            stored = results.read(path)
        except DataError:
            row = {"analysis": path.parent.name, "key": path.stem, "file": "changed"}
            rows.append({**row, "again": "", "as_stored": False})
            continue
        again = _again(stored) if i in chosen else ""
        state = "intact" if "digest" in stored.attrs else "no digest"
        rows.append(
            {**_about(stored), "file": state, "again": again, "as_stored": again != "differs"}
        )
    columns = ["analysis", "key", "model", "on", "file", "again", "as_stored"]
    return pd.DataFrame(rows, columns=columns)


def _again(stored: xr.Dataset) -> str:
    """Compute a result again; the verdict, or why it cannot be done."""
    history = json.loads(stored.attrs["provenance"])
    module, _, name = history.get("function", "").rpartition(".")
    if not module.startswith("analysis_lib."):
        return "not possible: it does not say by which function of this package it was made"
    function = getattr(import_module(module), name, None)
    version = getattr(import_module(module), "ALGORITHM_VERSION", 1)
    if function is None or version != history["algorithm_version"]:
        return "not possible: it was made by another version of the analysis"
    about = json.loads(stored.attrs["parameters"])
    arguments = {}
    for argument, identity in history["arguments"].items():
        if argument not in _SOURCES:
            arguments[argument] = identity
            continue
        try:
            arguments[argument] = _input(argument, identity, about)
        except BrainbookError as error:
            return f"not possible: {error}"
    return compare(stored, function(**arguments).assign_attrs(stored.attrs)).verdict


def _input(argument: str, identity: object, about: Mapping) -> object:
    """Input of a result, by name, if it has the content that the result was made from."""
    try:
        for candidate in _SOURCES[argument](about):
            if results.readable(candidate) == identity:
                return candidate
    except KeyError as error:
        raise DataError(f"the result does not name its {error}") from None
    raise DataError(f"no {argument} of that content ({identity}) can be found by name")


def _features(about: Mapping) -> Iterator[object]:
    on = data.sounds(about["dataset"]) if "dataset" in about else data.task(about["task"]).sounds()
    yield extraction.features(about["model"], on)


def _responses(about: Mapping) -> Iterator[object]:
    yield data.responses(about["dataset"])


def _folds(about: Mapping) -> Iterator[object]:
    for name in ("auto", "stratified"):
        yield data.folds(name, data.sounds(about["dataset"]))


def _splits(about: Mapping) -> Iterator[object]:
    yield data.splits("tuckute", data.sounds(about["dataset"]))


def _task(about: Mapping) -> Iterator[object]:
    yield data.task(about["task"])


# Where the inputs of an analysis come from, given what a result is about.
_SOURCES: Mapping[str, Callable[[Mapping], Iterator[object]]] = {
    "features": _features,
    "model": _features,
    "responses": _responses,
    "folds": _folds,
    "splits": _splits,
    "task": _task,
}


def _files(folder: Path) -> dict[str, Path]:
    """List the result files of a store, by analysis and key."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not the folder of a result store")
    found = sorted(folder.glob(f"*/{results.FINISHED}"))
    return {f"{path.parent.name}/{path.stem}": path for path in found}


def _about(result: xr.Dataset) -> dict:
    about = json.loads(result.attrs["parameters"])
    on = about.get("dataset", about.get("task", ""))
    names = {"analysis": result.attrs["analysis"], "key": result.attrs["key"]}
    return {**names, "model": about.get("model", ""), "on": on}


def _unequal(a: Mapping, b: Mapping) -> dict[str, tuple]:
    names = sorted({**a, **b})
    return {n: (a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)}


def _distance(a: xr.Variable | None, b: xr.Variable | None) -> float:
    """Largest difference of two arrays, relative to the largest number of the first."""
    if a is None or b is None or a.dims != b.dims or a.shape != b.shape:
        return np.inf
    x, y = a.values, b.values
    if x.dtype.kind not in "biufc" or y.dtype.kind not in "biufc":
        return 0.0 if [*map(str, x.ravel())] == [*map(str, y.ravel())] else np.inf
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        return np.inf
    x, y = (np.nan_to_num(array.astype(float)) for array in (x, y))
    gap = np.abs(x - y).max(initial=0.0)
    return float(gap / (np.abs(x).max(initial=0.0) or 1.0))
