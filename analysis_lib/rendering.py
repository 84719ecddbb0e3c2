"""From executed notebooks and prose to pages: HTML, and a PDF to print."""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import BrainbookError
from .paths import atomic_path, content_key, file_sha256, project_root, source_sha256

__all__ = ["RenderingError", "pages_key", "print_pdf", "render"]

log = logging.getLogger("brainbook")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 600  # seconds for a browser to lay out the whole book


class RenderingError(BrainbookError):
    """Pages that could not be made from the executed notebooks.

    Examples
    --------
    >>> from analysis_lib import errors, rendering
    >>> issubclass(rendering.RenderingError, errors.BrainbookError)
    True
    """


def render(force: bool = False) -> Path:
    """Render the HTML pages, unless they are those of the same sources.

    Parameters
    ----------
    force : bool
        Render even when nothing has changed.

    Returns
    -------
    Path
        The book's first page.

    Raises
    ------
    RenderingError
        With the end of the report; warnings count as errors.

    Examples
    --------
    >>> from analysis_lib import rendering
    >>> rendering.render()  # doctest: +SKIP
    """
    root = project_root()
    html = root / "_build" / "html"
    stamp, index, key = html / ".content-key", html / "index.html", pages_key()
    if not force and index.is_file() and stamp.is_file() and stamp.read_text() == key:
        log.info("reused the rendered book: no page has changed")
        return index
    _jupyter_book(root, "-W", "--keep-going", "--all")
    stamp.write_text(key)
    return index


def print_pdf(out: str | Path | None = None) -> Path:
    """Print the whole book to one PDF, with a Chromium that is on this machine.

    Parameters
    ----------
    out : path, optional
        ``_build/brainbook.pdf`` otherwise.

    Returns
    -------
    Path
        The PDF.

    Raises
    ------
    RenderingError
        When there is no Chromium or Chrome, no executed notebook, or the browser fails.

    Examples
    --------
    >>> from analysis_lib import rendering
    >>> rendering.print_pdf("book.pdf")  # doctest: +SKIP
    """
    root = project_root()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RenderingError(
            f"no browser to print with (looked for {', '.join(BROWSERS)}). Install Chromium, or "
            "print the pages of _build/html from your own browser."
        )
    if not any((root / "book" / "chapters").glob("*.ipynb")):
        raise RenderingError("no chapter was executed yet: run make book first")
    _jupyter_book(root, "--builder", "singlehtml", "--path-output", str(root / "_build" / "print"))
    (page,) = (root / "_build" / "print" / "_build" / "singlehtml").glob("*.html")
    target = Path(out) if out else root / "_build" / "brainbook.pdf"
    with tempfile.TemporaryDirectory() as profile, atomic_path(target) as temporary:
        flags = ["--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={profile}"]
        flags += ["--no-pdf-header-footer", "--virtual-time-budget=60000"]
        command = [browser, *flags, f"--print-to-pdf={temporary}", page.as_uri()]
        reply = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if reply.returncode != 0 or not temporary.is_file():
            raise RenderingError(f"{browser} could not print the book:\n{reply.stderr[-2000:]}")
    return target


def pages_key() -> str:
    """Name of the content that the pages are made of.

    Examples
    --------
    >>> from analysis_lib import rendering
    >>> len(rendering.pages_key())
    24
    """
    root = project_root()
    sources = [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]
    return content_key(
        {str(file.relative_to(root)): file_sha256(file) for file in sources if file.is_file()},
        source_sha256(),  # the reference shows its docstrings
        file_sha256(root / "requirements.txt"),
    )


def _jupyter_book(root: Path, *options: str) -> None:
    call = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", call, "build", str(root), *options]
    reply = subprocess.run(command, capture_output=True, text=True, cwd=root)
    if reply.returncode != 0:
        report = reply.stdout[-3000:] + reply.stderr[-3000:]
        raise RenderingError(f"Jupyter Book could not build the pages:\n{report}")
