"""Running chapters, with tiny chapters in a project of the test's own."""

import nbformat
import pytest

from analysis_lib import execution
from analysis_lib.errors import ParameterError, StorageError, UnknownNameError
from analysis_lib.execution import ChapterError
from analysis_lib.paths import cache_dir, results_dir

TINY = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tiny chapter

# %% tags=["parameters"]
profile: str = "demo"  # how real
models: list[str] = ["log-mel"]  # which models to compare
n_shuffles: int = 3  # shuffles
noise: float = 0.5  # how much noise
layer: str | None = None  # which layer, or None for the best
plot: bool = False

# %%
import sys
print("progress", file=sys.stderr)
print(models, n_shuffles, noise, layer, plot)
"""
FAILING = TINY + '\n# %%\nraise ValueError("no such voxel")\n'
DYING = TINY + "\n# %%\nimport os; os.kill(os.getpid(), 9)\n"
PROFILES = '[natsound.tiny]\nmodels = ["mfcc", "log-mel"]\n[natsound.dying]\nn_shuffles = 9\n'


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project with three chapters; only the package is the real one."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    for name, text in {"01_tiny": TINY, "02_failing": FAILING, "10_dying": DYING}.items():
        (root / "notebooks" / f"{name}.py").write_text(text)
    (root / "notebooks" / "helper.py").write_text("")
    (root / "notebooks" / "profiles.toml").write_text(PROFILES)
    (root / "requirements.txt").write_text("numpy==2.4.6\n")
    monkeypatch.setattr(execution, "project_root", lambda: root)
    for cached in (execution._presets, execution._environment_sha256):
        cached.cache_clear()
    yield root
    for cached in (execution._presets, execution._environment_sha256):
        cached.cache_clear()


@pytest.fixture
def executed(monkeypatch):
    """Instead of executing, note what would be, and write a notebook."""
    calls = []

    def pretend(source, values, target):
        calls.append((source.stem, values))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"executed {source.stem}")

    monkeypatch.setattr(execution, "_execute", pretend)
    return calls


def test_chapters_are_found_in_order():
    assert list(execution.chapters()) == ["tiny", "failing", "dying"]
    assert execution.profiles() == ["demo", "natsound"]


def test_parameters_have_types_defaults_and_explanations():
    found = execution.chapter_parameters("tiny")
    assert {name: (p.type, p.default, p.help) for name, p in found.items()} == {
        "profile": (str, "demo", "how real"),
        "models": (list[str], ["log-mel"], "which models to compare"),
        "n_shuffles": (int, 3, "shuffles"),
        "noise": (float, 0.5, "how much noise"),
        "layer": (str | None, None, "which layer, or None for the best"),
        "plot": (bool, False, ""),
    }


@pytest.mark.parametrize("name", ["tiny", "01", "01_tiny"])
def test_a_chapter_goes_by_name_number_or_file(executed, name):
    execution.run(name, {"profile": "natsound", "noise": 2})
    stem, values = executed[0]
    assert stem == "01_tiny"
    assert values == {"profile": "natsound", "models": ["mfcc", "log-mel"], "n_shuffles": 3,
                      "noise": 2.0, "layer": None, "plot": False}  # fmt: skip
    assert type(values["noise"]) is float


def test_what_is_given_beats_the_profile_and_the_profile_beats_the_chapter(executed):
    execution.run("dying", {"profile": "natsound"})
    execution.run("dying", {"profile": "natsound", "n_shuffles": 1})
    execution.run("dying")
    assert [values["n_shuffles"] for _, values in executed] == [9, 1, 3]


@pytest.mark.parametrize(
    "chapter, parameters, message",
    [
        ("tinny", {}, "unknown chapter 'tinny'. Did you mean 'tiny'"),
        ("03", {}, "unknown chapter '03'"),
        ("tiny", {"profile": "natsond"}, "unknown profile 'natsond'. Did you mean 'natsound'"),
        (
            "tiny",
            {"model": []},
            "unknown parameter of chapter 'tiny' 'model'. Did you mean 'models'",
        ),
    ],
)
def test_unknown_names(executed, chapter, parameters, message):
    with pytest.raises(UnknownNameError, match=message):
        execution.run(chapter, parameters)
    assert executed == []


@pytest.mark.parametrize(
    "name, value, wanted, explanation",
    [
        ("models", "log-mel", r"list\[str\], not 'log-mel' \(str\)", "which models to compare"),
        ("models", ["log-mel", 3], r"list\[str\], not \['log-mel', 3\] \(list\)", "which models"),
        ("n_shuffles", 3.0, r"int, not 3.0 \(float\)", "shuffles"),
        ("n_shuffles", True, r"int, not True \(bool\)", "shuffles"),
        ("noise", "much", r"float, not 'much' \(str\)", "how much noise"),
        ("noise", True, r"float, not True \(bool\)", "how much noise"),
        ("layer", 3, r"str \| None, not 3 \(int\)", "which layer"),
        ("plot", 1, r"bool, not 1 \(int\)", ""),
        ("profile", None, "", ""),
    ],
)
def test_wrong_types_are_refused_with_the_explanation(executed, name, value, wanted, explanation):
    error = UnknownNameError if name == "profile" else ParameterError
    message = "profile" if name == "profile" else f"'{name}' must be {wanted}. {explanation}"
    with pytest.raises(error, match=message):
        execution.run("tiny", {name: value})
    assert executed == []


def test_a_chapter_is_skipped_when_nothing_has_changed(executed, project, caplog):
    caplog.set_level("INFO", logger="brainbook")
    first = execution.run("tiny")
    assert execution.run("tiny") == first and len(executed) == 1
    assert "reused chapter 01_tiny: nothing it depends on has changed" in caplog.text
    execution.run("tiny", {"noise": 0.25})
    assert len(executed) == 2
    source = project / "notebooks" / "01_tiny.py"
    source.write_text(source.read_text() + "\n# %%\n1\n")
    execution.run("tiny")
    assert len(executed) == 3
    execution.run("tiny", force=True)
    assert len(executed) == 4
    (project / "requirements.txt").write_text("numpy==3\n")
    execution._environment_sha256.cache_clear()
    execution.run("tiny")
    assert len(executed) == 5


def test_a_change_of_the_package_is_noticed(executed, monkeypatch):
    execution.run("tiny")
    monkeypatch.setattr(execution, "source_sha256", lambda: "changed")
    execution.run("tiny")
    assert len(executed) == 2


def test_a_change_of_a_file_that_a_parameter_names_is_noticed(executed, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("def model(): pass")
    for n_executed in (1, 1):
        execution.run("tiny", {"models": ["log-mel", f"{mine}:model"]})
        assert len(executed) == n_executed
    mine.write_text("def model(): return 1")
    execution.run("tiny", {"models": ["log-mel", f"{mine}:model"]})
    assert len(executed) == 2


def test_where_the_executed_chapter_goes(executed, tmp_path):
    assert execution.run("tiny").parent == results_dir() / "chapters"
    target = tmp_path / "elsewhere" / "mine.ipynb"
    assert execution.run("tiny", out=target) == target
    assert target.read_text() == "executed 01_tiny" and len(executed) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to .*file"):
        execution.run("tiny", out=tmp_path / "file" / "mine.ipynb")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write to .*BRAINBOOK_CACHE"):
        execution.run("tiny")


def test_an_executed_chapter_holds_its_values_output_and_record():
    target = execution.run("tiny", {"models": ["mfcc"], "noise": 2})
    notebook = nbformat.read(target, 4)
    title, parameters, code = notebook.cells
    assert 'models: list[str] = ["mfcc"]' in parameters.source.replace("'", '"')
    assert (
        "# which models to compare" in parameters.source
        and "noise: float = 2.0" in parameters.source
    )
    assert [output.text for output in code.outputs] == ["['mfcc'] 3 2.0 None False\n"]
    assert "hide-input" in code.metadata.tags and "hide-input" not in parameters.metadata.tags
    record = notebook.metadata.brainbook
    assert record.chapter == "01_tiny" and record.parameters.models == ["mfcc"]
    assert record.seconds > 0 and record.executed.endswith("Z")
    assert list(cache_dir("chapters").glob("*.failed.ipynb")) == []


@pytest.mark.parametrize(
    "chapter, message",
    [
        (
            "failing",
            "chapter 02_failing stopped in cell 4: ValueError: no such voxel\nThe notebook",
        ),
        ("dying", r"chapter 10_dying stopped: its kernel died \(out of memory\?\)"),
    ],
    ids=["error", "death"],
)
def test_a_chapter_that_stops_says_where_and_why(chapter, message):
    with pytest.raises(ChapterError, match=message) as caught:
        execution.run(chapter)
    kept = str(caught.value).rsplit(": ", 1)[1]
    assert kept.endswith(".failed.ipynb")
    outputs = [o for cell in nbformat.read(kept, 4).cells for o in cell.get("outputs", [])]
    assert "['log-mel'] 3 0.5 None False\n" in [output.get("text") for output in outputs]
    assert not results_dir().exists()
    assert list(cache_dir("chapters").glob("*[!d].ipynb")) == []


def test_a_chapter_needs_exactly_one_cell_of_parameters(project):
    (project / "notebooks" / "03_plain.py").write_text("# %%\n1\n")
    with pytest.raises(ChapterError, match="'plain' must have one cell tagged 'parameters'"):
        execution.run("plain")
