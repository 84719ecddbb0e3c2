"""The chapters as texts: what makes them readable, and runnable by every route."""

import ast
import re
import tokenize
import tomllib
from io import StringIO

import jupytext
import nbformat
import numpy as np
import papermill
import pytest

from analysis_lib import data, execution
from analysis_lib.data.hear import write_task
from analysis_lib.paths import project_root

CHAPTERS = execution.chapters()
PROFILES = tomllib.loads((project_root() / "notebooks" / "profiles.toml").read_text())


@pytest.fixture(params=CHAPTERS.values(), ids=CHAPTERS)
def source(request):
    return request.param


@pytest.fixture
def notebook(source):
    return jupytext.read(source)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell):
    """Lines of code: neither empty nor only a comment."""
    return [
        line for line in cell.source.splitlines() if line.strip(" #") and line.strip()[0] != "#"
    ]


def test_figures_are_drawn_inline_from_the_first_cell_of_code(notebook):
    assert code_of(notebook)[0].source.startswith("%matplotlib inline\n")


def test_parameters_are_plain_typed_and_commented(notebook, source):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    tokens = list(tokenize.generate_tokens(StringIO(tagged[0].source).readline))
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        ast.literal_eval(statement.value)
        assert statement.end_lineno in comments, f"{ast.unparse(statement)} has no comment"
    parameters = execution.chapter_parameters(source.stem)
    assert next(iter(parameters)) == "profile"
    for parameter in parameters.values():
        assert parameter.check(parameter.default) == parameter.default


def test_code_is_short(notebook):
    sizes = [len(lines_of(cell)) for cell in code_of(notebook)]
    assert sum(sizes) <= 200 and max(sizes) <= 25


def test_there_is_at_least_as_much_prose_as_code(notebook):
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [line for cell in code_of(notebook) for line in lines_of(cell)]
    assert len(" ".join(prose).split()) >= len(" ".join(code).split())


def test_a_chapter_begins_with_a_title_and_ends_with_what_was_found(notebook, source):
    titles = re.findall(
        r"^#+ .*", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M
    )
    if source.stem >= "90":  # a guide
        assert re.match(r"# [A-Z]", titles[0])
        return
    assert re.match(r"# \d+\. ", titles[0])
    assert titles[-1].lower().startswith("## what we found")


def test_every_figure_has_a_name_a_caption_and_a_description(notebook):
    figures = [cell for cell in code_of(notebook) if "figure" in cell.metadata.get("tags", [])]
    assert figures
    for cell in figures:
        described = cell.metadata["mystnb"]
        assert described["figure"]["name"].startswith("fig-")
        assert described["figure"]["caption"].endswith(".")
        assert len(described["image"]["alt"]) > 20
    names = [cell.metadata["mystnb"]["figure"]["name"] for cell in figures]
    assert len(set(names)) == len(names)


def test_only_public_names_are_imported(notebook):
    code = "\n".join(re.sub(r"^%.*", "", cell.source, flags=re.M) for cell in code_of(notebook))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert not any(alias.name.startswith("_") for alias in node.names)
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), ast.unparse(node)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_chapters_and_parameters_that_exist(profile):
    for chapter, values in PROFILES[profile].items():
        assert chapter in CHAPTERS, f"profile {profile} names the unknown chapter {chapter}"
        known = execution.chapter_parameters(chapter)
        for name, value in values.items():
            known[name].check(value)


def test_figure_names_are_unique_in_the_whole_book():
    names = re.findall(
        r'"name": "(fig-[^"]*)"', "".join(file.read_text() for file in CHAPTERS.values())
    )
    assert len(set(names)) == len(names)


@pytest.mark.filterwarnings("ignore:The specified file")
def test_papermill_reads_the_text_notebooks_as_they_are(source, monkeypatch):
    monkeypatch.chdir(project_root())
    read = papermill.iorw.load_notebook_node(f"notebooks/{source.name}")
    nbformat.validate(read)
    (parameters,) = [c for c in read.cells if "parameters" in c.metadata.get("tags", [])]
    assert parameters.source.startswith("profile: str = ")
    inferred = papermill.inspect_notebook(f"notebooks/{source.name}")
    assert list(inferred) == list(execution.chapter_parameters(source.stem))


@pytest.mark.filterwarnings("ignore:The specified file")
def test_text_notebooks_are_written_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.py").write_text('# %% tags=["parameters"]\nn = 3\n')
    node = papermill.iorw.load_notebook_node("notebooks/a.py")
    papermill.iorw.write_ipynb(node, "notebooks/a.ipynb")
    assert nbformat.read(tmp_path / "notebooks" / "a.ipynb", 4).cells[0].source == "n = 3"
    again = papermill.iorw.load_notebook_node("notebooks/a.ipynb")
    assert again.cells[0].metadata.tags == ["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["paper", "robust"])
def test_chapter_4_runs_with_every_probe(protocol, tmp_path):
    source, rng = data.task("demo-scene"), np.random.default_rng(0)
    names = rng.permutation(source.clips)[:72]
    labels = {name: list(source.labels[name]) for name in names}
    for name in names[::3]:  # so that no model solves it
        labels[name] = [str(rng.choice(source.vocabulary))]
    clips = {
        split: {name: (labels[name], source.path(name)) for name in part}
        for split, part in zip(("train", "valid", "test"), np.split(names, [36, 48]), strict=True)
    }
    metadata = {**source.metadata, "split_mode": "trainvaltest", "licence": "generated"}
    folder = write_task(tmp_path / "tiny", metadata, clips, source.sample_rate)
    parameters = {"protocol": protocol, "tasks": [str(folder)], "n_boot": 50}
    out = execution.run("downstream", parameters, out=tmp_path / "out.ipynb")
    written = "".join(
        output.get("text", "")
        for cell in nbformat.read(out, 4).cells
        for output in cell.get("outputs", [])
    )
    assert ": 72 clips, 4 classes" in written
