"""Running chapters with parameters, and building the book from them."""

import ast
import io
import logging
import os
import pprint
import shutil
import time
import tokenize
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import jupytext
import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from .device import resolve_device
from .errors import BrainbookError, ParameterError, UnknownNameError
from .generated_pages import (
    mark_claims,
    write_answer,
    write_claims,
    write_parameters,
    write_status,
)
from .labs import release
from .named_files import named_files
from .paths import (
    atomic_path,
    cache_dir,
    content_key,
    file_sha256,
    project_root,
    results_dir,
    source_sha256,
    storage_errors,
)
from .rendering import render

__all__ = [
    "ChapterError",
    "Parameter",
    "build_book",
    "chapter_parameters",
    "chapters",
    "executed_path",
    "profiles",
    "run",
]

log = logging.getLogger("brainbook")

TIMEOUT = 3600  # seconds that one cell may take


class ChapterError(BrainbookError):
    """A chapter that stopped with an error.

    Examples
    --------
    >>> from analysis_lib import errors, execution
    >>> issubclass(execution.ChapterError, errors.BrainbookError)
    True
    """


@dataclass(frozen=True)
class Parameter:
    """One entry of a chapter's parameters cell.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> parameter = execution.chapter_parameters("encoding")["n_shuffles"]
    >>> parameter.type, parameter.help
    (<class 'int'>, 'shuffles for the null distribution')
    >>> parameter.check("many")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: parameter 'n_shuffles' must be int, not 'many' ...
    """

    name: str
    type: type | UnionType
    default: object
    help: str

    def check(self, value: object) -> object:
        """Give the value back if it has the right type, else raise ParameterError."""
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not _is_instance(value, self.type):
            raise ParameterError(
                f"parameter {self.name!r} must be {_type_name(self.type)}, "
                f"not {value!r} ({type(value).__name__}). {self.help}"
            )
        return value


def chapters() -> dict[str, Path]:
    """Chapters of the book in reading order: name to notebook.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> execution.chapters()["encoding"].name
    '02_encoding.py'
    """
    files = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.py"))
    return {file.stem.split("_", 1)[1]: file for file in files}


def profiles() -> list[str]:
    """Names of the profiles: how real a run is.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> execution.profiles()[:3]
    ['demo', 'natsound', 'paper']
    """
    return ["demo", *(name for name in _presets() if name != "demo")]


def chapter_parameters(chapter: str) -> dict[str, Parameter]:
    """Parameters of a chapter with types, defaults and explanations.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> list(execution.chapter_parameters("extraction"))[:3]
    ['profile', 'sounds', 'models']
    """
    cells = jupytext.read(_notebook(chapter)).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise ChapterError(f"chapter {chapter!r} must have one cell tagged 'parameters'")
    source = tagged[0].source
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign):
            name = statement.target.id
            kind = eval(ast.unparse(statement.annotation), {})  # our own source: list[str], int …
            explanation = comments.get(statement.end_lineno, "")
            found[name] = Parameter(name, kind, ast.literal_eval(statement.value), explanation)
    return found


def run(
    chapter: str,
    parameters: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Execute a chapter.

    Parameters
    ----------
    chapter : str
        Its name (``"encoding"``), number (``"02"``) or file stem (``"02_encoding"``).
    parameters : mapping, optional
        Values that replace the chapter's own. ``profile`` chooses the starting point.
    out : path, optional
        Where to put the executed notebook; by default ``<results>/chapters/``.
    force : bool
        Execute even when an execution of the same content is there.

    Returns
    -------
    Path
        The executed notebook.

    Raises
    ------
    UnknownNameError
        For an unknown chapter, profile or parameter, with the nearest names.
    ParameterError
        For a value of the wrong type.
    ChapterError
        When a cell fails; the notebook up to there is kept.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> execution.run("encoding", {"models": ["log-mel"]}, "mine.ipynb")  # doctest: +SKIP
    >>> execution.run("encoding", {"model": ["log-mel"]})
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown parameter of chapter 'encoding' ...
    """
    source = _notebook(chapter)
    values = _resolved(chapter, dict(parameters or {}))
    executed = executed_path(chapter, values)
    if executed.is_file() and not force:
        log.info("reused chapter %s: nothing it depends on has changed", source.stem)
    else:
        log.info("executing chapter %s: not executed with this content before", source.stem)
        _execute(source, values, executed)
    target = Path(out) if out else results_dir() / "chapters" / executed.name
    with atomic_path(target) as temporary:
        shutil.copyfile(executed, temporary)
    return target


def executed_path(chapter: str, parameters: Mapping[str, object]) -> Path:
    """Where an execution of a chapter is kept that can be used now; any change gives another.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> execution.executed_path("encoding", {"n_shuffles": 10}).suffix
    '.ipynb'
    """
    source = _notebook(chapter)
    values = _resolved(chapter, dict(parameters))
    key = content_key(
        source.read_text(encoding="utf-8"),
        values,
        named_files(values, project_root()),
        source_sha256(),
        _environment_sha256(),
    )
    return cache_dir("chapters", f"{source.stem}-{key}.ipynb")


def build_book(
    profile: str = "demo", force: bool = False, public: bool = False, jobs: int = 0
) -> Path:
    """Execute every chapter in a profile and render the book.

    Parameters
    ----------
    profile : str
        One of :func:`profiles`.
    force : bool
        Execute and render even when nothing has changed.
    public : bool
        Leave out what may not be passed on: sounds without a licence.
    jobs : int
        Chapters to execute at a time. By default two in the demo, which needs little memory, and
        one otherwise: what a chapter has stored, the next one finds.

    Returns
    -------
    Path
        The book's first page.

    Examples
    --------
    >>> from analysis_lib import execution
    >>> execution.build_book("natsound")  # doctest: +SKIP
    >>> execution.build_book("natsond")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown profile 'natsond'. Did you mean 'natsound'?
    """
    folder = project_root() / "book" / "chapters"
    if profile not in profiles():
        raise UnknownNameError("profile", profile, profiles())

    def execute(name: str) -> None:
        values = {"profile": profile}
        if "public" in chapter_parameters(name):
            values["public"] = public
        run(name, values, folder / f"{chapters()[name].stem}.ipynb", force)

    n_cores = os.cpu_count() or 1
    at_once = jobs or min(2 if profile == "demo" else 1, n_cores)
    # Each with its share of the cores: threads that wait for one another are slow to share one.
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, n_cores // at_once)))
    with _quiet_kernels(OMP_NUM_THREADS=threads), ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(execute, chapters()):
            pass
    wanted = {source.stem for source in chapters().values()}
    for stale in folder.glob("*.ipynb"):
        if stale.stem not in wanted:
            stale.unlink()
    write_status(folder, profile, sorted(wanted))
    write_claims(folder, profile)
    write_answer(folder)
    known = {source.stem: chapter_parameters(name) for name, source in chapters().items()}
    release.write_student(folder / "labs")
    write_parameters(folder, known, {name: _presets().get(name, {}) for name in profiles()})
    return render(force)


def _notebook(chapter: str) -> Path:
    found = chapters()
    for name, file in found.items():
        if chapter in (name, file.stem, file.stem[:2]):
            return file
    raise UnknownNameError("chapter", chapter, found)


@lru_cache(maxsize=1)
def _presets() -> dict[str, dict[str, dict]]:
    """Profile to chapter to parameters."""
    return tomllib.loads((project_root() / "notebooks" / "profiles.toml").read_text())


def _resolved(chapter: str, given: dict[str, object]) -> dict[str, object]:
    """All parameters of a run: the chapter's own, under the profile's, under those given."""
    known = chapter_parameters(chapter)
    profile = given.get("profile", "demo")
    if profile not in profiles():
        raise UnknownNameError("profile", profile, profiles())
    preset = _presets().get(profile, {}).get(_notebook(chapter).stem.split("_", 1)[1], {})
    values = {name: parameter.default for name, parameter in known.items()}
    for name, value in {**preset, **given}.items():
        if name not in known:
            raise UnknownNameError(f"parameter of chapter {chapter!r}", name, known)
        values[name] = known[name].check(value)
    return values


@contextmanager
def _quiet_kernels(**more: str) -> Iterator[None]:
    """Keep progress bars, hubs and debuggers out of kernels that are started meanwhile."""
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    quiet |= more
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _execute(source: Path, values: dict, executed: Path) -> None:
    notebook = jupytext.read(source)
    started = time.perf_counter()
    partial = executed.with_suffix(".failed.ipynb")
    with storage_errors(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet_kernels():
            result = papermill.execute_notebook(
                notebook,
                partial,
                parameters=values,
                cwd=project_root(),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=TIMEOUT,
                # A kernel warns that it is local, and calls its end an error; cells report theirs.
                extra_arguments=["--log-level=CRITICAL"],
            )
    except papermill.PapermillExecutionError as error:
        raise ChapterError(
            f"chapter {source.stem} stopped in cell {error.exec_count}: {error.ename}: "
            f"{error.evalue}\nThe notebook up to there: {partial}"
        ) from None
    except (CellTimeoutError, DeadKernelError) as error:
        late = isinstance(error, CellTimeoutError)
        reason = f"a cell took over {TIMEOUT} s" if late else "its kernel died (out of memory?)"
        raise ChapterError(
            f"chapter {source.stem} stopped: {reason}\nThe notebook up to there: {partial}"
        ) from None
    record = {
        "chapter": source.stem,
        "parameters": values,
        "device": str(resolve_device(values.get("device", "auto"))),
        "seconds": round(time.perf_counter() - started, 1),
        "executed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with atomic_path(executed) as temporary:
        nbformat.write(_normalised(result, record), temporary)
    partial.unlink(missing_ok=True)


def _normalised(notebook: nbformat.NotebookNode, record: dict) -> nbformat.NotebookNode:
    """Make two runs of one content equal, and the parameters cell show the values used.

    Drops times, identifiers and stderr (progress bars, paths of this machine).
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata["brainbook"] = record
    kept = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for number, cell in enumerate(kept):
        cell["id"] = f"cell-{number:03d}"
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.setdefault("tags", [])
        if "parameters" in tags:
            cell.source = _with_values(record["chapter"], record["parameters"])
        elif "show-code" not in tags:
            tags.append("hide-input")  # readers unfold the code that they want to see
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.cells = kept
    mark_claims(notebook, record["chapter"])
    return notebook


def _with_values(chapter: str, values: Mapping[str, object]) -> str:
    """Source of the parameters cell with the values of a run, each below its explanation."""
    lines = []
    for parameter in chapter_parameters(chapter).values():
        value = pprint.pformat(values[parameter.name], width=66, compact=True)
        lines += [f"# {parameter.help}"] if parameter.help else []
        lines.append(f"{parameter.name}: {_type_name(parameter.type)} = {value}")
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _environment_sha256() -> str:
    return file_sha256(project_root() / "requirements.txt")


def _is_instance(value: object, kind) -> bool:
    if isinstance(kind, UnionType):
        return any(_is_instance(value, option) for option in get_args(kind))
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return isinstance(value, list) and all(_is_instance(entry, item) for entry in value)
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, kind)


def _type_name(kind) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
