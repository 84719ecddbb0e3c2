"""Downloading one file: resumed, checked, by one process at a time."""

from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

from ..errors import ChecksumError, MissingDataError
from ..paths import storage_errors

__all__ = ["download"]

_BLOCK = 1 << 20  # bytes per read of a download


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
