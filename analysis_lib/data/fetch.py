"""Getting data: local mirror first, then the cache, then the network.

A registry per data set (``registry/<data set>.csv``) lists every file with its size, SHA-256 and
place in the public source at a pinned commit. Comment lines at its head give the URL pattern, the
licence and the citation. The mirror ``BRAINBOOK_DATA`` and the cache have one layout,
``<data set>/<file>``.
"""

import csv
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

from ..errors import ChecksumError, MissingDataError, UnknownNameError
from ..paths import atomic_path, cache_dir, data_mirror, file_sha256, storage_errors

__all__ = [
    "Entry",
    "Registry",
    "datasets",
    "fetch",
    "fetch_checkpoint",
    "fetch_url",
    "find",
    "path",
    "registry",
]

log = logging.getLogger("brainbook")
_REGISTRIES = Path(__file__).with_name("registry")
_BLOCK = 1 << 20  # bytes per read of a download


@dataclass(frozen=True)
class Entry:
    """One file of a data set: name in our layout, bytes, checksum, URL."""

    file: str
    n_bytes: int
    sha256: str
    url: str


@dataclass(frozen=True)
class Registry:
    """All files of a data set, and what may be done with them."""

    name: str
    entries: tuple[Entry, ...]
    licence: str
    citation: str

    def matching(self, pattern: str) -> list[Entry]:
        """Entries whose file name matches a shell pattern."""
        return [entry for entry in self.entries if fnmatchcase(entry.file, pattern)]


def datasets() -> list[str]:
    """Names of the data sets that can be fetched file by file."""
    return sorted(file.stem for file in _REGISTRIES.glob("*.csv"))


@lru_cache
def registry(dataset: str) -> Registry:
    """Registry of a data set.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    if dataset not in datasets():
        raise UnknownNameError("data set", dataset, datasets())
    lines = (_REGISTRIES / f"{dataset}.csv").read_text(encoding="utf-8").splitlines()
    head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    entries = tuple(
        Entry(row["file"], int(row["bytes"]), row["sha256"], head["url"].format(path=row["path"]))
        for row in rows
    )
    return Registry(dataset, entries, head.get("licence", "unknown"), head.get("citation", ""))


def fetch(dataset: str, pattern: str = "*") -> Path:
    """Make files of a data set available.

    Parameters
    ----------
    dataset : str
        One of :func:`datasets`.
    pattern : str
        Only files whose name matches this shell pattern.

    Returns
    -------
    Path
        Folder in which they lie, every one with the registered checksum: the mirror if it holds
        them all, otherwise the cache.

    Raises
    ------
    ChecksumError
        When a file in the mirror is not the registered one.
    MissingDataError
        When a file is nowhere and cannot be downloaded.
    """
    wanted = registry(dataset).matching(pattern)
    if not wanted:
        files = [entry.file for entry in registry(dataset).entries]
        raise UnknownNameError(f"file of data set {dataset}", pattern, files)
    mirror, cache = _mirror(dataset), cache_dir("data", dataset)
    mirrored = [entry for entry in wanted if _in_mirror(entry, mirror)]
    if len(mirrored) == len(wanted):
        return mirror
    absent = [entry for entry in wanted if not _is_registered(cache / entry.file, entry)]
    to_copy = [entry for entry in absent if entry in mirrored]
    to_download = [entry for entry in absent if entry not in mirrored]
    for entry in to_copy:
        with atomic_path(cache / entry.file) as temporary:
            shutil.copyfile(mirror / entry.file, temporary)
    if to_download:
        n_bytes = sum(entry.n_bytes for entry in to_download)
        log.info("fetching %d files of %s, %.1f MB", len(to_download), dataset, n_bytes / 1e6)
    for entry in tqdm(to_download, desc=dataset, disable=len(to_download) < 2, leave=False):
        download(entry.url, cache / entry.file, entry.sha256, entry.n_bytes)
    return cache


def path(dataset: str, file: str) -> Path:
    """Path of one file of a data set, fetched if needed. Errors as :func:`fetch`."""
    return fetch(dataset, _literal(file)) / file


def fetch_url(
    dataset: str, file: str, url: str, sha256: str = "", n_bytes: int = 0, source: str = ""
) -> Path:
    """Make one file outside the registries available: ``<data set>/<file>`` in mirror or cache.

    A file whose checksum is not known in advance has it recorded when it first arrives, and is
    compared with that record ever after.

    Parameters
    ----------
    dataset, file : str
        Place in the layout.
    url : str
        Where to download it from; empty if it has to be put there by hand.
    sha256 : str
        Pinned checksum, if known.
    n_bytes : int
        Size, if known.
    source : str
        Where a person finds it, if there is no ``url``.
    """
    target = find(dataset, file)
    if target is None:
        target = cache_dir("data", dataset, file)
        download(url, target, sha256, n_bytes, source)
    _check_recorded(target, f"{dataset}/{file}", sha256)
    return target


def find(dataset: str, file: str) -> Path | None:
    """Path of a file or folder ``<data set>/<file>`` in the mirror or the cache, if it is there."""
    mirror = _mirror(dataset)
    places = [mirror / file] if mirror is not None else []
    return next((p for p in [*places, cache_dir("data", dataset, file)] if p.exists()), None)


def fetch_checkpoint(
    name: str, file: str, source: str, revision: str, sha256: str, megabytes: float
) -> Path:
    """Make a model's published checkpoint available: ``models/<name>/<file>``.

    Parameters are those of a :class:`~analysis_lib.models.ModelCard`; see :func:`fetch_url`.
    """
    if source.startswith("https://huggingface.co/") and file:
        url = f"{source}/resolve/{revision or 'main'}/{file}"
    else:
        url = source if file and source.endswith(file) else ""
    n_bytes = round(megabytes * 1e6)
    return fetch_url(f"models/{name}", file or "checkpoint", url, sha256, n_bytes, source)


def download(url: str, target: Path, sha256: str, n_bytes: int, source: str = "") -> None:
    """Download one file, resuming where an earlier attempt stopped, and check it.

    Processes that want the same file take turns; those that waited find it there.

    Raises
    ------
    StorageError
        When the folder cannot be written or the disk is full.
    MissingDataError
        Says which file, from where, how large, and where to put it by hand.
    ChecksumError
        When what arrived is not the registered file.
    """
    size = f"{n_bytes / 1e6:.1f} MB" if n_bytes else "size unknown"
    by_hand = (
        f"Put the file at {target}, or in the folder BRAINBOOK_DATA under the same name, "
        "and run again."
    )
    if not url:
        origin = f" It is part of what {source} offers." if source else ""
        raise MissingDataError(f"{target.name} ({size}) has no direct download.{origin} {by_hand}")
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_name(".lock")):
                pooch.retrieve(
                    url,
                    known_hash=f"sha256:{sha256}" if sha256 else None,
                    fname=target.name,
                    path=target.parent,
                    downloader=_ResumingDownloader(n_bytes),
                )
    except requests.RequestException as error:
        raise MissingDataError(
            f"{target.name} ({size}) could not be fetched from {url}: "
            f"{type(error).__name__}. {by_hand}"
        ) from error
    except ValueError as error:
        raise ChecksumError(
            f"{url} did not deliver the registered {target.name} (SHA-256 differs); what came was "
            "thrown away. Try again; if it persists, the source has changed."
        ) from error


class _ResumingDownloader:
    """A downloader for pooch that goes on where an interrupted download stopped."""

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        partial = Path(output_file).with_name(f".{url.rsplit('/', 1)[-1]}.part")
        have = partial.stat().st_size if partial.is_file() else 0
        if not (self.n_bytes and have == self.n_bytes):
            self._append(url, partial, have)
        partial.replace(output_file)

    def _append(self, url: str, partial: Path, have: int) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=60) as reply:
            if reply.status_code == requests.codes.requested_range_not_satisfiable and have:
                return self._append(url, partial, 0)  # what is there is no beginning of this file
            reply.raise_for_status()
            resumed = reply.status_code == requests.codes.partial_content
            large = self.n_bytes > 20 * _BLOCK
            with (
                open(partial, "ab" if resumed else "wb") as stream,
                tqdm(total=self.n_bytes, initial=have if resumed else 0, unit="B",
                     unit_scale=True, desc=partial.name, disable=not large, leave=False) as bar,
            ):  # fmt: skip
                for block in reply.iter_content(_BLOCK):
                    stream.write(block)
                    bar.update(len(block))


def _mirror(dataset: str) -> Path | None:
    root = data_mirror()
    return None if root is None else root / dataset


def _in_mirror(entry: Entry, mirror: Path | None) -> bool:
    """Whether the mirror holds a file; a wrong one is an error, never used in silence."""
    if mirror is None or not (mirror / entry.file).is_file():
        return False
    if _sha256_of(mirror / entry.file) != entry.sha256:
        raise ChecksumError(
            f"{mirror / entry.file} is not the registered file (SHA-256 differs), so it was not "
            "used. Replace it, or remove it from the mirror to have it fetched."
        )
    return True


def _is_registered(file: Path, entry: Entry) -> bool:
    """Whether a cached file is whole; a damaged one is set aside and fetched again."""
    if not file.is_file():
        return False
    if _sha256_of(file) == entry.sha256:
        return True
    aside = file.with_name(f"{file.name}.mismatch")
    file.replace(aside)
    log.warning("%s was damaged: set aside as %s, fetching it again", file, aside.name)
    return False


def _sha256_of(file: Path) -> str:
    status = file.stat()
    return _sha256_of_state(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of_state(file: Path, size: int, modified: int) -> str:
    return file_sha256(file)


def _check_recorded(file: Path, label: str, pinned: str) -> None:
    """Compare a file with its pinned checksum, or with the one recorded when it arrived."""
    records = cache_dir("data", "recorded_sha256.json")
    known: Mapping[str, str] = json.loads(records.read_text()) if records.is_file() else {}
    expected = pinned or known.get(label)
    actual = _sha256_of(file)
    if expected is None:
        with atomic_path(records) as temporary:
            temporary.write_text(json.dumps({**known, label: actual}, indent=1, sort_keys=True))
        log.info("recorded the checksum of %s: %s", label, actual)
    elif actual != expected:
        origin = "registered" if pinned else "recorded when it first arrived"
        raise ChecksumError(
            f"{file} differs from the checksum {origin} ({expected[:12]}…), so it was not used. "
            "Remove it and fetch it again."
        )


def _literal(file: str) -> str:
    """Shell pattern that matches one file name and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in file)
