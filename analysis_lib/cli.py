"""The command ``brainbook``: build the book, run a chapter, see what is there, fetch data."""

import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer
import yaml

from .errors import BrainbookError, ParameterError, StorageError, UnknownNameError
from .paths import atomic_path, cache_dir, data_mirror, project_root, results_dir

app = typer.Typer(
    name="brainbook",
    help="Do better audio representations look more like the brain? An executable book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Listing(StrEnum):
    """What ``brainbook list`` can list."""

    models = "models"
    chapters = "chapters"
    data = "data"
    profiles = "profiles"
    results = "results"


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="How real: demo, natsound or paper.")] = "demo",
    force: Annotated[bool, typer.Option(help="Execute chapters even if nothing changed.")] = False,
):
    """Execute every chapter and render the book to _build/html."""
    from . import execution

    typer.echo(f"open {execution.build_book(profile, force)}")


@app.command()
def run(
    chapter: Annotated[str, typer.Argument(help="Name or number, such as encoding or 02.")],
    parameter: Annotated[
        list[str],
        typer.Option("--parameter", "-p", help="name=value, the value as YAML; may be repeated."),
    ] = [],  # noqa: B006  (typer copies it)
    profile: Annotated[str, typer.Option(help="Where the other parameters come from.")] = "demo",
    out: Annotated[str, typer.Option(help="Where to put the executed notebook.")] = "",
    force: Annotated[bool, typer.Option(help="Execute even if it was executed before.")] = False,
):
    """Execute one chapter with your parameters."""
    from . import execution

    values = {"profile": profile, **dict(_assignment(text) for text in parameter)}
    typer.echo(execution.run(chapter, values, out or None, force))


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.chapters,
    pattern: Annotated[str, typer.Argument(help="Shell pattern on the name.")] = "*",
):
    """Show the chapters with their parameters, the models, data sets, profiles or results."""
    _LISTINGS[what](pattern)


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="A data set, or 'all'.")],
):
    """Download a data set, so that everything else works without a network."""
    from .data import fetch as fetching

    for name in fetching.datasets() if dataset == "all" else [dataset]:
        registry = fetching.registry(name)
        size = sum(entry.n_bytes for entry in registry.entries) / 1e6
        typer.echo(f"{name}: {len(registry.entries)} files, {size:.1f} MB, {registry.licence}")
        typer.echo(f"  in {fetching.fetch(name)}")


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model of the light zoo, or 'all'.")] = "all",
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
):
    """Train the small models of the light zoo, in minutes, on open data."""
    from . import light_zoo, models

    known = models.list_models(kind="trained-here")
    if model != "all" and model not in known:
        raise UnknownNameError("model of the light zoo", model, ["all", *known])
    for name in known if model == "all" else [model]:
        typer.echo(f"{name}: {light_zoo.train(name, seed=seed, device=device)}")


@app.command()
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


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"-p {text}: write it as name=value, such as -p models='[log-mel]'")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParameterError(f"-p {text}: the value is not YAML ({error})") from error


def _list_chapters(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from . import execution

    for name, file in execution.chapters().items():
        if not fnmatchcase(name, pattern):
            continue
        typer.echo(f"{file.stem}")
        for parameter in execution.chapter_parameters(name).values():
            typer.echo(f"    {parameter.name} = {parameter.default!r}  {parameter.help}")


def _list_models(pattern: str) -> None:
    from . import models
    from .models import checkpoints

    rows = [("name", "label", "family", "kind", "layers", "Hz", "MB", "licence", "here and now")]
    for card in map(models.card, models.list_models(pattern)):
        size = f"{card.download_mb:,.0f}" if card.download_mb else "-" * (card.kind != "published")
        rows.append(
            (
                card.name,
                card.label,
                card.family,
                card.kind,
                str(len(card.layers)),
                str(card.sample_rate),
                size or "?",
                card.licence or "-",
                checkpoints.state(card),
            )
        )
    typer.echo(_aligned(rows, right=(4, 5, 6)))


def _aligned(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    """Lay out a table: columns as wide as their longest entry, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _list_data(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from .data import fetch as fetching

    for name in fetching.datasets():
        if fnmatchcase(name, pattern):
            entries = fetching.registry(name).entries
            size = sum(entry.n_bytes for entry in entries) / 1e6
            typer.echo(f"{name:16s}{len(entries):5d} files {size:8.1f} MB")


def _list_profiles(pattern: str) -> None:
    from . import execution

    typer.echo("\n".join(execution.profiles()))


def _list_results(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from . import results

    for name in results.analyses():
        if fnmatchcase(name, pattern):
            typer.echo(f"{name}\n{results.load(name).to_string(index=False)}")


_LISTINGS: dict[Listing, Callable[[str], None]] = {
    Listing.models: _list_models,
    Listing.chapters: _list_chapters,
    Listing.data: _list_data,
    Listing.profiles: _list_profiles,
    Listing.results: _list_results,
}


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
    from .device import available_memory, resolve_device

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
    from .data import fetch as fetching

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


def main() -> None:
    """Entry point: errors on purpose become one line and exit code 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("brainbook").setLevel(os.environ.get("BRAINBOOK_LOG", "INFO"))
    try:
        app()
    except BrainbookError as error:
        typer.echo(f"brainbook: {error}", err=True)
        raise SystemExit(1) from None
