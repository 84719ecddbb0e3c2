"""How much room results and cache take, and what in them can never be used again."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import nbformat
import pandas as pd

from . import execution, results
from .errors import BrainbookError, DataError
from .models.cards import all_cards
from .models.registry import family_class
from .paths import cache_dir, results_dir, source_sha256

__all__ = ["Orphan", "orphans", "remove", "sizes"]

_LITTER_AGE = 24 * 3600.0  # seconds after which an unfinished file is nobody's work any more


@dataclass(frozen=True)
class Orphan:
    """A file or folder that nothing will use again.

    Attributes
    ----------
    path : Path
    reason : str
    n_bytes : int
    """

    path: Path
    reason: str
    n_bytes: int


def sizes() -> pd.DataFrame:
    """Measure the folders of results and cache.

    Returns
    -------
    DataFrame
        ``folder``, ``files`` and ``mb``: a row per folder, the largest first.
    """
    rows = []
    for root in (results_dir(), cache_dir()):
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            files = [file for file in folder.rglob("*") if file.is_file()]
            n_bytes = sum(file.stat().st_size for file in files)
            rows.append((str(folder), len(files), n_bytes / 1e6))
    table = pd.DataFrame(rows, columns=["folder", "files", "mb"])
    return table.sort_values("mb", ascending=False, ignore_index=True)


def orphans(unused: bool = False) -> list[Orphan]:
    """Find what can never be used again: its key is not one that would be asked for.

    Features of a model of the zoo whose code or card has changed, results of an earlier version
    of an analysis, chapters executed with other sources, receipts of jobs planned with other
    sources, and what killed runs left unfinished more than a day ago.

    Parameters
    ----------
    unused : bool
        Features that no stored result was made from as well. They could be used again, but
        nothing here needs them.

    Returns
    -------
    list of Orphan
    """
    found = [*_old_features(unused), *_old_results(), *_old_chapters(), *_old_jobs(), *_litter()]
    return [Orphan(path, reason, _size(path)) for path, reason in found]


def remove(found: list[Orphan]) -> int:
    """Remove orphans, and give back the number of bytes that this freed."""
    for orphan in found:
        if orphan.path.is_dir():
            shutil.rmtree(orphan.path)
        else:
            orphan.path.unlink(missing_ok=True)
    return sum(orphan.n_bytes for orphan in found)


def _old_features(unused: bool) -> Iterator[tuple[Path, str]]:
    used = _used_features() if unused else None
    for finished in sorted(cache_dir("features").glob("*/finished.json")):
        made_by = json.loads(finished.read_text())
        reason = _outdated(made_by)
        if reason is None and used is not None and finished.parent.name not in used:
            reason = "no stored result was made from it"
        if reason is not None:
            yield finished.parent, f"features of {made_by['model']}: {reason}"


def _outdated(made_by: Mapping) -> str | None:
    """Why features would not be found again, or None; only the zoo's own models are judged."""
    card = all_cards().get(made_by["model"])
    if card is None:
        return None
    family = family_class(card.family)
    if made_by.get("class") != family.__name__:
        return None
    if made_by["code_version"] != family.code_version:
        return f"made by code version {made_by['code_version']}, it is {family.code_version} now"
    if made_by["options"] != repr(sorted(card.options.items())):
        return "the model has other options now"
    return None


def _used_features() -> set[str]:
    """Keys of features that stored results were made from."""
    used = set()
    for stored in _stored():
        arguments = json.loads(stored.attrs["provenance"]).get("arguments", {})
        used |= {value for value in arguments.values() if isinstance(value, str)}
    return used


def _old_results() -> Iterator[tuple[Path, str]]:
    for stored in _stored():
        history = json.loads(stored.attrs["provenance"])
        module, _, name = history.get("function", "").rpartition(".")
        if not module.startswith("analysis_lib."):
            continue
        path = results_dir() / stored.attrs["analysis"] / f"{stored.attrs['key']}.nc"
        try:
            there = import_module(module)
        except ImportError:
            there = None
        if not hasattr(there, name):
            yield path, f"{history['function']} is gone"
        elif getattr(there, "ALGORITHM_VERSION", 1) != history["algorithm_version"]:
            yield path, "made by an earlier version of the analysis"


def _stored() -> Iterator:
    """Every result of the store that can be read."""
    for path in sorted(results_dir().glob(f"*/{results.FINISHED}")):
        try:
            yield results.read(path)
        except DataError:
            continue


def _old_chapters() -> Iterator[tuple[Path, str]]:
    for path in sorted(cache_dir("chapters").glob("*.ipynb")):
        if path.name.endswith(".failed.ipynb"):
            continue
        record = nbformat.read(path, 4).metadata.get("brainbook", {})
        try:
            current = execution.executed_path(record["chapter"], record["parameters"])
        except (BrainbookError, KeyError):
            current = None
        if current != path:
            yield path, "executed with other sources"


def _old_jobs() -> Iterator[tuple[Path, str]]:
    for root in (cache_dir("jobs"), results_dir() / "jobs"):
        for path in sorted(root.glob("*.json")):
            if json.loads(path.read_text()).get("source") != source_sha256():
                yield path, "a receipt of a job planned with other sources"


def _litter() -> Iterator[tuple[Path, str]]:
    """Files that killed runs left under a temporary name, and feature sets never finished."""
    before = time.time() - _LITTER_AGE
    for root in (results_dir(), cache_dir()):
        for path in root.rglob(".*.tmp*") if root.is_dir() else []:
            if path.stat().st_mtime < before:
                yield path, "left unfinished"
    for folder in cache_dir("features").glob("*"):
        newest = max((p.stat().st_mtime for p in [folder, *folder.rglob("*")]), default=0)
        if not (folder / "finished.json").is_file() and newest < before:
            yield folder, "features left unfinished"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
