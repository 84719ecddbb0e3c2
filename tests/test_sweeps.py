import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import xarray as xr
import yaml

from analysis_lib import data, models, results, sweeps
from analysis_lib.errors import BrainbookError, ParameterError, UnknownNameError
from analysis_lib.paths import cache_dir, project_root, results_dir
from analysis_lib.sweeps import engine, planning, work
from analysis_lib.sweeps.analyses import ANALYSES

SWEEPS = project_root() / "workflow" / "sweeps"
SMALL = {
    "models": ["log-mel", "mfcc"],
    "responses": ["simulated-components"],
    "analyses": ["encoding", "rsa-strict"],
}


def write(folder, **content):
    path = Path(folder) / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def planned(folder, **content):
    sweep = sweeps.read(write(folder, **content))
    jobs = sweeps.plan(sweep)
    return sweep, jobs, engine._write_plan(sweep, jobs, results_dir() / "sweeps" / sweep.name)


def work_off(jobs, plan, attempt=1):
    return {job.name: sweeps.perform(plan, job.name, attempt) for job in jobs}


@pytest.mark.parametrize(
    "content, error, message",
    [
        ({"models": ["log-mell"]}, UnknownNameError, "'log-mell'. Did you mean 'log-mel'"),
        ({"models": ["mel265-*"]}, UnknownNameError, "unknown model pattern 'mel265-"),
        ({"model": ["mfcc"]}, UnknownNameError, "entry of a sweep file 'model'. Did you mean"),
        ({"responses": ["nh2105"], "analyses": []}, UnknownNameError, "Did you mean 'nh2015'"),
        ({"analyses": ["encodng"]}, UnknownNameError, "unknown analysis 'encodng'. Did you mean"),
        ({"tasks": ["ESC50"], "probes": ["linear"]}, UnknownNameError, "Did you mean 'ESC-50'"),
        ({"probes": ["robst"]}, UnknownNameError, "unknown protocol 'robst'. Did you mean"),
        ({"profile": "natsond"}, UnknownNameError, "Did you mean 'natsound'"),
        ({"parameters": {"n_bot": 3}}, UnknownNameError, "Did you mean 'n_boot'"),
        ({"parameters": {"n_boot": "3"}}, ParameterError, "n_boot must be int, not '3'"),
        ({"chapters": {"encoding": {"model": 1}}}, UnknownNameError, "Did you mean 'models'"),
        ({"models": "mfcc"}, ParameterError, "models must be a list"),
        ({"seeds": ["a"]}, ParameterError, "each of seeds must be int"),
        ({"gpu": 1}, ParameterError, "gpu must be bool, not 1"),
        ({"responses": ["nh2015"]}, ParameterError, "responses go with analyses"),
    ],
)
def test_mistakes_in_a_sweep_file(tmp_path, content, error, message):
    with pytest.raises(error, match=message.replace("[", r"\[")):
        sweeps.read(write(tmp_path, **content))


def test_a_sweep_file_that_is_none(tmp_path):
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ParameterError, match="must map names to values"):
        sweeps.read(tmp_path / "list.yaml")
    with pytest.raises(ParameterError, match="is not a readable sweep file"):
        sweeps.read(tmp_path / "none.yaml")


def test_the_natsound_sweep_is_eight_models_on_three_targets_by_two_protocols():
    jobs = sweeps.plan(sweeps.read(SWEEPS / "natsound.yaml"))
    wanted = [r for job in jobs for r in job.requests if r.rule in ("encode", "rsa", "probe")]
    assert len({r.model for r in wanted}) == 8 and len({r.target for r in wanted}) == 3
    assert Counter(Counter((r.model, r.target) for r in wanted).values()) == {2: 24}
    assert len(set(map(str, wanted))) == 48


def test_the_paper_sweep_has_the_36_models_and_a_cost_for_every_job():
    jobs = sweeps.plan(sweeps.read(SWEEPS / "paper.yaml"))
    compared = [r for job in jobs for r in job.requests if r.rule in ("encode", "rsa")]
    assert len({r.model for r in compared}) == 36
    assert len(compared) == 36 * 3 * 7
    assert {r.analysis for r in compared} == set(ANALYSES)
    assert all(job.cost.memory > 5e8 and job.cost.minutes > 0.1 for job in jobs)
    # what a network of 1.1 billion parameters needs for its weights alone
    large = [job for job in jobs if any(r.model == "dasheng_12B" for r in job.requests)]
    assert max(j.cost.memory for j in large if j.rule == "extract") > 4 * 1_134_047_360
    assert {j.rule for j in jobs if j.gpu} == {"extract", "probe", "dynamics", "finetune"}


def test_jobs_come_after_what_they_need(tmp_path):
    _, jobs, _ = planned(tmp_path, **SMALL, tasks=["demo-notes"], probes=["linear"],
                         chapters=["encoding"], book=True, minutes_per_job=0.001)  # fmt: skip
    place = {job.name: i for i, job in enumerate(jobs)}
    assert all(place[needed] < place[job.name] for job in jobs for needed in job.needs)
    by_rule = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    assert set(by_rule) == {"fetch", "extract", "encode", "rsa", "probe", "chapters", "book"}
    for job in by_rule["encode"]:
        (model,) = {r.model for r in job.requests}
        needed = {r.model for j in jobs if j.name in job.needs for r in j.requests if r.model}
        assert needed == {model}, "a job does not wait for another model"
    (chapter,) = by_rule["chapters"]
    assert {name.partition("-")[0] for name in chapter.needs} == {
        "fetch", "extract", "encode", "rsa", "probe"
    }  # fmt: skip


def test_small_requests_are_packed_and_large_ones_are_not(tmp_path):
    def n_jobs(**more):
        return Counter(job.rule for job in planned(tmp_path, **SMALL, **more)[1])

    assert n_jobs() == {"fetch": 1, "extract": 1, "encode": 1, "rsa": 1}
    assert n_jobs(minutes_per_job=0.0) == {"fetch": 1, "extract": 2, "encode": 2, "rsa": 2}


def test_seeds_matter_where_something_is_drawn(tmp_path):
    _, jobs, _ = planned(tmp_path, **{**SMALL, "analyses": ["rsa-strict", "rsa-bootstrap"]},
                         seeds=[0, 1, 2], parameters={"n_boot": 50})  # fmt: skip
    options = [r.options for job in jobs for r in job.requests if r.model == "mfcc"]
    assert [o["seed"] for o in options if "n_boot" in o] == [0, 1, 2]
    assert sum("folds" in o for o in options) == 1


def test_the_name_of_a_job_is_its_content(tmp_path, monkeypatch):
    def names(**more):
        return [job.name for job in planned(tmp_path, **{**SMALL, **more})[1]]

    before = names()
    assert names() == before
    shared = set(names(responses=["simulated"])) & set(before)
    assert {name.partition("-")[0] for name in shared} == {"extract"}, "the same sounds"
    monkeypatch.setattr(planning, "source_sha256", lambda: "other source")
    assert set(names()).isdisjoint(before)


def test_jobs_make_the_results_of_the_chapters_and_are_done_once(tmp_path, caplog):
    sweep, jobs, plan = planned(tmp_path, **SMALL)
    assert sweeps.done(jobs) == set()
    receipts = work_off(jobs, plan)
    assert sweeps.done(jobs) == {job.name for job in jobs}
    assert sum(len(receipt["made"]) for receipt in receipts.values()) == 1 + 2 + 2 + 2
    assert set(results.load("encoding")["model"]) == {"log-mel", "mfcc"}
    caplog.clear()
    caplog.set_level("INFO", logger="brainbook")
    assert work_off(jobs, plan) == receipts
    assert "computed" not in caplog.text and caplog.text.count("done already") == len(jobs)


def test_a_job_is_done_again_when_what_it_made_is_gone(tmp_path):
    sweep, jobs, plan = planned(tmp_path, **SMALL)
    work_off(jobs, plan)
    encode = next(job for job in jobs if job.rule == "encode")
    file = next(results_dir().glob("encoding/*.nc"))
    kept = file.read_bytes()
    file.unlink()
    assert encode.name not in sweeps.done(jobs)
    file.write_bytes(kept)
    assert encode.name in sweeps.done(jobs)


def test_newer_weights_make_a_job_open_again(tmp_path, monkeypatch):
    _, jobs, plan = planned(tmp_path, **SMALL)
    work_off(jobs, plan)
    weights = tmp_path / "weights"
    weights.write_text("")
    monkeypatch.setattr(planning, "_weights", lambda model: (weights,))
    later = time.time() + 10
    os.utime(weights, (later, later))
    assert {name.partition("-")[0] for name in sweeps.done(jobs)} == {"fetch"}
    os.utime(weights, (1, 1))
    assert sweeps.done(jobs) == {job.name for job in jobs}


def test_one_failing_model_does_not_stop_the_others_and_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path))  # no weights here
    content = {**SMALL, "models": ["log-mel", "BEATs_iter1", "mfcc"], "retries": 0}
    sweep, jobs, plan = planned(tmp_path, **content)
    monkeypatch.setattr(work.checkpoints, "locate", _no_weights)
    receipts = work_off(jobs, plan)
    failed = [f for receipt in receipts.values() for f in receipt["failed"]]
    assert {f["request"]["model"] for f in failed} == {"BEATs_iter1"}
    assert len(failed) == 1 + 1 + 2 and "no weights" in failed[0]["error"]
    assert all("because before it" in f["error"] and "no weights" in f["error"] for f in failed[1:])
    assert set(results.load("encoding")["model"]) == {"log-mel", "mfcc"}
    report = engine._report(jobs, set(), results_dir() / "sweeps" / sweep.name, 1.0)
    assert report.n_made == 1 + 2 + 2 + 2 and len(report.failed) == 4 and not report.missing
    assert "FAILED   fetch BEATs_iter1" in str(report) and ".log" in str(report)
    assert len(sweeps.done(jobs)) == 0, "every job holds something of the failing model"


def test_responses_that_fail_do_not_stop_others_with_the_same_sounds(tmp_path, monkeypatch):
    content = {**SMALL, "models": ["log-mel"], "analyses": ["rsa-strict"]}
    content["responses"] = ["simulated-components", "nh2015-twin"]
    _, jobs, plan = planned(tmp_path, **content)
    load = data.responses

    def broken(name):
        if name == "nh2015-twin":
            raise BrainbookError("the disk is full")
        return load(name)

    monkeypatch.setattr(work, "_responses", broken)
    receipts = work_off(jobs, plan)
    failed = [str(sweeps.Request(**f["request"])) for r in receipts.values() for f in r["failed"]]
    assert failed == ["fetch nh2015-twin", "rsa rsa-strict log-mel nh2015-twin"]
    assert results.load("rsa-strict")["dataset"].tolist() == ["simulated-components"]


def _no_weights(card):
    raise BrainbookError(f"no weights for {card.name}")


def test_an_unforeseen_error_is_tried_again_then_recorded(tmp_path, monkeypatch):
    _, jobs, plan = planned(tmp_path, **SMALL, retries=1)
    work_off(jobs[:2], plan)
    encode = next(job for job in jobs if job.rule == "encode")
    calls = []

    def broken(request, device):
        calls.append(request.model)
        if request.model == "log-mel":
            raise RuntimeError("device lost")
        return []

    monkeypatch.setattr(work, "_MAKERS", {**work._MAKERS, "encode": broken})
    with pytest.raises(RuntimeError, match="device lost"):
        sweeps.perform(plan, encode.name, attempt=1)
    assert not encode.receipt.is_file()
    receipt = sweeps.perform(plan, encode.name, attempt=2)
    assert calls == ["log-mel", "log-mel", "mfcc"]
    assert [f["error"] for f in receipt["failed"]] == ["RuntimeError: device lost"]


def test_a_request_that_kills_its_process_is_given_up_in_the_end(tmp_path, monkeypatch):
    _, jobs, plan = planned(tmp_path, **SMALL)
    work_off(jobs[:2], plan)
    encode = next(job for job in jobs if job.rule == "encode")

    class Killed(BaseException):
        """Stands for a process that ends on the spot."""

    def deadly(request, device):
        if request.model == "log-mel":
            raise Killed
        return []

    monkeypatch.setattr(work._counting_deaths, "__exit__", _only_when_alive(Killed))
    monkeypatch.setattr(work, "_MAKERS", {**work._MAKERS, "encode": deadly})
    for _ in range(2):
        with pytest.raises(Killed):
            sweeps.perform(plan, encode.name)
    receipt = sweeps.perform(plan, encode.name)
    assert [made["request"]["model"] for made in receipt["made"]] == ["mfcc"]
    assert "died 2 times" in receipt["failed"][0]["error"]


def _only_when_alive(killed):
    leave = work._counting_deaths.__exit__
    return lambda self, kind, *rest: None if kind is killed else leave(self, kind, *rest)


def test_names_that_a_run_does_not_know(tmp_path):
    sweep, jobs, plan = planned(tmp_path, **SMALL)
    with pytest.raises(UnknownNameError, match="unknown job"):
        sweeps.perform(plan, "encode-0")
    with pytest.raises(UnknownNameError, match="profile of the workflow 'slrm'. Did you mean"):
        sweeps.run(sweep, jobs, profile="slrm")


def test_without_snakemake_there_is_a_sentence(tmp_path, monkeypatch):
    sweep, jobs, _ = planned(tmp_path, **SMALL)
    monkeypatch.setattr(engine.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BrainbookError, match="needs Snakemake: pip install"):
        sweeps.run(sweep, jobs)


def test_every_rule_of_the_workflow_is_there():
    text = (project_root() / "workflow" / "Snakefile").read_text()
    for rule in planning.RULES:
        assert f'receipts_of("{rule}")' in text
    for profile in ("local", "slurm", "kubernetes"):
        content = (project_root() / "workflow" / "profiles" / profile / "config.yaml").read_text()
        settings = yaml.safe_load(content)
        assert settings["executor"] == profile and settings["keep-going"] is True


@pytest.fixture
def snakemake():
    beside = Path(sys.executable).parent
    path = os.pathsep.join([str(beside), os.environ["PATH"]])
    if shutil.which("snakemake", path=path) is None:
        pytest.skip("needs Snakemake: pip install -e '.[cluster]'")


def start(file):
    command = [sys.executable, "-m", "analysis_lib", "sweep", str(file), "--jobs", "1"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=300):
    end = time.time() + seconds
    while not condition() and process.poll() is None and time.time() < end:
        time.sleep(0.05)
    assert condition()


def n_results():
    return len(list(results_dir().glob("*/[!.]*.nc")))


@pytest.mark.slow
def test_killed_twice_and_continued_nothing_is_computed_twice(tmp_path, snakemake, monkeypatch):
    """The acceptance test of the sweeps, on simulated data."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = write(tmp_path, **{**SMALL, "models": ["log-mel", "mfcc", "small-cnn"]})
    for wanted in (1, 4):
        process = start(file)
        wait_for(lambda wanted=wanted: n_results() >= wanted, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start(file)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    killed = {p.name: results.read(p) for p in results_dir().glob("*/*.nc")}
    assert len(killed) == 6
    logs = (results_dir() / "sweeps" / "small" / "logs").glob("*.log")
    lines = [line for log in logs for line in log.read_text().splitlines()]
    computed = Counter(
        line.partition("(")[2].partition(")")[0]
        for line in lines
        if line.startswith(("computed encoding", "computed rsa"))
    )
    # a result whose computing was cut off is begun again; one that was stored never is
    assert set(computed) == {name.removesuffix(".nc") for name in killed}
    assert sum(computed.values()) <= 6 + 2
    again = subprocess.run(process.args, capture_output=True, text=True)
    assert again.returncode == 0 and "0 jobs ran" in again.stdout

    monkeypatch.setenv("BRAINBOOK_RESULTS", str(tmp_path / "uninterrupted"))
    sweep, jobs, plan = planned(tmp_path, **{**SMALL, "models": ["log-mel", "mfcc", "small-cnn"]})
    work_off(jobs, plan)
    for path in results_dir().glob("*/*.nc"):
        xr.testing.assert_equal(results.read(path), killed[path.name])


def test_the_folders_of_receipts_lie_beside_what_was_made(tmp_path):
    _, jobs, _ = planned(tmp_path, **SMALL)
    folders = {job.rule: job.receipt.parent for job in jobs}
    assert folders["extract"] == cache_dir("jobs") and folders["encode"] == results_dir() / "jobs"
    assert json.loads(json.dumps([job.as_config() for job in jobs]))
    assert all(models.card(r.model) for job in jobs for r in job.requests if r.model)
