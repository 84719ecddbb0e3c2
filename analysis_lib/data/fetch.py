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
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import requests
from tqdm.auto import tqdm

from ..errors import ChecksumError, MissingDataError, UnknownNameError
from ..paths import atomic_path, cache_dir, data_mirror, file_sha256
from .download import download

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
_HUB = "https://huggingface.co"


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

    Raises
    ------
    ChecksumError
        When a file in the mirror, or what the source delivers, is not the file that is meant. A
        wrong file in the cache is set aside and fetched again.
    MissingDataError
        When the file is nowhere and cannot be downloaded.
    """
    label, target = f"{dataset}/{file}", find(dataset, file)
    expected, origin = _expected(label, sha256)
    if target is not None and expected not in (None, _sha256_of(target)):
        differs = f"{target} differs from the checksum {origin} ({expected[:12]}…)"
        if not target.is_relative_to(cache_dir("data")):
            raise ChecksumError(
                f"{differs}, so it was not used. Replace it, or remove it from the mirror."
            )
        aside = _set_aside(target)
        if not url:
            raise ChecksumError(
                f"{differs}, so it was set aside as {aside.name} and not used. Put the right file "
                "in its place."
            )
        log.warning("%s: set aside as %s, fetching it again", differs, aside.name)
        target = None
    if target is None:
        target = cache_dir("data", dataset, file)
        download(url, target, sha256, n_bytes, source)
    if expected is None:
        _record(label, _sha256_of(target))
    elif _sha256_of(target) != expected:
        aside = _set_aside(target)
        raise ChecksumError(
            f"{url} delivers another {target.name} than before: it differs from the checksum "
            f"{origin} ({expected[:12]}…), so it was set aside as {aside.name} and not used. The "
            f"source has changed; to accept what it has now, remove {label!r} from "
            f"{_records()} and run again."
        )
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

    Parameters are those of a :class:`~analysis_lib.models.ModelCard`; see :func:`fetch_url`. Of a
    repository on the Hugging Face hub the file may lie in any folder: it is asked for at the root,
    then looked for by its name in the repository's list of files.

    Raises
    ------
    MissingDataError
        Says where it was looked for.
    """
    dataset, n_bytes = f"models/{name}", round(megabytes * 1e6)
    on_hub = source.startswith(f"{_HUB}/") and bool(file)
    if not on_hub:
        url = source if file and source.endswith(file) else ""
        return fetch_url(dataset, file or "checkpoint", url, sha256, n_bytes, source)
    url = f"{source}/resolve/{revision or 'main'}/{file}"
    try:
        return fetch_url(dataset, file, url, sha256, n_bytes, source)
    except MissingDataError as error:
        reply = getattr(error.__cause__, "response", None)
        if reply is None or reply.status_code != requests.codes.not_found:
            raise
        places = [path for path in _hub_files(source, revision) if path.endswith(f"/{file}")]
        if len(places) != 1:
            found = f"in several: {', '.join(places)}" if places else "in none"
            raise MissingDataError(
                f"{file} is not at {url}, and of the other folders of {source} it is {found}. Put "
                f"the file at {cache_dir('data', dataset, file)}, or in the folder "
                "BRAINBOOK_DATA under the same name, and run again."
            ) from error
    log.info("%s is not at the root of %s; taking %s", file, source, places[0])
    url = f"{source}/resolve/{revision or 'main'}/{quote(places[0])}"
    return fetch_url(dataset, file, url, sha256, n_bytes, source)


def _hub_files(source: str, revision: str) -> list[str]:
    """Paths of all files of a repository on the hub; empty where the hub does not say."""
    repository = source.removeprefix(f"{_HUB}/")
    url = f"{_HUB}/api/models/{repository}/tree/{revision or 'main'}?recursive=true"
    paths = []
    try:
        while url:
            reply = requests.get(url, timeout=60)
            reply.raise_for_status()
            paths += [entry["path"] for entry in reply.json() if entry["type"] == "file"]
            url = reply.links.get("next", {}).get("url")
    except (requests.RequestException, ValueError) as error:
        log.warning("the files of %s could not be listed: %s", source, error)
    return paths


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
    log.warning("%s was damaged: set aside as %s, fetching it again", file, _set_aside(file).name)
    return False


def _set_aside(file: Path) -> Path:
    """Rename a file that is not what it should be, so that nothing takes it for that again."""
    return file.replace(file.with_name(f"{file.name}.mismatch"))


def _sha256_of(file: Path) -> str:
    status = file.stat()
    return _sha256_of_state(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of_state(file: Path, size: int, modified: int) -> str:
    return file_sha256(file)


def _records() -> Path:
    return cache_dir("data", "recorded_sha256.json")


def _expected(label: str, pinned: str) -> tuple[str | None, str]:
    """Checksum that a file must have, if one is known, and where it is known from."""
    if pinned:
        return pinned, "registered"
    known = json.loads(_records().read_text()) if _records().is_file() else {}
    return known.get(label), "recorded when it first arrived"


def _record(label: str, sha256: str) -> None:
    known = json.loads(_records().read_text()) if _records().is_file() else {}
    with atomic_path(_records()) as temporary:
        temporary.write_text(json.dumps({**known, label: sha256}, indent=1, sort_keys=True))
    log.info("recorded the checksum of %s: %s", label, sha256)


def _literal(file: str) -> str:
    """Shell pattern that matches one file name and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in file)
