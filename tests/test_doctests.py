"""The reference: it shows every public name, and each one has an example that runs."""

import doctest
import inspect
import os
import warnings
from importlib import import_module

import matplotlib
import pytest
import yaml
from bs4 import BeautifulSoup

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from analysis_lib.paths import project_root  # noqa: E402

ROOT = project_root()
REFERENCE = ROOT / "book" / "reference"
ROOMS = sorted(page.stem for page in REFERENCE.glob("*.md") if page.stem != "index")
# Rooms that are no part of the reference: the command, and what only the package itself uses.
INSIDE = {
    "cleaning", "cli", "derivations", "features", "generated_pages", "named_files", "paths", "pickles",
    "text_notebooks",
}  # fmt: skip
NEED_REAL_DATA = {"data.natural_sounds"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public(room):
    """Functions and classes that a room offers, by name; errors and warnings left out."""
    module = import_module(f"analysis_lib.{room}")
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: thing
        for name, thing in found.items()
        if inspect.isroutine(thing)
        or (inspect.isclass(thing) and not issubclass(thing, BaseException))
    }


NAMES = [f"{room}.{name}" for room in ROOMS for name in public(room)]


def example_of(name):
    room, _, short = name.partition(".")
    text = inspect.getdoc(public(room)[short]) or ""
    parser = doctest.DocTestParser()
    return parser.get_doctest(text, {"__name__": "__main__"}, name, None, 0)


def test_every_room_has_a_page_or_is_no_part_of_the_reference():
    package = ROOT / "analysis_lib"
    rooms = {path.stem for path in package.glob("[!_]*.py")}
    rooms |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms - INSIDE == set(ROOMS)


def test_every_page_is_in_the_contents_and_on_the_first_page():
    contents = (ROOT / "_toc.yml").read_text()
    listed = [
        entry["file"]
        for part in yaml.safe_load(contents)["parts"]
        for chapter in part["chapters"]
        for entry in chapter.get("sections", ())
    ]
    index = (REFERENCE / "index.md").read_text()
    for room in ROOMS:
        assert f"book/reference/{room}" in listed
        assert f"[{room}]({room}.md)" in index


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_is_made_from_the_docstrings(room):
    page = (REFERENCE / f"{room}.md").read_text()
    assert f".. automodule:: analysis_lib.{room}\n" in page and "   :members:\n" in page


@pytest.mark.parametrize("room", ROOMS)
def test_a_rendered_page_shows_every_public_name(room):
    page = ROOT / "_build" / "html" / "book" / "reference" / f"{room}.html"
    if not page.is_file():
        pytest.skip("the book is not built: run make book")
    shown = {tag.get("id") for tag in BeautifulSoup(page.read_text(), "html.parser").select("dt")}
    assert {f"analysis_lib.{room}.{name}" for name in public(room)} <= shown


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(name, tmp_path, monkeypatch, request):
    test = example_of(name)
    assert any(not example.options.get(doctest.SKIP) for example in test.examples), "no example"
    if name in NEED_REAL_DATA:
        folder = request.getfixturevalue("real_data")
        monkeypatch.setenv("BRAINBOOK_DATA", os.path.abspath(folder))
    else:
        monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    report = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
        failed = runner.run(test, out=report.append).failed
    plt.close("all")
    assert not failed, "".join(report)
