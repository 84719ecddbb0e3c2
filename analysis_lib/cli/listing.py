"""The command that shows what there is."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer


class Listing(StrEnum):
    """What ``brainbook list`` can list."""

    models = "models"
    chapters = "chapters"
    data = "data"
    profiles = "profiles"
    results = "results"


def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.chapters,
    pattern: Annotated[str, typer.Argument(help="Shell pattern on the name.")] = "*",
):
    """Show the chapters with their parameters, the models, data sets, profiles or results."""
    _LISTINGS[what](pattern)


def _list_chapters(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from .. import execution

    for name, file in execution.chapters().items():
        if not fnmatchcase(name, pattern):
            continue
        typer.echo(f"{file.stem}")
        for parameter in execution.chapter_parameters(name).values():
            typer.echo(f"    {parameter.name} = {parameter.default!r}  {parameter.help}")


def _list_models(pattern: str) -> None:
    from .. import models
    from ..models import checkpoints

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
    typer.echo(aligned(rows, right=(4, 5, 6)))


def aligned(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
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

    from ..data import fetch as fetching

    for name in fetching.datasets():
        if fnmatchcase(name, pattern):
            entries = fetching.registry(name).entries
            size = sum(entry.n_bytes for entry in entries) / 1e6
            typer.echo(f"{name:16s}{len(entries):5d} files {size:8.1f} MB")


def _list_profiles(pattern: str) -> None:
    from .. import execution

    typer.echo("\n".join(execution.profiles()))


def _list_results(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from .. import results

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
