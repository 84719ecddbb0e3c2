"""Where things live, how they are written, and what names their content.

Three folders, each movable by an environment variable:

===================  ==========================  =======================================
variable             default                     holds
===================  ==========================  =======================================
``BRAINBOOK_DATA``   unset                       a read-only mirror of the data sets
``BRAINBOOK_CACHE``  the user's cache folder     downloads, features, executed chapters
``BRAINBOOK_RESULTS``  ``results`` in the project  one netCDF file per result
===================  ==========================  =======================================
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pooch

from .errors import StorageError

__all__ = [
    "atomic_path",
    "cache_dir",
    "content_key",
    "data_mirror",
    "file_sha256",
    "project_root",
    "results_dir",
    "source_sha256",
    "storage_errors",
]

_PACKAGE = Path(__file__).resolve().parent


def project_root() -> Path:
    """Folder of the book: the one that holds ``_toc.yml`` and ``notebooks/``."""
    return _PACKAGE.parent


def cache_dir(*parts: str) -> Path:
    """Folder for everything that can be fetched or computed again."""
    root = os.environ.get("BRAINBOOK_CACHE") or pooch.os_cache("brainbook")
    return Path(root).expanduser().joinpath(*parts)


def results_dir() -> Path:
    """Folder of the result store."""
    root = os.environ.get("BRAINBOOK_RESULTS")
    return Path(root).expanduser() if root else project_root() / "results"


def data_mirror() -> Path | None:
    """Local read-only mirror of the data sets (``BRAINBOOK_DATA``), or None."""
    root = os.environ.get("BRAINBOOK_DATA")
    return Path(root).expanduser().resolve() if root else None


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    Yields a temporary path beside ``target``; on a clean exit it is flushed to disk and
    renamed over ``target``, otherwise removed. Two processes may write one target at once:
    the last rename wins and no reader ever sees half a file.

    Raises
    ------
    StorageError
        When the folder cannot be written or the disk is full.
    """
    target = Path(target)
    temporary = None
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f".{target.stem}-", suffix=".tmp" + target.suffix, dir=target.parent
            )
            os.close(handle)
            temporary = Path(name)
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Say what to do when ``target`` cannot be written.

    Raises
    ------
    StorageError
        In the place of the system's error, when the folder cannot be written or the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk is full: {target} could not be written. "
                f"Free some room under {target.parent} and run again; nothing half-written is used."
            ) from error
        blocked = error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if blocked or isinstance(error, PermissionError):
            raise StorageError(
                f"cannot write to {target.parent} ({error.strerror or error}). Make it "
                "writable, or choose another folder with BRAINBOOK_RESULTS or BRAINBOOK_CACHE."
            ) from error
        raise


@lru_cache(maxsize=1)
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_key(*parts: object) -> str:
    """Name of a piece of content: 24 hexadecimal digits that any change of ``parts`` changes.

    Parameters
    ----------
    *parts
        Strings, numbers, None, NumPy arrays, and sequences or mappings of these. Mappings are
        order-free; sequences are not.
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:24]


def _feed(digest, part: object) -> None:
    if isinstance(part, np.ndarray):
        part = np.ascontiguousarray(part)
        digest.update(f"array {part.dtype.str} {part.shape}".encode())
        flat = part.reshape(-1)
        digest.update(repr(flat.tolist()).encode() if part.dtype.hasobject else flat.view("u1"))
    elif isinstance(part, Mapping):
        digest.update(f"mapping {len(part)}".encode())
        for name in sorted(part, key=str):
            _feed(digest, str(name))
            _feed(digest, part[name])
    elif isinstance(part, (list, tuple, set, frozenset)):
        items = sorted(part, key=str) if isinstance(part, (set, frozenset)) else part
        digest.update(f"sequence {len(items)}".encode())
        for item in items:
            _feed(digest, item)
    else:
        if isinstance(part, np.generic):
            part = part.item()
        if isinstance(part, os.PathLike):
            part = os.fspath(part)
        digest.update(json.dumps(part).encode())
    digest.update(b"\0")


@lru_cache(maxsize=1)
def source_sha256() -> str:
    """Digest of this package's source, so that executed chapters notice a change of code."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
