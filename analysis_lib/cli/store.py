"""Commands that look at the result store: list, compare, verify, tidy."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from ..errors import ParameterError, UnknownNameError

_SHOWN = (
    "analysis",
    "model",
    "dataset",
    "task",
    "protocol",
    "seed",
    "mean_score",
    "key",
    "created",
)


def results(
    filters: Annotated[
        list[str], typer.Argument(help="name=value, such as model=mfcc or analysis=encoding.")
    ] = [],  # noqa: B006  (typer copies it)
    csv: Annotated[str, typer.Option(help="Write the whole table to this file.")] = "",
    parquet: Annotated[str, typer.Option(help="The same, as Parquet (needs pyarrow).")] = "",
):
    """Show the stored results as a table, or export it."""
    from .. import store

    wanted = dict(_assignment(text) for text in filters)
    listed = store.table(wanted.pop("analysis", None), **wanted)
    for path, ending in ((csv, ".csv"), (parquet, ".parquet")):
        if path:
            if Path(path).suffix != ending:
                raise ParameterError(f"{path}: the name must end in {ending}")
            typer.echo(f"{len(listed)} results in {store.export(listed, path)}")
    if not csv and not parquet:
        shown = listed[[name for name in _SHOWN if name in listed]]
        typer.echo(shown.to_string(index=False, na_rep="") if len(listed) else "no results")


def compare(
    a: Annotated[str, typer.Argument(help="A result's key or file, or the folder of a store.")],
    b: Annotated[str, typer.Argument(help="Another of the same.")],
):
    """Say what differs between two results, or two stores: inputs, versions, numbers."""
    from .. import results as results_module
    from .. import store

    if Path(a).is_dir() and Path(b).is_dir():
        table = store.compare_stores(a, b)
        unequal = table[~table["verdict"].isin(["identical", "equal to rounding"])]
        typer.echo(table["verdict"].value_counts().to_string())
        if len(unequal):
            typer.echo(unequal.to_string(index=False, na_rep=""))
            raise typer.Exit(1)
        return
    typer.echo(store.compare(*(results_module.read(_result_file(name)) for name in (a, b))))


def verify(
    sample: Annotated[int, typer.Option(help="How many to compute again; -1: all.")] = 5,
    analysis: Annotated[str, typer.Option(help="Only results of one analysis.")] = "",
    seed: Annotated[int, typer.Option(help="Decides which.")] = 0,
):
    """Check the digest of every stored result, and compute a sample of them again."""
    from .. import store

    checked = store.verify(None if sample < 0 else sample, analysis or None, seed)
    shown = checked[(checked["again"] != "") | ~checked["as_stored"].astype(bool)]
    if len(shown):
        typer.echo(shown.to_string(index=False, na_rep=""))
    n_unsound = int((~checked["as_stored"].astype(bool)).sum())
    computed = checked["again"].isin(["identical", "equal to rounding", "differs"])
    typer.echo(
        f"{len(checked)} results, {int(computed.sum())} computed again, {n_unsound} not as stored"
    )
    if n_unsound:
        raise typer.Exit(1)


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove; otherwise only show.")] = False,
    unused: Annotated[
        bool, typer.Option("--unused", help="Also features that no stored result needs.")
    ] = False,
):
    """Show what takes room and what of it can never be used again; remove it with --yes."""
    from .. import cleaning

    typer.echo(cleaning.sizes().to_string(index=False, float_format="{:.1f}".format))
    found = cleaning.orphans(unused)
    for orphan in found:
        typer.echo(f"{orphan.n_bytes / 1e6:8.1f} MB  {orphan.path}  ({orphan.reason})")
    total = sum(orphan.n_bytes for orphan in found)
    if yes:
        typer.echo(f"removed {len(found)}, {cleaning.remove(found) / 1e6:.1f} MB freed")
    elif found:
        typer.echo(f"{len(found)} to remove, {total / 1e6:.1f} MB: run again with --yes")
    else:
        typer.echo("nothing to remove")


def _assignment(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"{text}: write it as name=value, such as model=mfcc")
    return name, yaml.safe_load(value)


def _result_file(name: str) -> Path:
    """Path of a result, given by its file or by its key."""
    from .. import results as results_module
    from ..paths import results_dir

    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for path in results_dir().glob(f"*/{results_module.FINISHED}")}
    if name not in known:
        raise UnknownNameError("result", name, known)
    return known[name]
