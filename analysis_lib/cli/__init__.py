"""The command ``brainbook``: build the book, run a chapter, see what is there, fetch data."""

import logging
import os

import typer

from ..errors import BrainbookError
from . import chapters, doctor, finetuning, labs, listing, pretraining, store, sweeps

__all__ = ["app", "main"]

app = typer.Typer(
    name="brainbook",
    help="Do better audio representations look more like the brain? An executable book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    chapters.book,
    chapters.pdf,
    chapters.run,
    chapters.fetch,
    chapters.extract,
    chapters.train,
    doctor.doctor,
):
    app.command()(command)
app.command("list")(listing.list_)
app.command()(labs.labs)
app.command()(labs.grade)
app.command()(pretraining.pretrain)
app.command()(finetuning.finetune)
for command in (sweeps.sweep, store.results, store.compare, store.verify, store.clean):
    app.command()(command)
app.command(hidden=True)(sweeps.job)


def main() -> None:
    """Entry point: errors on purpose become one line and exit code 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("brainbook").setLevel(os.environ.get("BRAINBOOK_LOG", "INFO"))
    try:
        app()
    except BrainbookError as error:
        typer.echo(f"brainbook: {error}", err=True)
        raise SystemExit(1) from None
