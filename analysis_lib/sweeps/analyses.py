"""The analyses that a sweep can ask for, with the arguments that the chapters give them.

The calls are those of the chapters, so that a chapter executed after a sweep finds its results.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .. import data, encoding, rsa

__all__ = ["ANALYSES", "PARAMETERS", "Analysis"]

# What a sweep may set for its analyses, with the defaults.
PARAMETERS: Mapping[str, object] = MappingProxyType(
    {"folds": "auto", "extend": "greedy", "n_boot": 1000, "n_permutations": 1000}
)


@dataclass(frozen=True)
class Analysis:
    """One way to compare a model with responses.

    Attributes
    ----------
    rule : {"encode", "rsa"}
        The rule of the workflow that runs it.
    function : callable
        Takes features, responses, ``device`` and what ``arguments`` gives.
    arguments : callable
        From the sounds and a sweep's parameters to further arguments.
    takes : tuple of str
        Which of :data:`PARAMETERS` it depends on.
    drawn : bool
        Whether it draws at random, so that there is a result for each seed.
    """

    rule: str
    function: Callable
    arguments: Callable[[data.Sounds, Mapping], dict]
    takes: tuple[str, ...] = ()
    drawn: bool = False


def _folds(sounds: data.Sounds, parameters: Mapping):
    return data.folds(parameters["folds"], sounds)


ANALYSES: Mapping[str, Analysis] = MappingProxyType({
    "encoding": Analysis(
        "encode",
        encoding.nested_cv_ridge,
        lambda sounds, p: {"folds": _folds(sounds, p), "extend": p["extend"]},
        ("folds", "extend"),
    ),
    "split-half": Analysis(
        "encode",
        encoding.split_half_ridge,
        lambda sounds, _: {"splits": data.splits("tuckute", sounds)},
    ),
    "rsa-layerwise": Analysis("rsa", rsa.layerwise, lambda *_: {}),
    "rsa-paper": Analysis(
        "rsa",
        rsa.cross_validated,
        lambda sounds, p: {"folds": _folds(sounds, p), "scheme": "paper"},
        ("folds",),
    ),
    "rsa-strict": Analysis(
        "rsa",
        rsa.cross_validated,
        lambda sounds, p: {"folds": _folds(sounds, p), "scheme": "strict"},
        ("folds",),
    ),
    "rsa-bootstrap": Analysis(
        "rsa",
        rsa.bootstrap,
        lambda _, p: {"over": "sounds", "n_boot": p["n_boot"], "seed": p["seed"]},
        ("n_boot",),
        drawn=True,
    ),
    "rsa-permutation": Analysis(
        "rsa",
        rsa.permutation,
        lambda _, p: {"n_permutations": p["n_permutations"], "seed": p["seed"]},
        ("n_permutations",),
        drawn=True,
    ),
})  # fmt: skip
