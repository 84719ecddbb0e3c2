"""Handing jobs to Snakemake, watching them, and saying what came of them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..device import available_memory
from ..errors import BrainbookError, UnknownNameError
from ..paths import atomic_path, project_root, results_dir
from .planning import RULES, Job, Request, receipts_dir
from .sweep import Sweep

__all__ = ["Report", "done", "run"]

_POLL = 0.5  # seconds between looks at the receipts


@dataclass(frozen=True)
class Report:
    """What came of a sweep.

    Attributes
    ----------
    n_made, n_jobs : int
        Requests that were made, in this run or before, and jobs that ran in this one.
    failed : list of (Request, str, Path)
        Requests that failed, with the error and the job's log.
    missing : list of (Job, Path)
        Jobs that have no receipt: killed, or never started. With their logs.
    seconds : float
    log : Path
        Of Snakemake, all runs of the sweep in one file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from analysis_lib import sweeps
    >>> failed = [(sweeps.Request("fetch", model="BEATs_iter1"), "no weights", Path("fetch.log"))]
    >>> print(sweeps.Report(7, 4, failed, [], seconds=12.3, log=Path("snakemake.log")))
    7 made; 4 jobs ran in 12 s
    FAILED   fetch BEATs_iter1
      no weights
      fetch.log
    """

    n_made: int
    n_jobs: int
    failed: list[tuple[Request, str, Path]]
    missing: list[tuple[Job, Path]]
    seconds: float
    log: Path

    def __str__(self) -> str:
        lines = [f"{self.n_made} made; {self.n_jobs} jobs ran in {self.seconds:.0f} s"]
        lines += [f"FAILED   {what}\n  {error}\n  {log}" for what, error, log in self.failed]
        lines += [f"NOT DONE {job.name}\n  {log}" for job, log in self.missing]
        lines += [f"what Snakemake says: {self.log}"] if self.missing else []
        return "\n".join(lines)


def done(jobs: Sequence[Job]) -> set[str]:
    """Names of the jobs that are done.

    A receipt counts if nothing in it failed, all that it lists is there, and no file of weights
    or of code outside the package is newer.

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> sweep = sweeps.Sweep("small", models=("mfcc",), responses=("simulated-components",),
    ...                      analyses=("rsa-strict",))
    >>> sweeps.done(sweeps.plan(sweep))  # nothing has run yet
    set()
    """
    return {job.name for job in jobs if _is_done(job)}


def _prepare(jobs: Sequence[Job]) -> set[str]:
    """Remove the receipts that do not count, and give the names of the jobs that are done."""
    found = done(jobs)
    for job in jobs:
        if job.name not in found:
            job.receipt.unlink(missing_ok=True)
            job.receipt.with_suffix(".deaths").unlink(missing_ok=True)
    return found


def run(
    sweep: Sweep,
    jobs: Sequence[Job],
    profile: str = "local",
    n_jobs: int | None = None,
    progress: bool = True,
) -> Report:
    """Run the jobs that are not done, and wait for them.

    A run that was killed is continued by running it again.

    Parameters
    ----------
    sweep : Sweep
        What the jobs were planned from.
    jobs : sequence of Job
        As :func:`analysis_lib.sweeps.plan` makes them.
    profile : str
        A folder of ``workflow/profiles``, or a folder of your own like those: where jobs run.
    n_jobs : int, optional
        Jobs at a time; by default as many as there are processors here, or as the profile says.
    progress : bool
        Show a bar.

    Returns
    -------
    Report

    Raises
    ------
    UnknownNameError
        For a profile that does not exist.
    BrainbookError
        When Snakemake is not installed.

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> sweep = sweeps.read("workflow/sweeps/natsound.yaml")  # doctest: +SKIP
    >>> print(sweeps.run(sweep, sweeps.plan(sweep)))  # doctest: +SKIP
    48 made; ...
    >>> sweeps.run(sweeps.Sweep("none"), [], profile="slrum")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown profile of the workflow 'slrum'. ...
    """
    where = _profile(profile)
    started = time.time()
    before = _prepare(jobs)
    folder = results_dir() / "sweeps" / sweep.name
    config = _write_plan(sweep, jobs, folder)
    command = _command(folder, config, where, sweep, n_jobs)
    with open(folder / "snakemake.log", "ab") as stream:
        engine = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=folder)
        try:
            _watch(jobs, lambda: engine.poll() is None, progress)
        finally:
            engine.terminate()  # stopped by hand: jobs that run are asked to stop as well
            engine.wait()
    report = _report(jobs, before, folder, time.time() - started)
    with atomic_path(folder / "report.txt") as temporary:
        temporary.write_text(f"{report}\n")
    return report


def _profile(name: str) -> Path:
    """Find the folder of a profile."""
    profiles = project_root() / "workflow" / "profiles"
    known = [folder.name for folder in profiles.iterdir() if folder.is_dir()]
    if name in known:
        return profiles / name
    if (Path(name) / "config.yaml").is_file():
        return Path(name).resolve()
    raise UnknownNameError("profile of the workflow", name, known)


def _is_done(job: Job) -> bool:
    if not job.receipt.is_file():
        return False
    content = json.loads(job.receipt.read_text())
    files = [results_dir() / file for made in content["made"] for file in made["files"]]
    written = job.receipt.stat().st_mtime
    return (
        not content["failed"]
        and all(file.is_file() for file in files)
        and all(path.stat().st_mtime <= written for path in job.inputs)
    )


def _write_plan(sweep: Sweep, jobs: Sequence[Job], folder: Path) -> Path:
    """Everything that the workflow and its jobs need to know, in one file."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    content = {
        "plan": str(path),
        "command": f"{sys.executable} -m analysis_lib",
        "logs": str(folder / "logs"),
        "receipts": {rule: str(receipts_dir(rule)) for rule in RULES},
        "device": sweep.device,
        "threads": sweep.threads,
        "retries": sweep.retries,
        "jobs": {job.name: job.as_config() for job in jobs},
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return path


def _command(folder: Path, config: Path, profile: Path, sweep: Sweep, n_jobs: int | None) -> list:
    beside = Path(sys.executable).parent
    program = shutil.which("snakemake", path=os.pathsep.join([str(beside), os.environ["PATH"]]))
    if program is None:
        raise BrainbookError(
            "brainbook sweep needs Snakemake: pip install -e '.[cluster]', or put snakemake on PATH"
        )
    command = [program, "--snakefile", project_root() / "workflow" / "Snakefile"]
    command += ["--configfile", config, "--workflow-profile", profile, "--directory", folder]
    if profile.name == "local":
        memory = available_memory(torch.device("cpu")) // 1_000_000
        n_cores = (n_jobs or max(1, (os.cpu_count() or 1) // sweep.threads)) * sweep.threads
        command += ["--cores", str(n_cores), "--resources", f"mem_mb={memory}"]
    elif n_jobs:
        command += ["--jobs", str(n_jobs)]
    return list(map(str, command))


def _watch(jobs: Sequence[Job], goes_on: Callable[[], bool], progress: bool) -> None:
    """Show a bar of the jobs that are done until the engine stops."""
    with tqdm(total=len(jobs), desc="jobs", unit="job", disable=None if progress else True) as bar:
        while True:
            running = goes_on()
            bar.n = sum(job.receipt.is_file() for job in jobs)
            bar.refresh()
            if not running:
                return
            time.sleep(_POLL)


def _report(jobs: Sequence[Job], before: set[str], folder: Path, seconds: float) -> Report:
    n_made, failed, missing = 0, [], []
    for job in jobs:
        log = folder / "logs" / f"{job.name}.log"
        if not job.receipt.is_file():
            missing.append((job, log))
            continue
        content = json.loads(job.receipt.read_text())
        n_made += len(content["made"])
        failed += [(Request(**f["request"]), f["error"], log) for f in content["failed"]]
    n_ran = sum(job.receipt.is_file() and job.name not in before for job in jobs)
    return Report(n_made, n_ran, failed, missing, seconds, folder / "snakemake.log")
