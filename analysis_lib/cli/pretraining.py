"""The command that pretrains a masked autoencoder."""

import os
from typing import Annotated

import typer
import yaml

from ..errors import ParameterError


def pretrain(
    recipe: Annotated[str, typer.Argument(help="demo, natsound, paper or paper-self-training.")],
    folder: Annotated[str, typer.Argument(help="Of the run; one that was ended goes on.")],
    audio: Annotated[
        list[str],
        typer.Option("--audio", "-a", help="demo, natsound or a folder; folders may be repeated."),
    ] = [],  # noqa: B006  (typer copies it)
    control: Annotated[
        str, typer.Option(help="none, shuffled, noise or labels: what is learned from.")
    ] = "none",
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    accumulate: Annotated[int, typer.Option(help="Parts of a batch, to save memory.")] = 1,
    save_every: Annotated[int, typer.Option(help="Steps between guards against a kill.")] = 0,
    setting: Annotated[
        list[str],
        typer.Option("--set", "-s", help="name=value, of the recipe; may be repeated."),
    ] = [],  # noqa: B006
):
    """Pretrain a masked autoencoder of audio; on several GPUs under torchrun -m analysis_lib."""
    from .. import pretraining

    heard = pretraining.corpus(*(audio or [recipe]))
    run = pretraining.pretrain(
        recipe,
        heard,
        folder,
        seed=seed,
        control=control,
        device=device,
        precision=precision,
        accumulate=accumulate,
        save_every=save_every,
        **dict(_setting(text) for text in setting),
    )
    if os.environ.get("RANK", "0") == "0":
        last = run.history.iloc[-1]
        typer.echo(f"{len(run.checkpoints)} checkpoints in {run.folder}, loss {last['loss']:.3f}")


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"--set {text}: write it as name=value, such as --set n_steps=1000")
    return name.strip(), yaml.safe_load(value)
