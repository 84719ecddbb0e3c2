"""Pages of the book that are written from what was executed: status and claims."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat

from . import claims
from .data import fetch
from .paths import atomic_path, content_key, project_root
from .results import provenance

__all__ = ["mark_claims", "write_claims", "write_parameters", "write_status"]


def mark_claims(notebook: nbformat.NotebookNode, chapter: str) -> None:
    """Move findings from the output of a cell to its metadata, and put a target before the cell.

    The page of claims reads the one and links to the other.
    """
    marked = []
    for cell in notebook.cells:
        findings = [
            finding
            for output in cell.get("outputs", ())
            for finding in output.get("data", {}).pop(claims.MIME_TYPE, ())
        ]
        if findings:
            cell.metadata["claims"] = findings
            target = nbformat.v4.new_markdown_cell(f"({_target(chapter, cell)})=")
            target["id"] = f"{cell['id']}-claims"
            marked.append(target)
        marked.append(cell)
    notebook.cells = marked


def write_claims(folder: Path, profile: str) -> None:
    """Write ``claims.md`` from the findings in the executed notebooks of a folder."""
    found: dict[str, list] = {}
    for file in sorted(folder.glob("*.ipynb")):
        for cell in nbformat.read(file, 4).cells:
            for finding in cell.metadata.get("claims", ()):
                link = f"#{_target(file.stem, cell)}"
                found.setdefault(finding["claim"], []).append((claims.Finding(**finding), link))
    with atomic_path(folder / "claims.md") as temporary:
        temporary.write_text(claims.page(found, profile))


def write_answer(folder: Path) -> None:
    """Write ``answer.png``, the book's answer in one figure, for its first page.

    Parameters
    ----------
    folder : Path
        Holds the executed notebooks; the figure is chapter 4's.
    """
    for cell in nbformat.read(folder / "04_downstream.ipynb", 4).cells:
        described = cell.metadata.get("mystnb", {}).get("figure", {})
        if described.get("name") == "fig-published":
            (output,) = (o for o in cell.outputs if "image/png" in o.get("data", {}))
            with atomic_path(folder / "answer.png") as temporary:
                temporary.write_bytes(base64.b64decode(output["data"]["image/png"]))


def write_status(folder: Path, profile: str, chapters: Sequence[str]) -> None:
    """Write ``status.md``: run times, versions, device, data and benchmarks.

    Parameters
    ----------
    folder : Path
        Holds the executed notebooks.
    profile : str
        Of this copy of the book.
    chapters : sequence of str
        Notebooks to list, in reading order, by the stem of their file.
    """
    history = provenance()
    records = {
        stem: nbformat.read(folder / f"{stem}.ipynb", 4).metadata["brainbook"] for stem in chapters
    }
    total = sum(record["seconds"] for record in records.values())
    text = [
        "# Status",
        f"This copy of the book was executed in the profile **{profile}**, with Python "
        f"{history['python']} on {history['platform']}, from commit `{history['commit']}`; its "
        f"chapters took {total:.0f} s together.",
        _table(
            ("Chapter", "Executed", "Seconds", "Device"),
            [
                (f"[{stem}]({stem}.ipynb)", record["executed"], record["seconds"], record["device"])
                for stem, record in records.items()
            ],
        ),
        "## Versions",
        _table(("Package", "Version"), history["versions"].items()),
        "## Data",
        "Files are checked against these registries before they are used. The digest is that of "
        "all their checksums.",
        _table(
            ("Data set", "Files", "MB", "Digest", "Licence"),
            [_data_row(name) for name in fetch.datasets()],
        ),
        "## Benchmarks",
        "Ratios are measured side by side in one run; `make bench` measures them again.",
        _table(("Benchmark", "Machine", "Quantity", "Value"), _benchmark_rows()),
    ]
    with atomic_path(folder / "status.md") as temporary:
        temporary.write_text("\n\n".join(text) + "\n")


def write_parameters(
    folder: Path, chapters: Mapping[str, Mapping], presets: Mapping[str, Mapping]
) -> None:
    """Write ``parameters.md``: a table of each chapter's parameters and what profiles make of them.

    Parameters
    ----------
    folder : Path
        Where to write it.
    chapters : mapping of str to mapping of str to Parameter
        By the stem of a chapter's file, as :func:`analysis_lib.execution.chapter_parameters`.
    presets : mapping of profile to mapping of chapter to mapping of parameter to value
        What profiles change; chapters by their names without the number.
    """
    text = []
    for stem, parameters in chapters.items():
        rows = []
        for name, parameter in parameters.items():
            given = {
                profile: preset.get(stem.split("_", 1)[1], {}).get(name, parameter.default)
                for profile, preset in presets.items()
            }
            if name == "profile":
                given = {profile: profile for profile in presets}
            values = [_code(given[profile]) for profile in presets]
            rows.append((f"`{name}`", parameter.help, *values))
        header = ("Parameter", "What it is", *(f"in `{profile}`" for profile in presets))
        text += [f"### {stem}", _table(header, rows)]
    with atomic_path(folder / "parameters.md") as temporary:
        temporary.write_text("\n\n".join(text) + "\n")


def _code(value: object, most: int = 4) -> str:
    """Value for a table; of a long list the beginning and the number."""
    if isinstance(value, list) and len(value) > most:
        return ", ".join(f"`{entry}`" for entry in value[:most]) + f", … ({len(value)} in all)"
    if isinstance(value, list):
        return ", ".join(f"`{entry}`" for entry in value) or "none"
    return f"`{value}`" if value != "" else ""


def _target(chapter: str, cell: nbformat.NotebookNode) -> str:
    """Name of the place of a cell in the book."""
    return re.sub(r"[^a-z0-9]+", "-", f"claims-{chapter}-{cell['id']}".lower())


def _data_row(name: str) -> tuple[object, ...]:
    registry = fetch.registry(name)
    size = sum(entry.n_bytes for entry in registry.entries) / 1e6
    digest = content_key([entry.sha256 for entry in registry.entries])[:12]
    return name, len(registry.entries), f"{size:.1f}", f"`{digest}`", registry.licence


def _benchmark_rows() -> list[tuple[str, ...]]:
    rows = []
    for file in sorted((project_root() / "benchmarks" / "results").glob("*.json")):
        report = json.loads(file.read_text())
        machine = report.pop("machine", "not stated")
        rows += [(file.stem, machine, name, value) for name, value in _flat(report)]
    return rows


def _flat(report: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in report.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}, ")
        else:
            yield label, value


def _table(head: Sequence[str], rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
