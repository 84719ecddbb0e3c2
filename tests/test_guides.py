"""The guides: commands that exist, code that imports, messages that the package gives."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from analysis_lib import cli, execution
from analysis_lib.cli.chapters import assignment
from analysis_lib.execution import Parameter
from analysis_lib.generated_pages import write_parameters
from analysis_lib.paths import project_root

ROOT = project_root()
COMMAND = typer.main.get_command(cli.app)


def texts():
    """Every page of prose: guides, the readme, and the prose of the notebooks."""
    pages = [*sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "book/guides").glob("*.md"))]
    found = {page.stem: page.read_text() for page in [*pages, ROOT / "README.md"]}
    for page in sorted((ROOT / "notebooks").glob("9*.py")):
        lines = [line[2:] for line in page.read_text().splitlines() if line.startswith("# ")]
        found[page.stem] = "\n".join(lines)
    return found


def blocks(language):
    return [
        (page, block)
        for page, text in texts().items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    ]


COMMANDS = sorted(
    {
        (page, line.split(" #")[0].strip())
        for page, block in blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"\s*(\S*bin/)?brainbook ", line)
    }
    | {
        (page, line)
        for page, text in texts().items()
        for line in re.findall(r"`(brainbook [^`<…]+)`", text.replace("\n", " "))
    }
)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_on_a_page_exists_and_takes_what_it_is_given(page, line):
    name, *arguments = shlex.split(line)[1:]
    assert name in COMMAND.commands
    if not arguments and COMMAND.commands[name].params and name not in ("book", "list", "train"):
        required = [p for p in COMMAND.commands[name].params if p.required]
        if required:
            return  # only named, in a sentence
    context = COMMAND.commands[name].make_context(name, list(arguments))
    if name == "run":
        given = dict(map(assignment, context.params["parameter"]))
        execution._resolved(context.params["chapter"], {**given, "profile": "demo"})


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_code_on_a_page_parses_and_uses_what_exists(page, block):
    rooms = {}
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("analysis_lib"):
            for alias in node.names:
                name = alias.asname or alias.name
                try:
                    rooms[name] = import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    rooms[name] = getattr(import_module(node.module), alias.name)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in rooms
        ):
            assert hasattr(rooms[node.value.id], node.attr), ast.unparse(node)


def shown_messages():
    """First column of the tables on troubleshooting: what the package says, with gaps."""
    text = (ROOT / "book/guides/troubleshooting.md").read_text()
    text = text.split("## Numbers")[0]
    rows = re.findall(r"^\| (.*?) \|", text, re.M)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def said():
    """Everything that the package, make and papermill say, adjacent pieces of text joined."""
    sources = [*(ROOT / "analysis_lib").rglob("*.py"), ROOT / "Makefile"]
    text = "\n".join(source.read_text() for source in sources)
    text += Path(import_module("papermill.execute").__file__).read_text()
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)


def test_every_message_on_the_page_is_one_that_is_given():
    text = said()
    assert len(shown_messages()) > 30
    for message in shown_messages():
        for piece in message.split("…"):
            piece = piece.strip(" .?,")
            assert len(piece) < 4 or piece in text, f"{message!r}: nobody says {piece!r}"


def test_a_table_of_parameters_shows_what_each_profile_makes_of_them(tmp_path):
    chapters = {
        "02_encoding": {
            "profile": Parameter("profile", str, "demo", "how real"),
            "models": Parameter("models", list, ["a", "b"], "which models"),
            "n": Parameter("n", int, 3, "how many"),
        }
    }
    presets = {"demo": {}, "paper": {"encoding": {"models": list("abcdef"), "n": 9}}}
    write_parameters(tmp_path, chapters, presets)
    rows = (tmp_path / "parameters.md").read_text().splitlines()
    assert rows[0] == "### 02_encoding"
    assert rows[2] == "| Parameter | What it is | in `demo` | in `paper` |"
    assert rows[4] == "| `profile` | how real | `demo` | `paper` |"
    assert rows[5] == "| `models` | which models | `a`, `b` | `a`, `b`, `c`, `d`, … (6 in all) |"
    assert rows[6] == "| `n` | how many | `3` | `9` |"


def test_the_page_of_parameters_is_part_of_a_guide():
    assert "```{include} ../chapters/parameters.md" in texts()["reexecute"]


def test_the_guides_refer_to_pages_that_exist():
    for page in (ROOT / "book").rglob("*.md"):
        if page.parent.name == "chapters":
            continue
        for target in re.findall(r"\]\(([^)#:]+\.(?:md|ipynb))[)#]", page.read_text()):
            file = (page.parent / target).resolve()
            source = ROOT / "notebooks" / f"{file.stem}.py"
            generated = file.parent.name == "chapters" and file.suffix == ".md"
            assert file.is_file() or source.is_file() or generated, f"{page.name}: {target}"
