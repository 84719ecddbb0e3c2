"""From a sweep file to jobs: which results, packed how, after what, at which cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from .. import models
from ..data import fetch
from ..models import checkpoints
from ..paths import cache_dir, content_key, results_dir, source_sha256
from .analyses import ANALYSES, PARAMETERS
from .costs import GPU_SPEEDUP, STARTUP_MINUTES, Cost, estimate
from .sweep import CHAPTER_OF, Sweep

__all__ = ["RULES", "Job", "Request", "plan", "receipts_dir", "sound_set", "uses"]

# In the order of the data's way; a job waits for those of the rules before that it builds on.
RULES = (
    "fetch", "extract", "encode", "rsa", "probe", "dynamics", "finetune", "chapters", "book",
)  # fmt: skip
_ALONE = ("dynamics", "finetune", "chapters", "book")
_WITH_GPU = ("extract", "probe", "dynamics", "finetune")
_MARGIN = 3.0  # of the time limit over the estimate


@dataclass(frozen=True)
class Request:
    """One thing to make: a feature set, a result, an executed chapter.

    Attributes
    ----------
    rule : str
        One of :data:`RULES`.
    analysis : str
        An analysis, a probe's protocol, or a chapter; empty for the others.
    model, target : str
        A model; responses, a sound set, a task, or a profile. Empty where it has none.
    options : mapping
        Parameters, and the seed where something is drawn.

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> request = sweeps.Request("rsa", "rsa-strict", "mfcc", "nh2015")
    >>> str(request), request.sounds
    ('rsa rsa-strict mfcc nh2015', 'natsound165')
    """

    rule: str
    analysis: str = ""
    model: str = ""
    target: str = ""
    options: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = [self.analysis, self.model, self.target]
        if self.rule in ("dynamics", "finetune") or "seed" in self.options:
            shown += [f"{name}={value}" for name, value in self.options.items()]
        return " ".join([self.rule, *filter(None, shown)])

    @property
    def sounds(self) -> str:
        """What the features of a request's model are made for."""
        return sound_set(self.target) if self.rule in ("encode", "rsa") else self.target


@dataclass(frozen=True)
class Job:
    """Requests of one rule that one process works off.

    Attributes
    ----------
    name : str
        ``<rule>-<key>``; the key covers the requests and the source of this package.
    requests : tuple of Request
    needs : tuple of str
        Names of the jobs before it.
    cost : Cost
        Largest memory, sum of minutes with the start of the process.
    gpu : bool

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> sweep = sweeps.Sweep("small", models=("mfcc",), responses=("simulated-components",),
    ...                      analyses=("rsa-strict",))
    >>> job = sweeps.plan(sweep)[-1]
    >>> job.rule, len(job.needs), list(map(str, job.requests))
    ('rsa', 2, ['rsa rsa-strict mfcc simulated-components'])
    """

    name: str
    requests: tuple[Request, ...]
    needs: tuple[str, ...]
    cost: Cost
    gpu: bool

    @property
    def rule(self) -> str:
        """Rule of the workflow that runs it."""
        return self.requests[0].rule

    @property
    def receipt(self) -> Path:
        """File that says what the job made; it is there when the job is done."""
        return receipts_dir(self.rule) / f"{self.name}.json"

    @property
    def inputs(self) -> list[Path]:
        """Files outside the package that the job depends on, as far as they are here."""
        return sorted({path for request in self.requests for path in _files(request)})

    def as_config(self) -> dict:
        """Reduce the job to what the workflow needs to know."""
        return {
            "requests": [asdict(request) for request in self.requests],
            "needs": list(self.needs),
            "mem_mb": round(self.cost.memory / 1e6),
            "minutes": round(5 + _MARGIN * self.cost.minutes),
            "gpu": int(self.gpu),
        }


def receipts_dir(rule: str) -> Path:
    """Folder of the receipts of a rule: beside what its jobs make."""
    return (cache_dir if rule in ("fetch", "extract") else results_dir)() / "jobs"


def sound_set(responses: str) -> str:
    """Name of the sounds that responses belong to; equal where the sounds are."""
    simulated = responses.startswith("simulated") or responses.endswith("-twin")
    return "simulated" if simulated else "natsound165"


def plan(sweep: Sweep) -> list[Job]:
    """Turn a sweep into jobs, in an order in which they can run.

    Examples
    --------
    >>> from analysis_lib import sweeps
    >>> sweep = sweeps.Sweep("small", models=("mfcc",), responses=("simulated-components",),
    ...                      analyses=("rsa-strict",))
    >>> [job.rule for job in sweeps.plan(sweep)]
    ['fetch', 'extract', 'rsa']
    """
    jobs: list[Job] = []
    requests = list(_requests(sweep))
    for rule in RULES:
        for pack in _packed([r for r in requests if r.rule == rule], sweep):
            jobs.append(_job(pack, jobs, sweep))
    return jobs


def _requests(sweep: Sweep) -> Iterator[Request]:
    """Everything a sweep asks for, with what that needs."""
    for target in (*sweep.responses, *sweep.tasks):
        yield Request("fetch", target=target)
    for model in sweep.models:
        if models.card(model).kind in ("published", "trained-here"):
            yield Request("fetch", model=model)
        for target in dict.fromkeys([*map(sound_set, sweep.responses), *sweep.tasks]):
            yield Request("extract", model=model, target=target)
        for target in sweep.responses:
            for name in sweep.analyses:
                for options in _options(name, sweep):
                    yield Request(ANALYSES[name].rule, name, model, target, options)
        for target in sweep.tasks:
            for protocol in sweep.probes:
                yield Request("probe", protocol, model, target)
    for rule in ("dynamics", "finetune"):
        for parameters in getattr(sweep, rule):
            options = {"profile": sweep.profile, **parameters}
            yield Request(rule, CHAPTER_OF[rule], options=options)
    for chapter, parameters in sweep.chapters.items():
        yield Request("chapters", chapter, options={"profile": sweep.profile, **parameters})
    if sweep.book:
        yield Request("book", target=sweep.profile)


def _options(name: str, sweep: Sweep) -> Iterator[dict]:
    """Parameters that an analysis depends on, once for each seed if it draws."""
    parameters = {**PARAMETERS, **sweep.parameters}
    chosen = {name: parameters[name] for name in ANALYSES[name].takes}
    if not ANALYSES[name].drawn:
        yield chosen
        return
    for seed in sweep.seeds:
        yield {**chosen, "seed": seed}


def _packed(requests: Sequence[Request], sweep: Sweep) -> Iterator[list[Request]]:
    """Pack requests in order until a job is worth the start of a process."""
    pack, minutes = [], 0.0
    for request in requests:
        pack.append(request)
        minutes += _cost(request, sweep).minutes
        if minutes >= sweep.minutes_per_job or request.rule in _ALONE:
            yield pack
            pack, minutes = [], 0.0
    if pack:
        yield pack


def _job(requests: Sequence[Request], before: Sequence[Job], sweep: Sweep) -> Job:
    costs = [_cost(request, sweep) for request in requests]
    minutes = sum(cost.minutes for cost in costs)
    rule = requests[0].rule
    key = content_key([asdict(request) for request in requests], source_sha256())
    return Job(
        f"{rule}-{key}",
        tuple(requests),
        tuple(job.name for job in before if any(_builds_on(r, job) for r in requests)),
        Cost(max(cost.memory for cost in costs), STARTUP_MINUTES + minutes),
        sweep.gpu and rule in _WITH_GPU,
    )


def _cost(request: Request, sweep: Sweep) -> Cost:
    cost = estimate(request)
    on_gpu = sweep.gpu and request.rule in _WITH_GPU
    return Cost(cost.memory, cost.minutes / (GPU_SPEEDUP if on_gpu else 1))


def _builds_on(request: Request, job: Job) -> bool:
    """Whether a request uses something that a job makes."""
    if request.rule in ("chapters", "book"):
        return RULES.index(job.rule) < RULES.index(request.rule)
    if job.rule not in ("fetch", "extract"):
        return False
    return any(uses(request, made) or _waits_for(request, made) for made in job.requests)


def _waits_for(request: Request, made: Request) -> bool:
    """Whether the sounds of a feature set come with what is fetched."""
    if request.rule != "extract" or made.rule != "fetch" or made.model:
        return False
    return request.target in (made.target, sound_set(made.target))


def uses(request: Request, made: Request) -> bool:
    """Whether a request cannot be made without what was fetched or extracted."""
    if made.rule == request.rule:
        return False
    if made.rule == "extract":
        return (request.model, request.sounds) == (made.model, made.target)
    return request.model == made.model if made.model else request.target == made.target


def _files(request: Request) -> tuple[Path, ...]:
    """Weights and code outside the package: a job is done again when one of them is newer."""
    if not request.model or request.rule == "fetch":
        return ()
    if ".py:" in request.model:
        return (Path(request.model.rpartition(":")[0]).resolve(),)
    return _weights(request.model)


@lru_cache(maxsize=1024)
def _weights(model: str) -> tuple[Path, ...]:
    """Files of weights of a model of the zoo, as far as they are here."""
    card = models.card(model)
    if card.kind == "trained-here":
        paths = [checkpoints.trained_here(card, must_exist=False)]
    else:
        paths = [fetch.find(f"models/{card.name}", file) for file in card.checkpoint.split()]
    return tuple(path for path in paths if path is not None and path.exists())
