"""Working off a job: each of its requests in turn, a receipt at the end."""

import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock

from .. import data, extraction, light_zoo, models, probes, results
from ..data.cortex import RESPONSES
from ..errors import AudioNotice, BrainbookError, UnknownNameError
from ..models import checkpoints
from ..paths import atomic_path, results_dir, source_sha256
from .analyses import ANALYSES
from .planning import Request, receipts_dir, uses

__all__ = ["perform"]

log = logging.getLogger("brainbook")

_DEATHS = 2  # of the process during one request, before the request is given up


class _Interrupted(BrainbookError):
    """A request during which the process died, more than once."""


def perform(plan_file: str | Path, name: str, attempt: int = 1) -> dict:
    """Work off one job, unless its receipt is there.

    A request that fails does not stop the others; the receipt says so. Two processes with the
    same job take turns, and the second finds the receipt.

    Parameters
    ----------
    plan_file : path
        As :func:`analysis_lib.sweeps.run` writes it.
    name : str
        Of the job.
    attempt : int
        From 1; up to the last one, an error that the package did not foresee ends the process,
        so that the job is started again.

    Returns
    -------
    dict
        The receipt: ``made`` and ``failed``, an entry per request.

    Raises
    ------
    UnknownNameError
        When the plan has no such job.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from analysis_lib import sweeps
    >>> job = {"requests": [{"rule": "fetch", "model": "log-mell"}], "needs": []}
    >>> content = {"jobs": {"fetch-1": job}, "retries": 0, "device": "cpu"}
    >>> n = Path("plan.json").write_text(json.dumps(content))
    >>> receipt = sweeps.perform("plan.json", "fetch-1")
    >>> receipt["made"], receipt["failed"][0]["error"]
    ([], "UnknownNameError: unknown model 'log-mell'. Did you mean 'log-mel'...
    """
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    if name not in plan["jobs"]:
        raise UnknownNameError("job", name, plan["jobs"])
    job = plan["jobs"][name]
    requests = [Request(**request) for request in job["requests"]]
    receipt = receipts_dir(requests[0].rule) / f"{name}.json"
    receipt.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(receipt.with_suffix(".lock")):
        if receipt.is_file():
            log.info("job %s: done already", name)
            return json.loads(receipt.read_text())
        before = [failure for needed in job["needs"] for failure in _failures(needed)]
        last = attempt > plan["retries"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioNotice)  # thousands of lines in a log
            content = _worked_off(requests, before, receipt.with_suffix(".deaths"), last, plan)
        with atomic_path(receipt) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    return content


def _worked_off(requests, before, deaths_file: Path, last: bool, plan: Mapping) -> dict:
    """Make what is asked for; gives what was made, and what failed and why."""
    made, failed = [], []
    started, start_up = time.time(), time.process_time()
    for request in requests:
        entry = {"request": asdict(request), "started": time.time()}
        try:
            cause = next((f for f in before if uses(request, Request(**f["request"]))), None)
            if cause is not None:
                raise BrainbookError(f"not run, because before it: {cause['error']}")
            with _counting_deaths(deaths_file, request):
                entry["files"] = _MAKERS[request.rule](request, plan["device"])
            made.append({**entry, "seconds": time.time() - entry["started"]})
        except Exception as error:
            if not last and not isinstance(error, BrainbookError):
                raise
            log.error("failed: %s", request, exc_info=not isinstance(error, BrainbookError))
            log.error("%s: %s", type(error).__name__, error)
            failed.append({**entry, "error": f"{type(error).__name__}: {error}"})
    deaths_file.unlink(missing_ok=True)
    return {
        "made": made,
        "failed": failed,
        "source": source_sha256(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "seconds": time.time() - started,
        "cpu_seconds": {"start": start_up, "work": time.process_time() - start_up},
    }


class _counting_deaths:
    """Counts how often the process died during a request.

    One that does not fit in memory must not take those packed with it along for good.
    """

    def __init__(self, path: Path, request: Request):
        self.path, self.request = path, str(request)

    def __enter__(self):
        counts = self._counts()
        if counts.get(self.request, 0) >= _DEATHS:
            raise _Interrupted(
                f"the process died {_DEATHS} times during this (out of memory, or out of time?)"
            )
        self._write({**counts, self.request: counts.get(self.request, 0) + 1})

    def __exit__(self, *_):
        self._write({name: n for name, n in self._counts().items() if name != self.request})

    def _counts(self) -> dict[str, int]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def _write(self, counts: Mapping[str, int]) -> None:
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(counts))


def _failures(job: str) -> list[dict]:
    """Failures in the receipt of a job."""
    receipt = receipts_dir(job.partition("-")[0]) / f"{job}.json"
    return json.loads(receipt.read_text())["failed"] if receipt.is_file() else []


def _fetch(request: Request, device: str) -> list[str]:
    if not request.model:
        _sounds_of(request.target)
        if request.target in RESPONSES:
            _responses(request.target)
        return []
    card = models.card(request.model)
    if card.kind == "trained-here":
        light_zoo.train(card.name, device=device)
    else:
        checkpoints.locate(card)
    return []


def _extract(request: Request, device: str) -> list[str]:
    extraction.features(request.model, _sounds_of(request.target), device=device)
    return []


def _compare(request: Request, device: str) -> list[str]:
    analysis = ANALYSES[request.analysis]
    sounds = data.sounds(request.target)
    result = results.cached(
        request.analysis,
        analysis.function,
        {"dataset": request.target, "model": request.model},
        features=extraction.features(request.model, sounds, device=device),
        responses=_responses(request.target),
        **analysis.arguments(sounds, request.options),
        device=device,
    )
    return [_file(result)]


def _probe(request: Request, device: str) -> list[str]:
    task = data.task(request.target)
    result = results.cached(
        "probes",
        probes.evaluate,
        {"model": request.model, "task": request.target},
        model=extraction.features(request.model, task.sounds(), device=device),
        task=task,
        protocol=request.analysis,
        device=device,
    )
    return [_file(result)]


def _chapter(request: Request, device: str) -> list[str]:
    from .. import execution  # with the notebook machinery, which the other jobs start without

    path = execution.run(request.analysis, request.options)
    return [str(path.relative_to(results_dir()))]


def _book(request: Request, device: str) -> list[str]:
    from .. import execution

    execution.build_book(request.target)
    return []


_MAKERS: Mapping[str, Callable[[Request, str], list[str]]] = MappingProxyType({
    "fetch": _fetch,
    "extract": _extract,
    "encode": _compare,
    "rsa": _compare,
    "probe": _probe,
    "dynamics": _chapter,
    "finetune": _chapter,
    "chapters": _chapter,
    "book": _book,
})  # fmt: skip


def _file(result) -> str:
    """Path of a result below the store."""
    return f"{result.attrs['analysis']}/{result.attrs['key']}.nc"


def _sounds_of(target: str) -> data.Sounds:
    """Sounds of a response data set, a sound set or a task."""
    named = target == "natsound165" or target in RESPONSES
    return data.sounds(target) if named else data.task(target).sounds()


@lru_cache(maxsize=4)
def _responses(name: str):
    """Responses, read once for all requests of a job."""
    return data.responses(name)
