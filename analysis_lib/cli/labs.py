"""Commands for a class: write the labs, grade what comes back."""

from typing import Annotated

import typer


def labs(
    profile: Annotated[str, typer.Option(help="How real: demo or natsound.")] = "demo",
    out: Annotated[str, typer.Option(help="Folder to write to; by default _build/labs.")] = "",
):
    """Write the labs: student version, solutions, and an nbgrader course."""
    from ..labs import release

    for path in release.write(out or None, profile):
        typer.echo(path)


def grade(
    folder: Annotated[str, typer.Argument(help="Folder with the students' notebooks.")],
    lab: Annotated[str, typer.Option(help="Which lab, such as lab2.")],
    out: Annotated[str, typer.Option(help="CSV to write.")] = "grades.csv",
    timeout: Annotated[float, typer.Option(help="Seconds that one cell may take.")] = 120,
    jobs: Annotated[int, typer.Option(help="Notebooks at a time.")] = 1,
):
    """Execute and grade the notebooks of a class; one row per student."""
    from ..labs import grading
    from ..paths import atomic_path

    table = grading.by_student(grading.grade(folder, lab, timeout, jobs))
    with atomic_path(out) as temporary:
        table.to_csv(temporary)
    typer.echo(table[["points", "of"]].to_string())
    typer.echo(f"points and messages: {out}")
