"""How much memory and time a request of a sweep will take, before anything is loaded.

Times are those of two cores of 2021, right within a factor of about three; they serve to pack
small requests into one job and to set limits with a margin. Memory follows the formulas by which
the analyses themselves refuse to start.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from .. import models
from ..data.hear import hear_tasks
from ..encoding.nested import nested_cv_bytes
from ..encoding.split_half import split_half_bytes

__all__ = ["GPU_SPEEDUP", "STARTUP_MINUTES", "Cost", "estimate"]

STARTUP_MINUTES = 0.15  # of a process that imports torch and the packages around it
GPU_SPEEDUP = 30  # an assumption: only limits depend on it
_LIBRARIES = 0.7e9  # bytes of such a process before it does anything
_TARGETS_BATCH = 1024

# Sounds, targets, repetitions, and seconds of sound.
RESPONSES: Mapping[str, tuple[int, int, int, float]] = MappingProxyType({
    "nh2015-components": (165, 6, 1, 330.0),
    "nh2015-reconstructed": (165, 11_065, 1, 330.0),
    "nh2015": (165, 7_694, 3, 330.0),
    "b2021": (165, 26_792, 3, 330.0),
})  # fmt: skip
_SMALL = (60, 600, 3, 90.0)  # simulated responses and their twins

# Seconds of computing per second of sound, where it does not follow from the parameters.
_WITHOUT_PARAMETERS = MappingProxyType({"Baseline": 0.22, "Cochleagram": 0.02})
_PER_PARAMETER = 7e-10  # likewise, for each parameter of a network
_PROBE_MINUTES = MappingProxyType({"linear": 0.05, "paper": 0.3, "robust": 2.8})  # of 1,000 clips
_LIGHT_TASK = (600, 600.0)  # clips, and seconds of all, of a task made here
_CHAPTER_MINUTES = 30.0
_TRAINING_MINUTES = 600.0


@dataclass(frozen=True)
class Cost:
    """Memory in bytes, time in minutes."""

    memory: float
    minutes: float


def estimate(request) -> Cost:
    """Estimate the cost of a request of any rule."""
    return _ESTIMATES[request.rule](request)


def _fetch(request) -> Cost:
    if request.model:
        card = models.card(request.model)
        trained = card.kind == "trained-here"
        return Cost(_LIBRARIES, 1.5 if trained else card.download_mb / 600)
    return Cost(_LIBRARIES, 0.2)


def _extract(request) -> Cost:
    card = models.card(request.model)
    weights = 4.0 * (card.parameters or 0)
    speed = _WITHOUT_PARAMETERS.get(card.family, 2e-3 + _PER_PARAMETER * (card.parameters or 0))
    seconds = speed * _seconds_of_sound(request.target) + weights / 2e8
    return Cost(_LIBRARIES + 2 * weights + 0.3e9, seconds / 60)


def _encode(request) -> Cost:
    n_sounds, n_targets, n_repetitions, _ = RESPONSES.get(request.target, _SMALL)
    n_layers = len(models.card(request.model).layers)
    responses = 24.0 * n_sounds * n_targets * n_repetitions  # as read, and averaged
    if request.analysis == "encoding":
        work = nested_cv_bytes(n_sounds, n_targets, n_layers, n_targets_batch=_TARGETS_BATCH)
        seconds = n_targets * (2.5e-4 + 3e-5 * n_layers)
    else:
        n_fits = 1 + (n_repetitions if n_repetitions > 1 else 0)
        work = split_half_bytes(n_sounds // 2, min(n_targets, _TARGETS_BATCH), n_fits)
        seconds = 1.4e-4 * n_targets * n_layers * n_fits
    return Cost(_LIBRARIES + responses + work, (0.3 + seconds) / 60)


def _rsa(request) -> Cost:
    n_sounds, n_targets, n_repetitions, _ = RESPONSES.get(request.target, _SMALL)
    n_layers = len(models.card(request.model).layers)
    draws = max(request.options.get("n_boot", 0), request.options.get("n_permutations", 0))
    subjects = {"nh2015": 8, "b2021": 20}.get(request.target, 1)
    seconds = 0.1 * n_layers + 1e-4 * n_targets + 6.4e-5 * draws * n_layers * subjects
    pairs = 8.0 * n_sounds * (n_sounds - 1) / 2
    memory = 24.0 * n_sounds * n_targets * n_repetitions + 4 * pairs * (n_layers + subjects + 100)
    return Cost(_LIBRARIES + memory, (0.3 + seconds) / 60)


def _probe(request) -> Cost:
    seconds = _clip_seconds().get(request.target)
    n_clips = _LIGHT_TASK[0] if seconds is None else seconds / 4
    card = models.card(request.model)
    features = 4.0 * n_clips * 1000 * len(card.layers)
    minutes = _PROBE_MINUTES[request.analysis] * n_clips / 1000
    return Cost(_LIBRARIES + 0.3e9 + 3 * features, 0.02 + minutes)


def _chapter(request) -> Cost:
    return Cost(2 * _LIBRARIES + 2e9, _CHAPTER_MINUTES)


def _training(request) -> Cost:
    return Cost(2 * _LIBRARIES + 6e9, _TRAINING_MINUTES)


_ESTIMATES = MappingProxyType({
    "fetch": _fetch,
    "extract": _extract,
    "encode": _encode,
    "rsa": _rsa,
    "probe": _probe,
    "dynamics": _training,
    "finetune": _training,
    "chapters": _chapter,
    "book": _chapter,
})  # fmt: skip


def _seconds_of_sound(target: str) -> float:
    """Length of a set of sounds: of the natural sounds, the simulated ones, or a task's clips."""
    if target in ("natsound165", "simulated"):
        return 330.0 if target == "natsound165" else 90.0
    return _clip_seconds().get(target, _LIGHT_TASK[1])


@lru_cache(maxsize=1)
def _clip_seconds() -> Mapping[str, float]:
    """Seconds of all clips of the tasks of HEAR, from those of their training clips."""
    table = Path(__file__).parents[1] / "data" / "tables" / "hear_training_seconds.csv"
    with open(table, encoding="utf-8") as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        seconds = {row["task"]: 1.25 * float(row["seconds"]) for row in rows}
    return {name: seconds[name] for name in hear_tasks().index if name in seconds}
