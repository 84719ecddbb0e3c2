"""How a network is fine-tuned: every choice by name, and those that were published."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from ..errors import DataError, ParameterError, UnknownNameError
from ..published import table

__all__ = ["LAYERS", "Settings", "published_settings"]

LAYERS = tuple(f"conv{number}" for number in range(1, 8))
STARTS = (*LAYERS, "none")
BASELINES = ("untrained", "frozen", "adapted")
_GROUP = {"bs": 75, "ks": 7, "lr": 1e-5}  # of the published group models


@dataclass(frozen=True)
class Settings:
    """How a network is fine-tuned.

    Two protocols. ``"robust"`` cuts segments that begin with the sound and the features before
    them, gives each volume the features of its own time, keeps frozen layers frozen, divides the
    loss by the number of targets, stops and selects by one criterion, keeps the halves of an
    episode together, begins with the head that suits the network as it is, and draws a new order
    in each epoch. ``"paper"`` does none of that, as published: segments stand alone between
    zeros, frames are counted, statistics of batch normalisation move in every layer, one segment
    a step in one order, half episodes at random.

    Attributes
    ----------
    protocol : {"robust", "paper"}
    start : {"conv1", ..., "conv7", "none"}
        First layer that learns; those before it are frozen. ``"none"``: only the head learns.
    statistics : {"frozen", "trained", "all", "recounted"}
        Which layers' batch normalisation follows what it hears in training: none, those that
        learn, or all of them. ``"recounted"``: none, but all are counted anew over the training
        runs before training begins. ``"auto"``: ``"frozen"`` under robust, so that a network
        differs by what it learned alone; ``"all"`` under paper.
    untrained : bool
        Begin with random weights instead of trained ones.
    n_taps : int
        Volumes of history that the head sees.
    segment_trs, batch_size : int
        Volumes in a segment, and segments in a step.
    head_start : {"auto", "ridge", "zero", "random"}
        What the head begins as: the ridge regression on the features of the network as it is,
        nothing, or random weights. ``"auto"``: ``"ridge"`` under robust, ``"random"`` under paper.
    heads : {"shared", "per-subject"}
        With several subjects: one head that predicts them all, or one for each.
    learning_rate, weight_decay : float
        Of AdamW.
    head_learning_rate : float, optional
        Of the head; by default that of the network.
    warmup_epochs : int, optional
        Epochs in which learning rates rise to their values: Adam's first steps move every weight
        as far as it may, and together too far. By default 3 under robust, 0 under paper.
    max_epochs, patience, plateau_patience : int
        Longest training; evaluations without improvement before it stops, and before the
        learning rate falls to a tenth.
    input_scale : float, optional
        Factor on waveforms in [-1, 1]; by default 256, which the published weights expect, under
        robust, and 1 under paper.
    split : {"auto", "episode", "paper"}
        See :func:`analysis_lib.data.friends.split`; by default that of the protocol.
    precision : {"float32", "bfloat16"}
    seed : int
        Of initial weights and of the order of segments.

    References
    ----------
    Freteault et al. (2025), Imaging Neuroscience.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> settings = finetuning.Settings(start="conv6", n_taps=5)
    >>> settings.statistics, settings.head_start, settings.input_scale
    ('frozen', 'ridge', 256.0)
    >>> settings.baseline("adapted").statistics
    'recounted'
    >>> finetuning.Settings(protocol="paper")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: the paper's protocol takes one segment a step ...
    """

    protocol: str = "robust"
    start: str = "conv4"
    statistics: str = "auto"
    untrained: bool = False
    n_taps: int = 7
    segment_trs: int = 80
    batch_size: int = 4
    head_start: str = "auto"
    heads: str = "shared"
    learning_rate: float = 1e-5
    head_learning_rate: float | None = None
    weight_decay: float = 1e-3
    warmup_epochs: int | None = None
    max_epochs: int = 1000
    patience: int = 15
    plateau_patience: int = 5
    input_scale: float | None = None
    split: str = "auto"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        for name, known in (
            ("protocol", ("robust", "paper")),
            ("start", STARTS),
            ("statistics", ("auto", "frozen", "trained", "all", "recounted")),
            ("head_start", ("auto", "ridge", "zero", "random")),
            ("heads", ("shared", "per-subject")),
            ("split", ("auto", "episode", "paper")),
        ):
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), known)
        for name in ("learning_rate", "head_learning_rate", "weight_decay", "input_scale"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("n_taps", "segment_trs", "batch_size", "max_epochs", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.protocol == "paper" and self.batch_size != 1:
            raise ParameterError(
                "the paper's protocol takes one segment a step (its segments differ in length): "
                "batch_size=1, or protocol='robust'"
            )
        paper = self.protocol == "paper"
        for name, value in (
            ("statistics", "all" if paper else "frozen"),
            ("split", "paper" if paper else "episode"),
            ("head_start", "random" if paper else "ridge"),
        ):
            if getattr(self, name) == "auto":
                object.__setattr__(self, name, value)
        if self.input_scale is None:
            object.__setattr__(self, "input_scale", 1.0 if paper else 256.0)
        if self.warmup_epochs is None:
            object.__setattr__(self, "warmup_epochs", 0 if paper else 3)
        if self.head_learning_rate is None:
            object.__setattr__(self, "head_learning_rate", self.learning_rate)

    def baseline(self, kind: str) -> "Settings":
        """Give the same training with a network that learns nothing.

        Parameters
        ----------
        kind : {"untrained", "frozen", "adapted"}
            Random weights; the trained ones, nothing moved; the trained ones with the statistics
            of batch normalisation, and nothing else, fitted to the sound: counted once before
            training, or under the paper's protocol following it, which is what the paper calls
            its frozen baseline.
        """
        if kind not in BASELINES:
            raise UnknownNameError("baseline", kind, BASELINES)
        adapted = "all" if self.protocol == "paper" else "recounted"
        return replace(
            self,
            start="none",
            statistics=adapted if kind == "adapted" else "frozen",
            untrained=kind == "untrained",
        )

    def as_dict(self) -> dict[str, object]:
        """Every choice, for keys and records."""
        return asdict(self)

    @classmethod
    def of(cls, settings: "Settings | Mapping[str, object] | None") -> "Settings":
        """Make settings from what a caller gave: themselves, a mapping of some, or nothing."""
        if isinstance(settings, Settings):
            return settings
        given = dict(settings or {})
        unknown = [name for name in given if name not in cls.__dataclass_fields__]
        if unknown:
            raise UnknownNameError("setting", unknown[0], cls.__dataclass_fields__)
        return cls(**given)


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # YAML takes 1e-5 for a text
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ParameterError(f"{name} must be a number of at least 0, not {value!r}")
    return number


def published_settings(subject: str, scale: str = "STG", start: str = "conv4") -> Settings:
    """Look up the configuration that Freteault et al. (2025) selected.

    Parameters
    ----------
    subject : str
        ``"sub-01"`` to ``"sub-06"``, or ``"group"``.
    scale : {"STG", "wholebrain"}
        556 voxels of the middle superior temporal gyri, or 210 parcels.
    start : str
        ``"conv4"`` is the paper's choice; see :class:`Settings`.

    Returns
    -------
    Settings
        With ``protocol="paper"``.

    Raises
    ------
    UnknownNameError
        For a subject, scale or start that was not published.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> settings = finetuning.published_settings("sub-01", "STG")
    >>> settings.n_taps, settings.segment_trs, settings.learning_rate
    (6, 80, 1e-05)
    """
    if scale not in ("STG", "wholebrain"):
        raise UnknownNameError("scale", scale, ("STG", "wholebrain"))
    if start not in STARTS:
        raise UnknownNameError("start", start, STARTS)
    if subject == "group":
        row = _GROUP
    else:
        rows = table("freteault_best_models_hparams")
        if subject not in set(rows["subject"]):
            raise UnknownNameError("subject", subject, [*rows["subject"].unique(), "group"])
        rows = rows[(rows["subject"] == subject) & (rows["atlas"] == scale)]
        chosen = rows[["bs", "ks", "lr"]].drop_duplicates()
        if len(chosen) != 1:
            raise DataError(
                f"the published table holds {len(chosen)} configurations of {subject}, {scale}"
            )
        row = chosen.iloc[0].to_dict()
    return Settings(
        protocol="paper",
        start=start,
        n_taps=int(row["ks"]),
        segment_trs=int(row["bs"]),
        batch_size=1,
        learning_rate=float(row["lr"]),
        weight_decay=1e-3,
        patience=15,
        max_epochs=1000,
    )
