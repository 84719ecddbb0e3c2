"""Commands that compute many results, here or on a cluster."""

from typing import Annotated

import typer

from .listing import aligned


def sweep(
    file: Annotated[
        str, typer.Argument(help="A sweep file, such as workflow/sweeps/natsound.yaml.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the jobs, run nothing.")] = False,
    profile: Annotated[
        str, typer.Option(help="Where: local, slurm, kubernetes, or a folder of your own.")
    ] = "local",
    jobs: Annotated[int, typer.Option(help="Jobs at a time; 0: as the profile says.")] = 0,
):
    """Compute many models, data sets, analyses and seeds; run it again to continue."""
    from .. import sweeps

    described = sweeps.read(file)
    planned = sweeps.plan(described)
    typer.echo(_table(planned, sweeps.done(planned)))
    if dry_run:
        return
    report = sweeps.run(described, planned, profile, jobs or None)
    typer.echo(report)
    if report.failed or report.missing:
        raise typer.Exit(1)


def job(
    plan: Annotated[str, typer.Argument(help="The plan.json of a sweep.")],
    name: Annotated[str, typer.Argument(help="Name of the job.")],
    attempt: Annotated[int, typer.Option(help="How often it was started, this time included.")] = 1,
):
    """Work off one job of a sweep: what the workflow calls."""
    from .. import sweeps

    receipt = sweeps.perform(plan, name, attempt)
    typer.echo(f"{name}: {len(receipt['made'])} made, {len(receipt['failed'])} failed")


def _table(planned, done) -> str:
    rows = [("job", "requests", "GB", "minutes", "state", "for")]
    for each in planned:
        state = "done" if each.name in done else "to do"
        minutes, memory = f"{each.cost.minutes:.1f}", f"{each.cost.memory / 1e9:.1f}"
        about = _about(each.requests)
        rows.append((each.name[:-12], str(len(each.requests)), memory, minutes, state, about))
    left = [each for each in planned if each.name not in done]
    total = sum(each.cost.minutes for each in left)
    n_requests = sum(len(each.requests) for each in planned)
    return (
        f"{aligned(rows, right=(1, 2, 3))}\n"
        f"{n_requests} requests in {len(planned)} jobs, {len(left)} to do: about {total / 60:.1f} "
        f"hours one after another (within a factor of three), up to "
        f"{max((each.cost.memory for each in left), default=0) / 1e9:.1f} GB"
    )


def _about(requests) -> str:
    """Say what a job is for: each distinct analysis, model and target once."""
    parts = []
    for field in ("analysis", "model", "target"):
        names = list(dict.fromkeys(filter(None, (getattr(r, field) for r in requests))))
        parts.append(", ".join(names))
    options = [str(dict(r.options)) for r in requests if r.rule in ("dynamics", "finetune")]
    return " | ".join(filter(None, [*parts, *options]))
