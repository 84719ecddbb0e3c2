"""The labs: solutions pass, stubs do not, mistakes are named, and a class can be graded."""

import re

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from analysis_lib import cli, labs  # noqa: E402
from analysis_lib.errors import (  # noqa: E402
    DataError,
    MissingDataError,
    ParameterError,
    UnknownNameError,
)
from analysis_lib.labs import grading, release  # noqa: E402

LABS = release.sources()
CHECKS = {name: getattr(labs, name) for name in labs.__all__ if name.startswith("check_")}
EXERCISES = {name: check for name, check in CHECKS.items() if isinstance(check, labs.Exercise)}
CHOICES = {name: check for name, check in CHECKS.items() if isinstance(check, labs.Choice)}
MISTAKES = [
    pytest.param(check, mistake, id=f"{check.name}-{mistake.name}")
    for check in EXERCISES.values()
    for mistake in check.mistakes
]


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell):
    return [
        line for line in cell.source.splitlines() if line.strip(" #") and line.strip()[0] != "#"
    ]


def run(cells, namespace=None):
    """Execute cells in this process, without a kernel; gives their names back."""
    namespace = {} if namespace is None else namespace
    for cell in cells:
        exec(re.sub(r"^%.*", "", cell.source, flags=re.M), namespace)
    plt.close("all")
    return namespace


@pytest.fixture(params=LABS)
def lab(request):
    return request.param


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """One cache for all labs, so that each representation is computed once."""
    return str(tmp_path_factory.mktemp("cache"))


# The checks


@pytest.mark.parametrize("check", EXERCISES.values(), ids=EXERCISES)
def test_the_right_answer_passes_whatever_is_drawn(check):
    for seed in range(3):
        assert check(check.right, seed=seed).points == check.points
    assert check(check.right).exercise == check.name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("check", "mistake"), MISTAKES)
def test_each_mistake_gets_its_own_message(check, mistake):
    for seed in range(2):
        with pytest.raises(labs.WrongAnswer) as caught:
            check(mistake.gives, seed=seed)
        assert caught.value.mistake == mistake.name
        assert str(caught.value) == mistake.message


@pytest.mark.parametrize("check", CHOICES.values(), ids=CHOICES)
def test_each_wrong_letter_gets_its_own_message(check):
    assert check(check.right.upper()).points == check.points
    assert len(set(check.wrong.values())) == len(check.wrong) >= 3
    for letter, message in check.wrong.items():
        with pytest.raises(labs.WrongAnswer, match=re.escape(message)):
            check(letter)
    for answer, mistake in ((..., "not-done"), (None, "not-done"), ("x", "not-a-letter")):
        with pytest.raises(labs.WrongAnswer) as caught:
            check(answer)
        assert caught.value.mistake == mistake


def test_messages_are_unique_within_an_exercise_and_names_within_the_labs():
    for check in EXERCISES.values():
        assert len({m.message for m in check.mistakes}) == len(check.mistakes)
        assert len({m.name for m in check.mistakes}) == len(check.mistakes)
    assert len({check.name for check in CHECKS.values()}) == len(CHECKS)
    assert all(name == f"check_{check.name}" for name, check in CHECKS.items())


# Wrong answers as students write them, independent of the mistakes' own formulas.
def scalar_rdm(x):
    n = len(x)
    return np.array([[1 - np.corrcoef(x[i], x[j])[0, 1] for j in range(n)] for i in range(n)])


def leaky_prediction(x, y, folds, alpha):
    x = x - x.mean(axis=0)
    w = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    return x @ w + y.mean(axis=0)


def uncentred_ridge(x_train, y_train, x_test, alpha):
    penalty = alpha * np.eye(x_train.shape[1])
    return x_test @ np.linalg.inv(x_train.T @ x_train + penalty) @ x_train.T @ y_train


def primal_ridge(x_train, y_train, x_test, alpha):
    mx, my = x_train.mean(0), y_train.mean(0)
    x = x_train - mx
    w = np.linalg.inv(x.T @ x + alpha * np.eye(x.shape[1])) @ x.T @ (y_train - my)
    return (x_test - mx) @ w + my


@pytest.mark.parametrize(
    ("check", "answer", "mistake"),
    [
        (labs.check_rdm, scalar_rdm, None),
        (labs.check_rdm, lambda x: np.corrcoef(x), "similarity"),
        (labs.check_rdm, lambda x: scalar_rdm(x.T), "transposed"),
        (labs.check_rdm, lambda x: scalar_rdm(x)[:3], "shape"),
        (labs.check_rdm, lambda x: scalar_rdm(x) + 1e-3, "values"),
        (labs.check_rdm, lambda x: x @ np.ones((3, 3)), "raises"),
        (labs.check_rdm, lambda x: np.full((len(x), len(x)), np.nan), "not-a-number"),
        (labs.check_rdm, lambda x: None, "nothing-returned"),
        (labs.check_rdm, scalar_rdm(np.eye(4) + np.arange(4)), "not-a-function"),
        (labs.check_rdm, ..., "not-done"),
        (labs.check_ridge, primal_ridge, None),
        (labs.check_ridge, uncentred_ridge, "not-centred"),
        (labs.check_ridge, lambda *a: primal_ridge(*a).T, "transposed"),
        (labs.check_cross_validated, leaky_prediction, "not-held-out"),
        (labs.check_zscore, lambda x: (x.T - x.mean(1)).T / x.std(1)[:, None], "wrong-axis"),
        (labs.check_split, lambda folds, fold: np.flatnonzero(folds == fold), "number-of-results"),
        (labs.check_pairs, lambda m: m[np.triu_indices_from(m)], "diagonal"),
        (labs.check_in_order, lambda x, names, wanted: [n for n in wanted], "shape"),
    ],
)  # fmt: skip
def test_answers_as_students_write_them(check, answer, mistake):
    if mistake is None:
        check(answer)
        return
    with pytest.raises(labs.WrongAnswer) as caught:
        check(answer)
    assert caught.value.mistake == mistake


def test_a_function_that_changes_its_input_is_told_so():
    def zscore(x):
        x -= x.mean(axis=0)
        spread = x.std(axis=0)
        x /= np.where(spread > 0, spread, 1)
        return x

    with pytest.raises(labs.WrongAnswer, match="changes the array"):
        labs.check_zscore(zscore)


def test_inputs_are_fresh_every_time():
    seen = []

    def level(wave, level):
        seen.append(wave)
        return labs.check_level.right(wave, level)

    labs.check_level(level)
    labs.check_level(level)
    assert len({wave.tobytes() for wave in seen}) == len(seen) == 4


def test_a_notebook_shows_the_message_alone():
    with pytest.raises(labs.WrongAnswer) as caught:
        labs.check_pooling("a")
    (shown,) = caught.value._render_traceback_()
    assert shown.startswith("Exercise pooling, not yet: the level survives")


# The notebooks


def test_there_are_five_labs_and_every_check_is_used_once():
    assert list(LABS) == [f"lab{k}" for k in range(1, 6)]
    used = [name for lab in LABS for name in release.exercises(release.read(lab))]
    assert sorted(f"check_{name}" for name in used) == sorted(CHECKS)


def test_labs_are_short_and_explained(lab):
    notebook = release.read(lab)
    sizes = [len(lines_of(cell)) for cell in code_of(notebook)]
    assert sum(sizes) <= 200 and max(sizes) <= 25
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    code = " ".join(line for cell in code_of(notebook) for line in lines_of(cell))
    assert len(prose.split()) >= len(code.split())
    assert code_of(notebook)[0].source.startswith("%matplotlib inline\n")
    for promised in ("You will be able to", "You need", "minutes:", "<summary>Hint", "take away"):
        assert promised in prose
    points = sum(exercise.points for exercise in release.exercises(notebook).values())
    assert f"{points} points." in prose


def test_the_points_in_the_text_are_those_of_the_checks(lab):
    notebook = release.read(lab)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    stated = re.findall(r"\*\*Exercise (\d+) \((\d+) points?\)", prose)
    exercises = release.exercises(notebook).values()
    expected = [(str(k), str(e.points)) for k, e in enumerate(exercises, start=1)]
    assert stated == expected


@pytest.mark.filterwarnings("ignore")
def test_the_solutions_pass_all_checks(lab, shared_cache, monkeypatch, capsys):
    monkeypatch.setenv("BRAINBOOK_CACHE", shared_cache)
    values = {
        "lab3": {"n_draws": 4, "n_permutations": 20},
        "lab4": {"trained": "small-cnn", "n_networks": 1},  # training a deep one takes too long
    }
    run(code_of(release.solution(release.read(lab, values=values.get(lab)))))
    said = capsys.readouterr().out
    assert "False" not in said
    assert all(float(d) < 5e-3 for d in re.findall(r"[Ll]argest difference\D* ([\d.e+-]+)", said))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_solutions_pass_on_natural_sounds(lab, shared_cache, monkeypatch, real_data):
    monkeypatch.setenv("BRAINBOOK_CACHE", shared_cache)
    run(code_of(release.solution(release.read(lab, "natsound"))))


def test_the_untouched_student_version_fails_every_check(lab):
    notebook = release.student(release.read(lab))
    namespace = run([code_of(notebook)[0]])
    exercises = release.exercises(release.read(lab))
    n_failed = 0
    for cell in code_of(notebook):
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution"):
            run([cell], namespace)
        if marks.get("grade"):
            with pytest.raises(labs.WrongAnswer) as caught:
                run([cell], namespace)
            assert caught.value.mistake == "not-done"
            n_failed += 1
    assert n_failed == len(exercises)


def test_the_student_version_holds_no_solution(lab):
    source = release.read(lab)
    student = nbformat.writes(release.student(source))
    assert "SOLUTION" not in student
    regions = [
        region
        for cell in source.cells
        for region in re.findall(r"### BEGIN SOLUTION\n(.*?)### END", cell.source, re.S)
    ]
    assert len(regions) == len(release.exercises(source))
    given = {line.strip() for cell in code_of(source) if "exercise" not in cell.metadata
             for line in cell.source.splitlines()}  # fmt: skip
    cells = {line.strip() for cell in code_of(release.student(source))
             for line in cell.source.splitlines()}  # fmt: skip
    for region in regions:
        lines = {line.strip() for line in region.splitlines() if line.strip()}
        assert not (lines - given) & cells
    assert "SOLUTION" not in nbformat.writes(release.solution(source))


def test_nbgrader_finds_what_it_needs(lab):
    source = release.read(lab)
    points = {name: exercise.points for name, exercise in release.exercises(source).items()}
    for notebook in (release.source_for_nbgrader(source), release.student(source)):
        nbformat.validate(notebook)
        marked = [c.metadata["nbgrader"] for c in notebook.cells if "nbgrader" in c.metadata]
        for marks in marked:
            required = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
            assert required <= set(marks) <= required | {"points"}
            assert marks["schema_version"] == 3 and not marks["task"]
            assert re.fullmatch(r"[a-zA-Z0-9_\-]+", marks["grade_id"])
            assert marks["grade"] != marks["solution"] and marks["locked"] == marks["grade"]
        identifiers = [marks["grade_id"] for marks in marked]
        assert len(set(identifiers)) == len(identifiers) == 2 * len(points)
        assert {m["grade_id"]: m["points"] for m in marked if m["grade"]} == points
    assert "### BEGIN SOLUTION" in nbformat.writes(release.source_for_nbgrader(source))


def test_profiles_change_the_parameters_and_nothing_else(lab):
    demo, natsound = (
        release.student(release.read(lab, profile)) for profile in ("demo", "natsound")
    )
    different = [a for a, b in zip(demo.cells, natsound.cells, strict=True) if a.source != b.source]
    (cell,) = different
    assert cell.metadata["tags"] == ["parameters"]
    assert 'profile: str = "demo"  # how real: demo or natsound' in cell.source


def test_what_does_not_exist_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="lab5"):
        release.read("lab9")
    with pytest.raises(UnknownNameError, match="natsound"):
        release.read("lab1", "natsond")
    with pytest.raises(UnknownNameError, match="sounds"):
        release.read("lab1", values={"sound": "x"})
    with pytest.raises(ParameterError, match="must be str"):
        release.read("lab1", values={"sounds": 3})
    text = LABS["lab1"].read_text()
    (tmp_path / "profiles.toml").write_text("")
    for wrong, told in (
        (text.replace('check="level"', 'check="zscore"'), "in pairs"),
        (text.replace("    ### END SOLUTION\n", "", 1), "markers"),
    ):
        (tmp_path / "lab1_wrong.py").write_text(wrong)
        monkeypatch.setattr(release, "sources", lambda: {"lab1": tmp_path / "lab1_wrong.py"})
        with pytest.raises(DataError, match=told):
            release.read("lab1")


# Grading


def answered(lab, answers):
    """Student notebook with the sources of some answers replaced."""
    notebook = release.student(release.read(lab))
    for cell in code_of(notebook):
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "").removesuffix("-answer")
        if cell.metadata.get("nbgrader", {}).get("solution") and name in answers:
            cell.source = answers[name]
    return notebook


def test_a_class_is_graded_and_nobody_stops_the_others(tmp_path, monkeypatch):
    # Only exercises and checks: what lies between takes time, and nothing depends on it.
    imports = "import numpy as np\nfrom scipy.stats import rankdata\nfrom analysis_lib import labs"

    def short(notebook):
        marked = [cell for cell in code_of(notebook) if "nbgrader" in cell.metadata]
        notebook.cells = [nbformat.v4.new_code_cell(imports), *marked]
        return notebook

    source = release.read("lab3")
    good = short(release.solution(source))
    wrong = short(answered("lab3", {
        "rdm": "def rdm(x):\n    return np.corrcoef(x)",
        "pairs": "def pairs(m):\n    while True:\n        pass",
        "optimism": "why_optimistic = 'a'",
        "p_value": "labs.check_p_value = lambda answer: 'right ('\nlabs.WrongAnswer = ValueError",
    }))  # fmt: skip
    for cell in wrong.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "'Exercise spearman: right (2 points)'"
    dead = short(release.solution(source))
    dead.cells.insert(0, nbformat.v4.new_code_cell("import os; os._exit(1)"))
    for student, notebook in (("ada", good), ("bob", wrong), ("dee", dead)):
        (tmp_path / "in" / student).mkdir(parents=True)
        nbformat.write(notebook, tmp_path / "in" / student / "lab3.ipynb")
    (tmp_path / "in" / "cas.ipynb").write_text('{"cells": [')
    nbformat.write(release.student(release.read("lab1")), tmp_path / "in" / "other.ipynb")

    monkeypatch.chdir(tmp_path)
    arguments = [
        "grade",
        "in",
        "--lab",
        "lab3",
        "--out",
        "g.csv",
        "--timeout",
        "120",
        "--jobs",
        "4",
    ]
    monkeypatch.setattr(grading, "CHECK_TIMEOUT", 3.0)
    reply = CliRunner().invoke(cli.app, arguments)
    assert reply.exit_code == 0, reply.output
    grades = pd.read_csv("g.csv", index_col="student", keep_default_na=False)
    assert list(grades.index) == ["ada", "bob", "cas", "dee"]
    assert grades["points"].to_dict() == {"ada": 17, "bob": 1, "cas": 0, "dee": 0}
    assert set(grades["of"]) == {17} and grades.loc["ada", "messages"] == ""
    said = dict(part.split(": ", 1) for part in grades.loc["bob", "messages"].split(" | "))
    assert said["rdm"].startswith("these are correlations")
    assert said["pairs"] == "it took too long, and was interrupted."
    assert said["p_value"] == "there is no answer: name 'p_value' is not defined."
    assert said["spearman"] == "the function is not written yet."
    assert "cannot be read" in grades.loc["cas", "messages"]
    assert "ended its own kernel" in grades.loc["dee", "messages"]


def test_submissions_are_found_at_any_depth(tmp_path):
    for path in ("ada.ipynb", "bob/lab2.ipynb", "cas/lab2/lab2.ipynb", "bob/lab1.ipynb",
                 "bob/.ipynb_checkpoints/lab2.ipynb"):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("{}")
    assert set(grading.find(tmp_path, "lab2")) == {"ada", "bob", "cas"}
    (tmp_path / "cas" / "again.ipynb").write_text("{}")
    with pytest.raises(ParameterError, match="cas has two notebooks"):
        grading.find(tmp_path, "lab2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="no notebook of lab2"):
        grading.find(tmp_path / "empty", "lab2")


def test_all_versions_are_written(tmp_path):
    reply = CliRunner().invoke(cli.app, ["labs", "--out", str(tmp_path), "--profile", "natsound"])
    assert reply.exit_code == 0
    for lab in LABS:
        for name in ("student/{}", "solution/{}", "nbgrader/source/{0}/{0}",
                     "nbgrader/release/{0}/{0}"):  # fmt: skip
            notebook = nbformat.read(tmp_path / f"{name.format(lab)}.ipynb", 4)
            nbformat.validate(notebook)
            assert notebook.metadata["brainbook"] == {"lab": lab, "profile": "natsound"}
    assert "course_id" in (tmp_path / "nbgrader" / "nbgrader_config.py").read_text()
