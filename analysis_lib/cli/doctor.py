"""The command that finds out what is not in order."""

import os
import platform
import shutil
import sys

import typer

from ..errors import BrainbookError, StorageError
from ..paths import atomic_path, cache_dir, data_mirror, project_root, results_dir


def doctor():
    """Check Python, packages, device, disk, data and cache, and say what to do if not in order."""
    checks = (_python, _packages, _device, _disk, _cache, _results, _data)
    failed = 0
    for check in checks:
        try:
            line = f"ok    {check()}"
        except BrainbookError as error:
            line, failed = f"MEND  {error}", failed + 1
        typer.echo(line)
    if failed:
        raise typer.Exit(1)


def _python() -> str:
    return f"Python {platform.python_version()} ({sys.executable})"


def _packages() -> str:
    from importlib.metadata import PackageNotFoundError, version

    wrong = []
    pins = [
        line.split("==")
        for line in (project_root() / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    for name, pinned in pins:
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if installed != pinned:
            wrong.append(f"{name} {installed} (pinned {pinned})")
    if wrong:
        raise BrainbookError(
            f"{len(wrong)} of {len(pins)} packages differ from requirements.txt: "
            f"{', '.join(wrong[:5])}. Run make env."
        )
    return f"{len(pins)} packages at their pinned versions"


def _device() -> str:
    from ..device import available_memory, resolve_device

    device = resolve_device("auto")
    return f"device {device}, {available_memory(device) / 1e9:.1f} GB of memory free"


def _disk() -> str:
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < 2:
        raise BrainbookError(
            f"{free:.1f} GB free under {folder}; the real profile wants 2 GB. Free some, or set "
            "BRAINBOOK_CACHE to another disk."
        )
    return f"disk: {free:.0f} GB free under {folder}"


def _writable(folder, variable: str) -> str:
    probe = folder / f".probe-{os.getpid()}"
    try:
        with atomic_path(probe) as temporary:
            temporary.write_text("")
        probe.unlink()
    except StorageError as error:
        raise BrainbookError(f"{error} ({variable})") from error
    return str(folder)


def _cache() -> str:
    folder = _writable(cache_dir(), "BRAINBOOK_CACHE")
    features = len(list(cache_dir("features").glob("*/finished.json")))
    chapters = len(list(cache_dir("chapters").glob("*.ipynb")))
    return f"cache {folder}: {features} feature sets, {chapters} executed chapters"


def _results() -> str:
    folder = _writable(results_dir(), "BRAINBOOK_RESULTS")
    return f"results {folder}: {len(list(results_dir().glob('*/[!.]*.nc')))} stored"


def _data() -> str:
    from ..data import fetch as fetching

    mirror = data_mirror()
    if mirror is not None and not mirror.is_dir():
        raise BrainbookError(f"BRAINBOOK_DATA={mirror} is not a folder: unset it or correct it")
    states = []
    for name in fetching.datasets():
        entries = fetching.registry(name).entries
        here = sum(
            (cache_dir("data", name) / entry.file).is_file()
            or (mirror is not None and (mirror / name / entry.file).is_file())
            for entry in entries
        )
        state = "all here" if here == len(entries) else f"{here} of {len(entries)} files"
        states.append(f"{name} {state}")
    origin = f"mirror {mirror}" if mirror else "no mirror"
    return f"data ({origin}): {'; '.join(states)}; brainbook fetch <data set> gets the rest"
