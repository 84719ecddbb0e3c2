"""Grading a class: every notebook on its own, the checks from here, the points in a table.

Students' cells run in the order they stand in; their copies of the check cells do not. The checks
of the lab's source run after them, with this package's modules of checks loaded afresh, so that
neither an edited check nor one replaced in memory earns a point. This guards against editing, not
against somebody who attacks the machine: run submissions of strangers in a container.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from ..errors import MissingDataError, ParameterError
from . import release

__all__ = ["by_student", "find", "grade", "grade_one"]

log = logging.getLogger("brainbook")

TOTAL = 10  # a notebook may take this many times a cell's limit
CHECK_TIMEOUT = 30  # seconds; the inputs of checks are small
_FRESH = """import importlib as _importlib, sys as _sys
for _name in [n for n in _sys.modules if n.startswith("analysis_lib.labs")]:
    del _sys.modules[_name]
labs = _importlib.import_module("analysis_lib.labs")
"""


def find(folder: str | Path, lab: str) -> dict[str, Path]:
    """Look for the submissions of a lab.

    Parameters
    ----------
    folder : path
        With notebooks at any depth: ``ada.ipynb``, ``ada/lab2.ipynb``, ``ada/lab2/lab2.ipynb``.
    lab : str
        Notebooks that say they are of another lab are left out.

    Returns
    -------
    dict of str to Path
        By student: the folder's name, or that of the file if it lies at the top.

    Raises
    ------
    MissingDataError
        When there is none.
    ParameterError
        When a student has two.

    Examples
    --------
    >>> from analysis_lib.labs import grading
    >>> grading.find("submissions", "lab2")  # doctest: +SKIP
    {'ada': PosixPath('submissions/ada/lab2.ipynb'), ...}
    """
    folder = Path(folder)
    others = set(release.sources()) - {lab}
    found = {}
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or _lab_of(path) in others:
            continue
        student = parts[0] if len(parts) > 1 else path.stem
        if student in found:
            raise ParameterError(
                f"{student} has two notebooks of {lab}: {found[student]} and {path}. Leave one."
            )
        found[student] = path
    if not found:
        raise MissingDataError(f"no notebook of {lab} in {folder}: *.ipynb at any depth is found")
    return found


def grade(folder: str | Path, lab: str, timeout: float = 120, n_jobs: int = 1) -> pd.DataFrame:
    """Execute and grade every submission of a lab.

    Parameters
    ----------
    folder : path
        See :func:`find`.
    lab : str
        One of :func:`analysis_lib.labs.release.sources`.
    timeout : float
        Seconds that one cell may take; it is then interrupted, and the next one runs. A notebook
        may take ten times as long in all.
    n_jobs : int
        Notebooks at a time; each takes up to 1 GB.

    Returns
    -------
    DataFrame
        A row per student and exercise: ``student``, ``exercise``, ``points``, ``of``,
        ``message``, ``file``. A notebook that cannot be read or executed has 0 points throughout
        and says why.

    Examples
    --------
    >>> from analysis_lib.labs import grading
    >>> grading.by_student(grading.grade("submissions", "lab2"))  # doctest: +SKIP
    """
    submissions = find(folder, lab)
    notebook = release.read(lab)
    with ThreadPoolExecutor(n_jobs) as pool:
        graded = pool.map(lambda path: grade_one(path, notebook, timeout), submissions.values())
        rows = []
        for (student, path), results in zip(submissions.items(), graded, strict=True):
            points = sum(result["points"] for result in results)
            log.info("%s: %d of %d points", student, points, sum(r["of"] for r in results))
            rows += [{"student": student, **result, "file": str(path)} for result in results]
    return pd.DataFrame(rows)


def grade_one(path: Path, notebook: nbformat.NotebookNode, timeout: float = 120) -> list[dict]:
    """Grade one submission.

    Parameters
    ----------
    path : Path
        Of the student's notebook.
    notebook : NotebookNode
        The lab, from :func:`analysis_lib.labs.release.read`.
    timeout : float
        As in :func:`grade`.

    Returns
    -------
    list of dict
        ``exercise``, ``points``, ``of`` and ``message`` of each exercise.

    Examples
    --------
    >>> from analysis_lib.labs import grading, release
    >>> grading.grade_one("ada.ipynb", release.read("lab2"))[0]["message"].split(":")[0]
    'the notebook cannot be read'
    """
    exercises = release.exercises(notebook)
    checks = {c.metadata["check"]: c.source for c in notebook.cells if "check" in c.metadata}
    try:
        submitted = nbformat.read(path, as_version=4)
        ran = _executed(submitted, checks, timeout)
        messages = {name: _message(ran[name]) for name in exercises}
    except DeadKernelError:
        messages = dict.fromkeys(exercises, "the notebook ended its own kernel (out of memory?)")
    except Exception as error:  # one notebook must not stop the others
        reason = f"the notebook cannot be read: {type(error).__name__}: {error}"
        messages = dict.fromkeys(exercises, _one_line(reason))
    return [
        {
            "exercise": name,
            "points": exercise.points if messages[name] == "" else 0,
            "of": exercise.points,
            "message": messages[name],
        }
        for name, exercise in exercises.items()
    ]


def by_student(graded: pd.DataFrame) -> pd.DataFrame:
    """Arrange grades as a gradebook wants them: a row per student.

    Parameters
    ----------
    graded : DataFrame
        From :func:`grade`.

    Returns
    -------
    DataFrame
        ``points`` and ``of`` in all, then the points of each exercise, then what to say about
        those that did not pass, in one cell.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib.labs import grading
    >>> row = {"student": "ada", "exercise": "rdm", "points": 3, "of": 3, "message": ""}
    >>> grading.by_student(pd.DataFrame([row])).loc["ada", "points"]
    np.int64(3)
    """
    order = list(dict.fromkeys(graded["exercise"]))
    points = graded.pivot(index="student", columns="exercise", values="points")[order]
    total = graded.groupby("student")[["points", "of"]].sum()
    said = {student: _said(rows) for student, rows in graded.groupby("student")}
    return total.join(points).join(pd.Series(said, name="messages"))


def _said(rows: pd.DataFrame) -> str:
    """Messages of one student; one that goes for all exercises is said once."""
    if len(set(rows["message"])) == 1:
        return rows["message"].iloc[0]
    said = rows[rows["message"] != ""]
    return " | ".join(said["exercise"] + ": " + said["message"])


def _lab_of(path: Path) -> str:
    """Lab that a notebook says it is of, or its file's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["brainbook"]["lab"]
    except (ValueError, KeyError, TypeError, OSError):
        return path.stem


def _executed(
    submitted: nbformat.NotebookNode, checks: Mapping[str, str], timeout: float
) -> dict[str, nbformat.NotebookNode]:
    """Run a student's cells, then the checks; returns the cells of the checks."""
    own = [
        cell
        for cell in submitted.cells
        if cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("grade")
    ]
    last = {name: nbformat.v4.new_code_cell(_FRESH + source) for name, source in checks.items()}
    warm = nbformat.v4.new_code_cell("import analysis_lib.labs")  # not on a check's time
    notebook = nbformat.v4.new_notebook(cells=[*own, warm, *last.values()])
    until = time.monotonic() + TOTAL * timeout

    def left(cell) -> float:
        if any(cell is check for check in last.values()):
            return CHECK_TIMEOUT
        return max(1.0, min(timeout, until - time.monotonic()))

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout_func=left,
            interrupt_on_timeout=True,
            allow_errors=True,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],  # ipykernel warns about every local kernel
        )
        environment = {
            **os.environ,
            "BRAINBOOK_RESULTS": folder,
            "MPLBACKEND": "agg",
            "TQDM_DISABLE": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        client.execute(env=environment)
    return last


def _message(cell: nbformat.NotebookNode) -> str:
    """Read what a check cell said; "" if it passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            if output.ename == "KeyboardInterrupt":
                return "it took too long, and was interrupted."
            if output.ename == "NameError":
                return _one_line(f"there is no answer: {output.evalue}.")
            return _one_line(output.evalue)
    if any("right (" in output.get("data", {}).get("text/plain", "") for output in cell.outputs):
        return ""
    return "the check did not run."


def _one_line(text: str) -> str:
    return " ".join(text.split())
