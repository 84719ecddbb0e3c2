import re
import subprocess
import sys

import pytest
import xarray as xr
from typer.testing import CliRunner

from analysis_lib import cli, execution, models, results
from analysis_lib.cli import doctor
from analysis_lib.data import fetch
from analysis_lib.errors import BrainbookError, ParameterError


@pytest.fixture
def command():
    """Call the command in this process; gives the result with its output and exception."""
    return lambda *arguments: CliRunner().invoke(cli.app, arguments)


@pytest.fixture
def runs(monkeypatch):
    """Instead of running chapters, note how they would be run."""
    noted = []
    monkeypatch.setattr(execution, "run", lambda *arguments: noted.append(arguments) or "out.ipynb")
    return noted


def test_parameters_are_yaml(command, runs):
    result = command("run", "encoding", "-p", "models=[mfcc, log-mel]", "-p", "n_shuffles=3",
                     "--parameter", "extend=none", "-p", "cortical_maps=true")  # fmt: skip
    assert result.exit_code == 0 and result.output == "out.ipynb\n"
    values = {"profile": "demo", "models": ["mfcc", "log-mel"], "n_shuffles": 3, "extend": "none",
              "cortical_maps": True}  # fmt: skip
    assert runs == [("encoding", values, None, False)]


def test_profile_out_and_force(command, runs):
    command("run", "02", "--profile", "natsound", "--out", "x.ipynb", "--force")
    assert runs == [("02", {"profile": "natsound"}, "x.ipynb", True)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("models", r"-p models: write it as name=value, such as -p models='\[log-mel\]'"),
        ("models=[mfcc", r"-p models=\[mfcc: the value is not YAML"),
    ],
)
def test_parameters_that_cannot_be_parsed(command, runs, text, message):
    error = command("run", "encoding", "-p", text).exception
    assert isinstance(error, ParameterError) and runs == []
    with pytest.raises(ParameterError, match=message):
        raise error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "encodng"], "unknown chapter 'encodng'. Did you mean 'encoding'?"),
        (["run", "encoding", "-p", "model=x"], "'model'. Did you mean 'models'"),
        (["run", "encoding", "-p", "models=mfcc"], "'models' must be list[str], not 'mfcc' (str)"),
        (["run", "encoding", "--profile", "dmo"], "unknown profile 'dmo'. Did you mean 'demo'?"),
        (["book", "--profile", "natsond"], "unknown profile 'natsond'. Did you mean 'natsound'?"),
        (["fetch", "natsound"], "unknown data set 'natsound'. Did you mean 'natsound165'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["brainbook", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    errors = capsys.readouterr().err
    assert stopped.value.code == 1
    assert errors.startswith("brainbook: ") and errors.count("\n") == 1 and message in errors


def test_python_m_analysis_lib_is_the_same_command(tmp_path):
    call = [sys.executable, "-m", "analysis_lib", "run", "encoding", "-p", "oops"]
    reply = subprocess.run(call, capture_output=True, text=True)
    assert reply.returncode == 1 and reply.stdout == ""
    assert reply.stderr.startswith("brainbook: -p oops: write it as name=value")
    assert "Traceback" not in reply.stderr


def test_list_chapters_with_their_parameters(command):
    output = command("list").output
    assert "02_encoding\n" in output and "01_extraction\n" in output
    assert "    n_shuffles = 40  shuffles for the null distribution\n" in output
    assert "01_extraction" not in command("list", "chapters", "enc*").output


def test_list_models_data_profiles_and_results(command):
    lines = command("list", "models", "*mel").output.splitlines()
    assert lines[0].split()[:3] == ["name", "label", "family"]
    assert [line.split()[0] for line in lines[1:]] == ["log-mel"]
    assert "natsound165       179 files     30.2 MB" in command("list", "data", "nat*").output
    assert command("list", "profiles").output.splitlines()[:2] == ["demo", "natsound"]
    assert command("list", "results").output == ""
    results.save(xr.Dataset({"score": ("target", [0.5])}), "scores", model="tiny")
    assert "scores\nmodel" in command("list", "results", "sc*").output.replace(" ", "")
    assert command("list", "results", "x*").output == ""


def test_models_are_listed_with_what_they_need(command, monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path))
    (tmp_path / "models" / "BEATs_iter1").mkdir(parents=True)
    (tmp_path / "models" / "BEATs_iter1" / "BEATs_iter1.pt").write_bytes(b"")
    header, *lines = command("list", "models").output.splitlines()
    table = {line.split()[0]: re.split(r" {2,}", line) for line in lines}
    assert list(table) == models.list_models()
    assert re.split(r" {2,}", header)[-1] == "here and now"
    for name, row in table.items():
        card = models.card(name)
        assert len(row) == 9, row  # two spaces between any two columns, and nowhere else
        assert row[1:6] == [
            card.label, card.family, card.kind, str(len(card.layers)), str(card.sample_rate)
        ]  # fmt: skip
    states = {name: row[-1] for name, row in table.items()}
    assert states["log-mel"] == "runs: handcrafted"
    assert states["small-cnn"] == "runs: untrained"
    assert states["BEATs_iter1"] == "runs: checkpoint is here"
    source = "https://huggingface.co/lpepino/beats_ckpts"
    assert states["BEATs_iter2"] == f"needs BEATs_iter2.pt, 361 MB, from {source}"
    assert states["light-digits"] == "needs 'brainbook train light-digits'"
    assert "encoder.ckpt and masknet.ckpt, size unknown" in states["braindnn_sepformer"]


def test_fetch_says_how_much_and_under_which_licence_before_it_starts(command, monkeypatch):
    monkeypatch.setattr(fetch, "fetch", lambda name: f"folder of {name}")
    output = command("fetch", "natsound165").output.splitlines()
    assert output[0].startswith("natsound165: 179 files, 30.2 MB, none stated; fetch for your own")
    assert output[1] == "  in folder of natsound165"
    everything = command("fetch", "all").output
    assert all(f"{name}: " in everything for name in fetch.datasets())


def test_doctor_when_all_is_well(command, monkeypatch):
    monkeypatch.setattr(doctor, "_packages", lambda: "packages")
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    result = command("doctor")
    lines = result.output.splitlines()
    assert result.exit_code == 0 and len(lines) == 7
    assert all(line.startswith("ok    ") for line in lines)
    assert "no mirror" in lines[-1] and "natsound165 0 of 179 files" in lines[-1]


def test_doctor_says_what_to_mend(command, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINBOOK_RESULTS", str(tmp_path / "file" / "results"))
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path / "absent"))
    monkeypatch.setattr(doctor, "project_root", lambda: tmp_path)
    (tmp_path / "requirements.txt").write_text("# pins\nnumpy==0.0.1\nnot-a-package==3\n")
    result = command("doctor")
    mend = [line for line in result.output.splitlines() if line.startswith("MEND")]
    assert result.exit_code == 1 and len(mend) == 3
    packages, folder, mirror = mend
    assert "2 of 2 packages differ from requirements.txt: numpy " in packages
    assert "not-a-package missing (pinned 3)" in packages and "Run make env" in packages
    assert "cannot write to" in folder and "BRAINBOOK_RESULTS" in folder
    assert f"BRAINBOOK_DATA={tmp_path / 'absent'} is not a folder" in mirror


def test_doctor_counts_the_disk(command, monkeypatch, tmp_path):
    class Usage:
        free = 1_000_000_000

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(BrainbookError, match="1.0 GB free under .* set BRAINBOOK_CACHE to another"):
        doctor._disk()
    Usage.free = 5_000_000_000
    assert doctor._disk().startswith("disk: 5 GB free under")
