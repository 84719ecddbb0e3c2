"""The command that fine-tunes SoundNet on brains."""

from typing import Annotated

import typer

from ..errors import ParameterError
from .chapters import assignment


def finetune(
    source: Annotated[str, typer.Argument(help="friends-twin, or the folder of the fMRI data.")],
    subject: Annotated[
        list[str],
        typer.Option("--subject", "-s", help="Subject to train on; several make a group."),
    ],
    checkpoint: Annotated[
        str,
        typer.Option(help="Weights to begin with; by default a twin's own, or the published."),
    ] = "",
    published: Annotated[
        str,
        typer.Option(help="Configuration as published: a subject or 'group', such as sub-03."),
    ] = "",
    scale: Annotated[str, typer.Option(help="Of that configuration: STG or wholebrain.")] = "STG",
    setting: Annotated[
        list[str],
        typer.Option("--setting", "-p", help="name=value of any setting; may be repeated."),
    ] = [],  # noqa: B006  (typer copies it)
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
):
    """Fine-tune SoundNet on one brain or several; killed runs go on. Works under torchrun."""
    from .. import finetuning, results
    from ..data import friends_twin

    values = dict(assignment(text) for text in setting)
    if published:
        values = finetuning.published_settings(published, scale).as_dict() | values
    settings = finetuning.Settings.of(values)
    if not checkpoint and source in friends_twin.TWINS:
        checkpoint = str(finetuning.twin_checkpoint(source))
    if len(set(subject)) != len(subject):
        raise ParameterError(f"a subject is given twice: {', '.join(subject)}")
    found = results.cached(
        "finetuning",
        finetuning.finetune,
        finetuning.inputs(source, checkpoint or None),
        source=source,
        subjects=subject,
        settings=settings.as_dict(),
        checkpoint=checkpoint or None,
        device=device,
        progress=True,
    )
    by_target = found["r2"].mean("run")
    for name in found["subject"].values:
        values = by_target.sel(subject=name)
        typer.echo(
            f"{name}: R² on {found.sizes['run']} runs of the test season, mean "
            f"{float(values.mean()):.3f}, largest {float(values.max()):.3f} "
            f"({values['target'].values[int(values.argmax())]})"
        )
    typer.echo(f"network: {finetuning.checkpoint(found)}")
