"""From one source per lab to what a class needs: exercises, solutions, an nbgrader course.

A lab is a text notebook in ``notebooks/labs``. A cell with ``exercise="name"`` holds the solution
between ``### BEGIN SOLUTION`` and ``### END SOLUTION``; a cell with ``check="name"`` calls
``labs.check_name``. Everything else is for all to read.
"""

import ast
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import jupytext
import nbformat

from .. import labs
from ..errors import DataError, ParameterError, UnknownNameError
from ..paths import atomic_path, project_root

__all__ = [
    "exercises",
    "read",
    "solution",
    "source_for_nbgrader",
    "sources",
    "student",
    "write",
    "write_student",
]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_REGION = re.compile(rf"^([ ]*){BEGIN}\n(.*?)^[ ]*{END}[ ]*\n?", re.M | re.S)
# The course folder's settings; nbgrader's own defaults for the rest.
_NBGRADER_CONFIG = """c = get_config()
c.CourseDirectory.course_id = "brainbook"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("not written yet")'}
c.ExecutePreprocessor.timeout = 300
"""


def sources() -> dict[str, Path]:
    """Labs in order: name (``"lab2"``) to text notebook.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> release.sources()["lab2"].name
    'lab2_encoding.py'
    """
    files = sorted((project_root() / "notebooks" / "labs").glob("lab[0-9]_*.py"))
    return {file.stem.split("_")[0]: file for file in files}


def read(lab: str, profile: str = "demo", values: Mapping | None = None) -> nbformat.NotebookNode:
    """Read a lab with the parameters of a profile.

    Parameters
    ----------
    lab : str
        One of :func:`sources`.
    profile : str
        ``"demo"``, or one in ``notebooks/labs/profiles.toml``.
    values : mapping, optional
        Parameters that replace those of the profile.

    Returns
    -------
    NotebookNode
        With solutions and their markers.

    Raises
    ------
    UnknownNameError
        For an unknown lab, profile or parameter.
    DataError
        When an exercise has no check or a check no exercise, or a marker stands alone.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> notebook = release.read("lab2", values={"model": "mfcc"})
    >>> list(release.exercises(notebook))[:3]
    ['split', 'ridge', 'score']
    """
    known = sources()
    if lab not in known:
        raise UnknownNameError("lab", lab, known)
    presets = tomllib.loads(known[lab].with_name("profiles.toml").read_text(encoding="utf-8"))
    if profile not in ("demo", *presets):
        raise UnknownNameError("profile of the labs", profile, ["demo", *presets])
    notebook = jupytext.read(known[lab])
    notebook.metadata.pop("jupytext", None)
    notebook.metadata["brainbook"] = {"lab": lab, "profile": profile}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{lab}-{number:03d}"
        cell.metadata.pop("lines_to_next_cell", None)
        if "parameters" in cell.metadata.get("tags", ()):
            chosen = {"profile": profile, **presets.get(profile, {}).get(lab, {}), **(values or {})}
            cell.source = _with_values(cell.source, chosen, lab)
    _require_pairs(notebook, lab)
    return notebook


def exercises(notebook: nbformat.NotebookNode) -> dict[str, labs.Exercise | labs.Choice]:
    """Exercises of a lab in order, by name.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> release.exercises(release.read("lab3"))["rdm"].points
    3
    """
    names = [cell.metadata["check"] for cell in notebook.cells if "check" in cell.metadata]
    return {name: getattr(labs, f"check_{name}") for name in names}


def solution(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a lab with its solutions, without the markers.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> "SOLUTION" in str(release.solution(release.read("lab1")))
    False
    """
    copy = _graded(notebook)
    for cell in copy.cells:
        cell.source = "\n".join(
            line for line in cell.source.splitlines() if line.strip() not in (BEGIN, END)
        )
    return copy


def student(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a lab with a stub in the place of every solution.

    The stub runs: a function raises NotImplementedError when it is called, a name is ``...``.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> "raise NotImplementedError" in str(release.student(release.read("lab1")))
    True
    """
    copy = _graded(notebook)
    for cell in copy.cells:
        cell.source = _REGION.sub(_stub, cell.source).rstrip("\n")
    return copy


def source_for_nbgrader(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a lab as nbgrader wants an assignment's source: solutions between its markers.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> "BEGIN SOLUTION" in str(release.source_for_nbgrader(release.read("lab1")))
    True
    """
    return _graded(notebook)


def write(folder: str | Path | None = None, profile: str = "demo") -> list[Path]:
    """Write all labs in all versions.

    Parameters
    ----------
    folder : path, optional
        By default ``_build/labs`` in the project. ``student/``, ``solution/`` and the course
        folder ``nbgrader/`` are made in it.
    profile : str
        Of the parameters.

    Returns
    -------
    list of Path
        The files.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> release.write(profile="natsound")  # doctest: +SKIP
    """
    folder = Path(folder) if folder else project_root() / "_build" / "labs"
    written = []
    for lab in sources():
        notebook = read(lab, profile)
        versions = {
            f"student/{lab}.ipynb": student(notebook),
            f"solution/{lab}.ipynb": solution(notebook),
            f"nbgrader/source/{lab}/{lab}.ipynb": source_for_nbgrader(notebook),
            f"nbgrader/release/{lab}/{lab}.ipynb": student(notebook),
        }
        for name, version in versions.items():
            with atomic_path(folder / name) as temporary:
                nbformat.write(version, temporary)
            written.append(folder / name)
    config = folder / "nbgrader" / "nbgrader_config.py"
    with atomic_path(config) as temporary:
        temporary.write_text(_NBGRADER_CONFIG, encoding="utf-8")
    return [*written, config]


def write_student(folder: str | Path) -> list[Path]:
    """Write the students' versions of all labs, for readers of the book to download.

    Parameters
    ----------
    folder : path
        Notebooks of labs that are no more are removed from it.

    Returns
    -------
    list of Path
        The files.

    Examples
    --------
    >>> from analysis_lib.labs import release
    >>> release.write_student("book/chapters/labs")  # doctest: +SKIP
    """
    written = [Path(folder) / f"{lab}.ipynb" for lab in sources()]
    for path in written:
        with atomic_path(path) as temporary:
            nbformat.write(student(read(path.stem)), temporary)
    for stale in set(Path(folder).glob("*.ipynb")) - set(written):
        stale.unlink()
    return written


def _with_values(source: str, values: Mapping[str, object], lab: str) -> str:
    """Parameters cell with other values; types and explanations stay."""
    lines = source.splitlines()
    found = {
        statement.target.id: statement
        for statement in ast.parse(source).body
        if isinstance(statement, ast.AnnAssign)
    }
    for name, value in values.items():
        if name not in found:
            raise UnknownNameError(f"parameter of {lab}", name, found)
        statement = found[name]
        wanted = ast.unparse(statement.annotation)
        if type(value).__name__ != wanted:
            raise ParameterError(f"parameter {name!r} of {lab} must be {wanted}, not {value!r}")
        old = ast.get_source_segment(source, statement.value)
        start = f"{name}: {wanted} = "
        row = statement.lineno - 1
        new = f'"{value}"' if isinstance(value, str) else repr(value)
        lines[row] = lines[row].replace(start + old, start + new, 1)
    return "\n".join(lines)


def _require_pairs(notebook: nbformat.NotebookNode, lab: str) -> None:
    written = [cell.metadata["exercise"] for cell in notebook.cells if "exercise" in cell.metadata]
    checked = [cell.metadata["check"] for cell in notebook.cells if "check" in cell.metadata]
    if written != checked or len(set(written)) != len(written):
        raise DataError(f"{lab}: exercises {written} and checks {checked} must go in pairs")
    for cell in notebook.cells:
        markers = (
            cell.source.count(BEGIN),
            cell.source.count(END),
            len(_REGION.findall(cell.source)),
        )
        if len(set(markers)) > 1 or (markers[0] > 0) != ("exercise" in cell.metadata):
            raise DataError(f"{lab}: solution markers are not in order in:\n{cell.source}")
    for name in checked:
        if not hasattr(labs, f"check_{name}"):
            raise DataError(f"{lab}: there is no labs.check_{name}")


def _graded(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy in which exercises and checks carry nbgrader's metadata."""
    copy = nbformat.from_dict(notebook)
    points = {name: exercise.points for name, exercise in exercises(notebook).items()}
    for cell in copy.cells:
        exercise, check = cell.metadata.pop("exercise", None), cell.metadata.pop("check", None)
        if exercise:
            cell.metadata["nbgrader"] = _metadata(f"{exercise}-answer", solution=True)
        elif check:
            cell.metadata["nbgrader"] = _metadata(check, grade=True, points=points[check])
    return copy


def _metadata(grade_id: str, solution: bool = False, grade: bool = False, **more) -> dict:
    """Metadata of one cell, version 3 of nbgrader's schema."""
    return {
        "grade": grade,
        "grade_id": grade_id,
        "locked": grade,
        "schema_version": 3,
        "solution": solution,
        "task": False,
        **more,
    }


def _stub(found: re.Match) -> str:
    indent, body = found.groups()
    if indent:
        return f'{indent}# Your code here.\n{indent}raise NotImplementedError("not written yet")\n'
    names = [
        target.id
        for statement in ast.parse(body).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    ]
    return "".join(f"{name} = ...  # your answer here\n" for name in names)
