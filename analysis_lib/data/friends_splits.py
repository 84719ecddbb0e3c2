"""Runs of the Friends data by name: seasons, episodes, halves, and how to divide them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..errors import DataError, ParameterError

__all__ = ["parse_run", "shared_runs", "split"]

_RUN = re.compile(r"s(\d{2})e(\d{2})([a-z])")


class _Named(Protocol):
    name: str


class _HasRuns(Protocol):
    runs: Mapping[str, _Named]


def parse_run(name: str) -> tuple[int, int, str]:
    """Season, episode and half of a run's name.

    Raises
    ------
    DataError
        When it is not of the form ``s01e02a``.
    """
    match = _RUN.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} names no run: runs are named like s01e02a")
    return int(match[1]), int(match[2]), match[3]


def shared_runs(*data: _HasRuns) -> list[str]:
    """Names of the runs that all subjects have, in order."""
    common = set.intersection(*(set(subject.runs) for subject in data))
    return sorted(common, key=parse_run)


def split(
    runs: Iterable[str | _Named],
    scheme: str = "paper",
    seed: int = 42,
    validation: float = 0.25,
    test_season: int = 4,
    train_seasons: Sequence[int] = (1, 2, 3),
) -> dict[str, list[str]]:
    """Divide runs into training, validation and test.

    Parameters
    ----------
    runs : iterable of str or Run
        Names, or the runs themselves; ``data.runs`` will do.
    scheme : {"paper", "episode"}
        ``"paper"``: runs are shuffled, so that the two halves of an episode may part; what they
        share then leaks into validation (146 runs give 109 and 37). ``"episode"``: whole
        episodes are drawn until validation has its share.
    seed : int
        Of ``numpy.random.default_rng``.
    validation : float
        Share of the runs of the training seasons.
    test_season, train_seasons
        Which season is set apart for the test, and which are divided. Others are left out.

    Returns
    -------
    dict of {"train", "validation", "test"} to list of str
        Each in order of season, episode and half.

    Raises
    ------
    DataError
        When there is no run of the test season, or too few to divide.
    """
    if scheme not in ("paper", "episode"):
        raise ParameterError(f"scheme must be 'paper' or 'episode', not {scheme!r}")
    if not 0 < validation < 1:
        raise ParameterError(f"validation is a share between 0 and 1, not {validation}")
    names = sorted((run if isinstance(run, str) else run.name for run in runs), key=parse_run)
    seasons = [parse_run(name)[0] for name in names]
    test = [name for name, season in zip(names, seasons, strict=True) if season == test_season]
    rest = [name for name, season in zip(names, seasons, strict=True) if season in train_seasons]
    if not test:
        there = ", ".join(map(str, sorted(set(seasons)))) or "none"
        raise DataError(
            f"there is no run of season {test_season} to test on (seasons there: {there}). "
            "Choose another test_season, or another subject."
        )
    rng = np.random.default_rng(seed)
    groups = rest if scheme == "paper" else sorted({name[:-1] for name in rest})
    order = [groups[i] for i in rng.permutation(len(groups))]
    if scheme == "paper":
        train = set(order[: int(len(order) * (1 - validation))])
    else:
        train, needed = set(rest), validation * len(rest)
        for episode in reversed(order):
            if len(rest) - len(train) >= needed:
                break
            train -= {name for name in rest if name[:-1] == episode}
    divided = {
        "train": [name for name in rest if name in train],
        "validation": [name for name in rest if name not in train],
        "test": test,
    }
    empty = [part for part, members in divided.items() if not members]
    if empty:
        raise DataError(
            f"{len(rest)} runs of seasons {', '.join(map(str, train_seasons))} are too few to "
            f"divide: nothing is left for {', '.join(empty)}"
        )
    return divided
