"""What a sweep file may say, checked against the names that exist."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .. import data, models
from ..data.cortex import RESPONSES
from ..errors import ParameterError, UnknownNameError
from ..probes import PROTOCOLS
from .analyses import ANALYSES, PARAMETERS

__all__ = ["CHAPTER_OF", "Sweep", "read"]

# Chapters of which a sweep makes many runs.
CHAPTER_OF = {"dynamics": "pretraining", "finetune": "finetuning"}
_NAMES = ("models", "responses", "analyses", "tasks", "probes")


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Attributes
    ----------
    name : str
        Of the file.
    models : tuple of str
        Names; patterns are expanded.
    responses, analyses : tuple of str
        Every model is compared with all responses by all analyses.
    tasks, probes : tuple of str
        Every model is probed on all tasks with all protocols.
    seeds : tuple of int
        For the analyses that draw at random.
    parameters : mapping
        Over :data:`analysis_lib.sweeps.analyses.PARAMETERS`.
    dynamics, finetune : tuple of mapping
        A run of the chapter ``pretraining`` or ``finetuning`` for each set of parameters.
    chapters : mapping of str to mapping
        Chapters to execute, with parameters.
    book : bool
        Build the book at the end.
    profile : str
        Of chapters and book.
    device : str
        Where jobs compute, see :func:`analysis_lib.device.resolve_device`.
    gpu : bool
        Ask the cluster for a GPU where a network runs.
    threads : int
        Of each job.
    minutes_per_job : float
        Small requests are packed into jobs of about this length.
    retries : int
        How often a job is started again whose process died.

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> sweep = sweeps.Sweep("small", models=("log-mel", "mfcc"), book=True)
    >>> sweep.profile, sweep.seeds, sweep.minutes_per_job
    ('demo', (0,), 10.0)
    """

    name: str
    models: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    analyses: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    parameters: Mapping[str, object] = field(default_factory=dict)
    dynamics: tuple[Mapping, ...] = ()
    finetune: tuple[Mapping, ...] = ()
    chapters: Mapping[str, Mapping] = field(default_factory=dict)
    book: bool = False
    profile: str = "demo"
    device: str = "auto"
    gpu: bool = False
    threads: int = 1
    minutes_per_job: float = 10.0
    retries: int = 2


def read(path: str | Path) -> Sweep:
    """Read and check a sweep file.

    Raises
    ------
    UnknownNameError
        For a name that does not exist, with the nearest ones.
    ParameterError
        For a file that is not a mapping, or a value of the wrong type.

    Examples
    --------
    >>> from pathlib import Path
    >>> from analysis_lib import sweeps
    >>> n = Path("small.yaml").write_text("models: [log-mel, mfcc]")
    >>> sweep = sweeps.read("small.yaml")
    >>> sweep.name, sweep.models
    ('small', ('log-mel', 'mfcc'))
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ParameterError(f"{path} is not a readable sweep file: {error}") from error
    if not isinstance(content, dict):
        raise ParameterError(f"{path} must map names to values, such as 'models: [log-mel]'")
    known = [name for name in Sweep.__dataclass_fields__ if name != "name"]
    for name in content:
        if name not in known:
            raise UnknownNameError("entry of a sweep file", name, known)
    values = {name: _checked(name, value) for name, value in content.items()}
    sweep = Sweep(path.stem, **values)
    if bool(sweep.responses) != bool(sweep.analyses) or bool(sweep.tasks) != bool(sweep.probes):
        raise ParameterError(
            f"{path}: responses go with analyses, and tasks with probes; one of a pair is missing"
        )
    return sweep


def _checked(name: str, value: object) -> object:
    """One entry of a sweep file, if it is what it should be."""
    if name in _NAMES:
        return _names(name, value)
    if name in ("dynamics", "finetune"):
        return tuple(_chapter_parameters(CHAPTER_OF[name], each) for each in _list(name, value))
    if name == "chapters":
        wanted = value if isinstance(value, dict) else dict.fromkeys(_list(name, value))
        return {chapter: _chapter_parameters(chapter, given) for chapter, given in wanted.items()}
    if name == "parameters":
        if not isinstance(value, dict):
            raise ParameterError(f"parameters must map names to values, not {value!r}")
        for parameter, given in value.items():
            if parameter not in PARAMETERS:
                raise UnknownNameError("parameter of a sweep", parameter, PARAMETERS)
            _require_type(parameter, given, type(PARAMETERS[parameter]))
        return value
    if name == "seeds":
        for seed in _list(name, value):
            _require_type("each of seeds", seed, int)
        return tuple(value)
    if name == "profile":
        return _profile(value)
    kind = Sweep.__dataclass_fields__[name].type
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _require_type(name, value, kind)
    return value


def _profile(name: object) -> str:
    from .. import execution  # with the notebook machinery, which most sweeps do without

    if name not in execution.profiles():
        raise UnknownNameError("profile", str(name), execution.profiles())
    return name


def _names(entry: str, value: object) -> tuple[str, ...]:
    """Names that exist; those of models may be patterns."""
    names = [str(name) for name in _list(entry, value)]
    if entry == "models":
        return tuple(dict.fromkeys(found for name in names for found in _matching(name)))
    kind, known = {
        "responses": ("response data set", RESPONSES),
        "analyses": ("analysis", ANALYSES),
        "tasks": ("task", data.list_tasks()),
        "probes": ("protocol", PROTOCOLS),
    }[entry]
    for name in names:
        if name not in known and not (entry == "tasks" and Path(name).is_dir()):
            raise UnknownNameError(kind, name, known)
    return tuple(dict.fromkeys(names))


def _matching(pattern: str) -> list[str]:
    """Models that a name or pattern stands for."""
    if any(sign in pattern for sign in "*?["):
        found = models.list_models(pattern)
        if not found:
            raise UnknownNameError("model pattern", pattern, models.list_models())
        return found
    models.card(pattern)
    return [pattern]


def _chapter_parameters(chapter: str, given: Mapping | None) -> dict:
    """Parameters of a chapter, if it has them."""
    from .. import execution

    known = execution.chapter_parameters(chapter)
    for name, value in (given or {}).items():
        if name not in known:
            raise UnknownNameError(f"parameter of chapter {chapter!r}", name, known)
        known[name].check(value)
    return json.loads(json.dumps(dict(given or {})))


def _list(name: str, value: object) -> list:
    if not isinstance(value, list):
        raise ParameterError(f"{name} must be a list, such as [a, b], not {value!r}")
    return value


def _require_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParameterError(f"{name} must be {kind.__name__}, not {value!r}")
