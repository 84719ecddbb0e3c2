"""The rendered book, where there is one: what a reader gets, also without a network."""

import re
import tempfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from analysis_lib import execution, rendering
from analysis_lib.paths import project_root

ROOT = project_root()
HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
SECTIONS = [section for chapter in CHAPTERS for section in chapter.get("sections", ())]
PAGES = [TOC["root"], *(entry["file"] for entry in [*CHAPTERS, *SECTIONS])]


@pytest.fixture(scope="module", autouse=True)
def built():
    """The book as it was built last, if that was from the pages as they are now."""
    stamp = HTML / ".content-key"
    if not stamp.is_file():
        pytest.skip("the book is not built: run make book")
    if stamp.read_text() != rendering.pages_key():
        pytest.skip("the book was built from other pages: run make book")


@pytest.fixture(params=PAGES, ids=lambda page: page.removeprefix("book/"))
def page(request):
    return HTML / f"{request.param}.html"


@pytest.fixture
def soup(page):
    return BeautifulSoup(page.read_text(), "html.parser")


@pytest.fixture(params=execution.chapters().values(), ids=execution.chapters())
def notebook(request):
    return nbformat.read(ROOT / "book" / "chapters" / f"{request.param.stem}.ipynb", 4)


def figures_of(notebook):
    return [cell for cell in notebook.cells if "figure" in cell.metadata.get("tags", [])]


def test_every_page_of_the_contents_is_there(page):
    assert page.is_file()


def test_every_chapter_is_in_the_contents():
    stems = {Path(name).name for name in PAGES}
    assert {source.stem for source in execution.chapters().values()} <= stems


def test_a_page_loads_nothing_from_the_network(soup):
    loaded = [tag.get("src") for tag in soup.find_all(["script", "img", "iframe", "audio"])]
    loaded += [tag.get("href") for tag in soup.find_all("link") if "canonical" not in tag["rel"]]
    outside = [url for url in loaded if url and re.match(r"(https?:)?//", url)]
    assert outside == []


def test_the_stylesheets_load_nothing_from_the_network():
    styles = "".join(f.read_text(errors="replace") for f in (HTML / "_static").rglob("*.css"))
    assert re.findall(r"(?:@import|url\()[\s\"']*(?:https?:)?//[^\s\"')]*", styles) == []


def test_local_links_and_images_lead_somewhere(page, soup):
    targets = [tag.get("href") for tag in soup.find_all("a")]
    targets += [tag.get("src") for tag in soup.find_all("img")]
    local = {unquote(t.split("#")[0].split("?")[0]) for t in targets if t and ":" not in t}
    assert [target for target in local if target and not (page.parent / target).exists()] == []


def test_no_page_shows_an_error(soup):
    for example in soup.select("dl.py"):  # the reference shows errors that are meant
        example.decompose()
    text = soup.get_text()
    for sign in ("Traceback (most recent call last)", "Warning:", "ModuleNotFoundError"):
        assert sign not in text


def test_no_page_names_a_folder_of_this_machine(page):
    text = page.read_text()
    for folder in (ROOT, Path.home(), Path(tempfile.gettempdir())):
        assert f"{folder}/" not in text


def test_every_image_is_described(soup):
    for image in soup.select("article img"):
        assert image.get("alt", "").strip(), image.get("src")


def test_every_cell_tagged_figure_has_its_image(notebook):
    assert figures_of(notebook)
    for cell in figures_of(notebook):
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(images) == 1, cell.metadata["mystnb"]["figure"]["name"]


def test_every_figure_is_on_the_page_with_its_caption(notebook):
    page = HTML / "book" / "chapters" / f"{notebook.metadata.brainbook.chapter}.html"
    soup = BeautifulSoup(page.read_text(), "html.parser")
    for cell in figures_of(notebook):
        described = cell.metadata["mystnb"]
        figure = soup.find("figure", id=described["figure"]["name"])
        assert figure.find("img")["alt"] == described["image"]["alt"]
        assert described["figure"]["caption"][:20] in figure.find("figcaption").get_text()


def test_an_executed_chapter_holds_neither_errors_nor_what_changes_from_run_to_run(notebook):
    for cell in notebook.cells:
        assert "execution" not in cell.metadata and "papermill" not in cell.metadata
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr"
            assert not any("widget" in kind for kind in output.get("data", {}))


def test_the_parameters_are_in_sight_and_the_rest_of_the_code_can_be_unfolded(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = cell.metadata["tags"]
            in_sight = bool({"parameters", "show-code"} & set(tags))
            assert in_sight != ("hide-input" in tags)
