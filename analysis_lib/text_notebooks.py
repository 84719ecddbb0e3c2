"""Lets papermill read the book's text notebooks, as its ``papermill.io`` entry point.

A module of its own, because papermill loads it while it is itself being imported.
"""

import os
from pathlib import Path

import jupytext
import nbformat

__all__ = ["handler"]


class TextNotebookHandler:
    """Reader for ``papermill notebooks/02_encoding.py out.ipynb -p …``."""

    def read(self, path: str) -> str:
        """Notebook as JSON text."""
        path = path.removeprefix("text://")
        if path.endswith(".ipynb"):
            return Path(path).read_text(encoding="utf-8")
        return nbformat.writes(jupytext.read(path))

    def listdir(self, path: str) -> list[str]:
        """Files of a folder."""
        return os.listdir(path.removeprefix("text://"))

    def write(self, text: str, path: str) -> None:
        """Write JSON text."""
        Path(path.removeprefix("text://")).write_text(text, encoding="utf-8")

    def pretty_path(self, path: str) -> str:
        """Path as shown in messages."""
        return path


handler = TextNotebookHandler()
