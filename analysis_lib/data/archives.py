"""Unpacking tar archives that nobody here has made."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..errors import DataError
from ..paths import atomic_path

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Unpack some files of a tar archive.

    Every entry is looked at before the first byte is written: one that would leave the folder,
    or is a link or a device, makes the whole archive refused.

    Parameters
    ----------
    archive : path
        A tar file, compressed or not.
    folder : path
        Where to put the files, under their names in the archive.
    wanted : callable of str to bool
        Which files, by name.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    DataError
        When the archive is unsafe, damaged or cut short.
    """
    folder = Path(folder)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                _refuse_unsafe(member, archive)
            written = []
            for member in members:
                if member.isfile() and wanted(member.name):
                    with (
                        tar.extractfile(member) as source,
                        atomic_path(folder / member.name) as temporary,
                        open(temporary, "wb") as target,
                    ):
                        shutil.copyfileobj(source, target)
                    written.append(folder / member.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise DataError(
            f"{archive} is cut short or not a tar archive ({error}). Remove it and fetch it again."
        ) from error
    return written


def _refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in name.parts[0]:
        reason = "would be written outside its folder"
    elif not (member.isfile() or member.isdir()):
        reason = "is a link or a device"
    else:
        return
    raise DataError(
        f"{archive} was refused: its entry {member.name!r} {reason}. "
        "Take the archive from its original source."
    )
