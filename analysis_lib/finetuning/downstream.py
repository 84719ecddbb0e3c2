"""What fine-tuning on a brain did to the network as a hearing machine: probes before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from .. import extraction, models, probes, published
from ..data.task_format import Partition, Task
from ..errors import DataError, ParameterError, UnknownNameError
from ..paths import content_key

__all__ = ["downstream_gain", "leaderboard_gain", "with_share"]


def downstream_gain(
    tuned: Mapping[str, str | Path],
    baseline: str | Path,
    tasks: Mapping[str, Task],
    shares: Sequence[float] = (1.0,),
    protocol: str = "linear",
    layers: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Solve tasks with networks before and after fine-tuning.

    Parameters
    ----------
    tuned : mapping of str to path
        By name, files of :func:`analysis_lib.finetuning.checkpoint`.
    baseline : path
        Of the network that they are compared with, such as the one of the frozen baseline.
    tasks : mapping of str to Task
        Scene tasks.
    shares : sequence of float
        Shares of each task's training clips to learn from; the same clips for every network.
    protocol : str
        See :mod:`analysis_lib.probes`.
    layers : sequence of str, optional
        Layers that the probe may read; by default all.
    seed : int
        Decides which clips a share holds.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Returns
    -------
    DataFrame
        A row per network, task and share: ``network``, ``task``, ``share``, ``n_train`` (clips),
        ``train_seconds``, ``baseline`` and ``score`` (the task's first metric), ``gain``.

    Raises
    ------
    ParameterError
        When a share is not above 0 and at most 1.

    Examples
    --------
    >>> from analysis_lib import data, finetuning
    >>> task = data.task("demo-scene")
    >>> finetuning.downstream_gain({"tuned": "tuned.safetensors"}, "frozen.safetensors",
    ...                            {"demo": task}, shares=(1.0, 0.0))
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: a share of training clips lies above 0 ...
    >>> finetuning.downstream_gain({"tuned": "tuned.safetensors"}, "frozen.safetensors",
    ...                            {"demo": task}, shares=(1.0, 0.2))  # doctest: +SKIP
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong:
        raise ParameterError(f"a share of training clips lies above 0 and up to 1, not {wrong[0]}")
    rows = []
    for name, task in tasks.items():
        features = {
            network: extraction.extract(
                models.load("soundnet", checkpoint=file, device=device), task.sounds(), layers
            )
            for network, file in {"baseline": baseline, **tuned}.items()
        }
        for share in shares:
            part = with_share(task, share, seed)
            scores = {
                network: float(
                    probes.evaluate(values, part, protocol, device=device)["mean_score"][0]
                )
                for network, values in features.items()
            }
            n_train = int(np.mean([len(p.train) for p in part.partitions]))
            rows += [
                {
                    "network": network,
                    "task": name,
                    "share": share,
                    "n_train": n_train,
                    "train_seconds": _train_seconds(part),
                    "baseline": scores["baseline"],
                    "score": scores[network],
                    "gain": scores[network] - scores["baseline"],
                }
                for network in tuned
            ]
    return pd.DataFrame(rows)


def leaderboard_gain(scores: pd.Series, baseline: pd.Series) -> pd.Series:
    """Count the places that a network gains on the published HEAR leaderboard.

    The network and its baseline are entered beside the 29 of the leaderboard; the gain is the
    baseline's rank minus the network's, as Freteault et al. (2025) count.

    Parameters
    ----------
    scores, baseline : Series
        By task of the leaderboard; fractions.

    Returns
    -------
    Series
        Places gained, by the tasks that both have; NaN where a score is missing.

    Raises
    ------
    UnknownNameError
        For a task that is not on the leaderboard.
    DataError
        When they have no task in common.

    Examples
    --------
    >>> import pandas as pd
    >>> from analysis_lib import finetuning
    >>> before = pd.Series({"ESC-50": 0.5, "Speech commands 5h": 0.4})
    >>> finetuning.leaderboard_gain(pd.Series({"ESC-50": 0.6}), before)
    ESC-50    7.0
    Name: gain, dtype: float64
    """
    leaderboard = published.table("hear_leaderboard_29models").set_index("Model")
    tasks = [task for task in scores.index if task in baseline.index]
    if not tasks:
        raise DataError("the network and its baseline have no task in common")
    gains = {}
    for task in tasks:
        if task not in leaderboard:
            raise UnknownNameError("task of the HEAR leaderboard", task, leaderboard)
        entered = pd.Series({"network": scores[task], "baseline": baseline[task]})
        ranks = pd.concat([leaderboard[task], entered]).rank(ascending=False)
        gains[task] = ranks["baseline"] - ranks["network"]
    return pd.Series(gains, name="gain")


def with_share(task: Task, share: float, seed: int = 0) -> Task:
    """Give a task with fewer clips to learn from, and the same ones to choose and test on.

    Parameters
    ----------
    task : Task
        Stays as it is.
    share : float
        Of the training clips of each class, rounded up, so that none disappears.
    seed : int
        Decides which clips stay.

    Examples
    --------
    >>> from analysis_lib import data, finetuning
    >>> task = data.task("demo-scene")
    >>> few = finetuning.with_share(task, 0.25)
    >>> [len(part.train) for part in (task.partitions[0], few.partitions[0])]
    [48, 12]
    >>> [len(part.test) for part in (task.partitions[0], few.partitions[0])]
    [16, 16]
    """
    values = {field.name: getattr(task, field.name) for field in fields(Task)}
    return _SmallerTask(**values, share=share, seed=seed)


@dataclass(frozen=True, eq=False)
class _SmallerTask(Task):
    """A task of which only a share of the training clips is used."""

    share: float = 1.0
    seed: int = 0

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """As those of the whole task, with fewer rows to train on."""
        whole = Task.partitions.func(self)
        return tuple(replace(part, train=self._some_of(part.train)) for part in whole)

    @cached_property
    def content_key(self) -> str:
        """Digest that tells shares apart."""
        return content_key(Task.content_key.func(self), self.share, self.seed)

    def _some_of(self, rows: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        kept: set[int] = set()
        for has_label in self.targets[rows].T.astype(bool):
            members = rows[has_label]
            kept.update(rng.permutation(members)[: int(np.ceil(self.share * len(members)))])
        return np.array(sorted(kept), dtype=rows.dtype)


def _train_seconds(task: Task) -> float:
    """Sound to learn from, averaged over folds."""
    seconds = {
        row: soundfile.info(task.path(task.clips[row])).duration
        for part in task.partitions
        for row in part.train
    }
    return float(np.mean([sum(seconds[row] for row in part.train) for part in task.partitions]))
