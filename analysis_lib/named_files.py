"""The files of one's own that the values of parameters name: data, a model, weights."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .data.own import files_of

__all__ = ["named_files"]


def named_files(values: Mapping[str, object], root: Path) -> dict[str, list[tuple]]:
    """Find out which files a run depends on besides the package, and in which state they are.

    Parameters
    ----------
    values : mapping of str to value
        Of a chapter's parameters. A text, or an entry of a list, names a file if it is the path
        of one: ``mine.nc`` (and the audio that belongs to it), ``my_model.py:function``,
        ``hf:some/folder``.
    root : path
        Where relative paths begin.

    Returns
    -------
    dict of str to list of (path, size, time)
        By the text. Time in nanoseconds, of the last change.
    """
    found = {}
    for text in _texts(values.values()):
        name = re.sub(r"(?<=\.py):\w+$", "", text.removeprefix("hf:"))
        path = root / Path(name).expanduser()
        is_path = "/" in name or path.suffix in (".nc", ".py", ".safetensors")
        if not is_path or not path.exists():
            continue
        if path.suffix == ".nc":
            files = files_of(path)
        else:
            files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        found[text] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return found


def _texts(values: Iterable[object]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _texts(value)
