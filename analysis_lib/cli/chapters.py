"""Commands that build the book, run a chapter, and bring what they need."""

from typing import Annotated

import typer
import yaml

from ..errors import ParameterError, UnknownNameError


def book(
    profile: Annotated[str, typer.Option(help="How real: demo, natsound or paper.")] = "demo",
    force: Annotated[bool, typer.Option(help="Execute chapters even if nothing changed.")] = False,
    public: Annotated[bool, typer.Option(help="Leave out what may not be passed on.")] = False,
    jobs: Annotated[int, typer.Option(help="Chapters at a time; 0: two in the demo, or one.")] = 0,
):
    """Execute every chapter and render the book to _build/html."""
    from .. import execution

    typer.echo(f"open {execution.build_book(profile, force, public, jobs)}")


def pdf(
    out: Annotated[str, typer.Option(help="Where to put it.")] = "",
):
    """Print the book that was built last to one PDF, with the Chromium of this machine."""
    from .. import rendering

    typer.echo(rendering.print_pdf(out or None))


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
    from .. import execution

    values = {"profile": profile, **dict(assignment(text) for text in parameter)}
    typer.echo(execution.run(chapter, values, out or None, force))


def fetch(
    dataset: Annotated[str, typer.Argument(help="A data set, or 'all'.")],
):
    """Download a data set, so that everything else works without a network."""
    from ..data import fetch as fetching

    for name in fetching.datasets() if dataset == "all" else [dataset]:
        registry = fetching.registry(name)
        size = sum(entry.n_bytes for entry in registry.entries) / 1e6
        typer.echo(f"{name}: {len(registry.entries)} files, {size:.1f} MB, {registry.licence}")
        typer.echo(f"  in {fetching.fetch(name)}")


def extract(
    model: Annotated[list[str], typer.Argument(help="Models of the zoo, files or folders.")],
    sounds: Annotated[str, typer.Option(help="A sound set, or a data set heard to it.")] = (
        "natsound165"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
):
    """Represent sounds by models and keep the features; under torchrun, share the sounds."""
    from .. import data, extraction

    found = extraction.extract_many(model, data.sounds(sounds), device=device)
    for name, features in found.items():
        typer.echo(f"{name}: {len(features)} layers of {len(features.names)} sounds")


def train(
    model: Annotated[str, typer.Argument(help="A model of the light zoo, or 'all'.")] = "all",
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
):
    """Train the small models of the light zoo, in minutes, on open data."""
    from .. import light_zoo, models

    known = models.list_models(kind="trained-here")
    if model != "all" and model not in known:
        raise UnknownNameError("model of the light zoo", model, ["all", *known])
    for name in known if model == "all" else [model]:
        typer.echo(f"{name}: {light_zoo.train(name, seed=seed, device=device)}")


def assignment(text: str) -> tuple[str, object]:
    """Take ``name=value`` apart, the value read as YAML."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"-p {text}: write it as name=value, such as -p models='[log-mel]'")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParameterError(f"-p {text}: the value is not YAML ({error})") from error
