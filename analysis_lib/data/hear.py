"""Finding tasks: the light ones made here, and those of the HEAR benchmark.

The format is that of :mod:`analysis_lib.data.task_format`, in all of them.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from ..errors import DataError, MissingDataError, UnknownNameError
from ..paths import cache_dir, data_mirror
from . import fetch
from .light_tasks import LIGHT_TASKS, make
from .task_format import Partition, Task, move_into_place, write_task
from .task_reading import read_task

__all__ = ["Partition", "Task", "hear_tasks", "list_tasks", "read_task", "task", "write_task"]

_TABLES = Path(__file__).with_name("tables")


def hear_tasks() -> pd.DataFrame:
    """List the 19 tasks of the HEAR leaderboard, by name, with kind, splits and primary metric."""
    return pd.read_csv(_TABLES / "hear_tasks.csv").set_index("leaderboard_name")


def list_tasks() -> list[str]:
    """Names that :func:`task` knows: the light tasks, then the 19 of HEAR.

    Examples
    --------
    >>> from analysis_lib import data
    >>> "esc10-heldout" in data.list_tasks()
    True
    """
    return [*LIGHT_TASKS, *hear_tasks().index]


def task(name_or_path: str | Path) -> Task:
    """Find a task by name or folder.

    Light tasks are made on first use, in the cache. The tasks of HEAR are looked for as
    ``hear/<folder>`` below ``BRAINBOOK_DATA``, then in the cache; the six of Pepino et al.
    (2025) are fetched from their public record (48 kHz, ~70 GB in all).

    Raises
    ------
    UnknownNameError
        With the nearest names.
    MissingDataError
        When its data are not here and cannot be fetched.

    Examples
    --------
    >>> from analysis_lib import data
    >>> data.task("demo-scene")
    Task(demo-scene: 80 clips, 4 labels, scene, multiclass, splits fold00, fold01, ...
    """
    name = str(name_or_path)
    if name in LIGHT_TASKS:
        return read_task(make(name), name=name)
    if (Path(name) / "task_metadata.json").is_file():
        return read_task(name)
    known = hear_tasks()
    by_folder = {row.task_dir: leaderboard for leaderboard, row in known.iterrows()}
    name = by_folder.get(name, name)
    if name in known.index:
        return read_task(_hear_folder(known.loc[name, "task_dir"]), name=name)
    if Path(name_or_path).is_dir():
        raise MissingDataError(f"{name_or_path} is no task: it has no task_metadata.json")
    raise UnknownNameError("task", name, list_tasks())


def _hear_folder(task_dir: str) -> Path:
    """Folder of a HEAR task, unpacked if need be."""
    mirror, unpacked = data_mirror(), cache_dir("data", "hear", task_dir)
    for folder in (mirror / "hear" / task_dir if mirror else None, unpacked):
        if folder is not None and (folder / "task_metadata.json").is_file():
            return folder
    archives = pd.read_csv(_TABLES / "hear_archives.csv", dtype={"sha256": str}).fillna("")
    row = archives[archives["task_dir"] == task_dir]
    if row.empty:
        raise MissingDataError(
            f"HEAR task {task_dir} is not here. Unpack its 48 kHz archive from "
            f"https://zenodo.org/records/6332517 so that {unpacked}/task_metadata.json exists "
            "(or the same below BRAINBOOK_DATA/hear), and run again."
        )
    row = row.iloc[0]
    n_bytes = int(row["bytes"] or 0)
    archive = fetch.fetch_url("hear", row["archive"], row["url"], row["sha256"], n_bytes)
    return _unpack(archive, unpacked)


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the one task of an archive; nothing lands outside ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(work, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"{archive} cannot be unpacked: {error}. Remove it and fetch it again."
            ) from error
        roots = [path.parent for path in work.rglob("task_metadata.json")]
        if len(roots) != 1:
            raise DataError(f"{archive} holds {len(roots)} tasks; one was expected")
        move_into_place(roots[0], folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
