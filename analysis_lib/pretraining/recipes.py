"""What a run does, as data: sizes, lengths, rates. Three recipes, and any of your own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from ..errors import ParameterError, UnknownNameError
from ..models.residual_transformer import SAMPLE_RATE
from ..training import log_spaced_steps
from .masking import GAP, SHARE
from .network import MASKED_WEIGHT, size_of

__all__ = ["RECIPES", "SCHEDULES", "Recipe", "recipe_of"]

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """Settings of a pretraining run; the defaults are those of the published ``mel256-ec-base``.

    Attributes
    ----------
    size : str
        One of :data:`analysis_lib.pretraining.SIZES`.
    targets : str
        ``"encodec"``, ``"kmeans"``, or a checkpoint of an earlier run (self-training).
    layer : str
        Of that checkpoint, for self-training; by default its last block without the final sum.
    n_codebooks, n_codes : int
    n_steps : int
        Updates.
    batch_size : int
        Crops per update, over all processes.
    seconds : float
        Per crop.
    learning_rate, weight_decay : float
        Of AdamW.
    betas : tuple of float
        Of AdamW.
    schedule : {"constant", "cosine"}
        What the learning rate does after the warm-up: stays, or falls to 0 at the last step.
    warmup : int
        Steps over which the learning rate rises from 0.
    clip_norm : float or None
        Largest norm of the gradient.
    mask_gap, mask_share : int, float
        Frames per gap, and share of frames hidden.
    masked_weight : float
        Of the loss on hidden frames.
    n_checkpoints : int
        Kept at log-spaced steps, besides step 0.
    first_checkpoint : int
        The first step after 0 that is kept.
    held_out : float
        Share of the recordings that is never trained on and that the record's ``validation_``
        columns are measured with.

    Examples
    --------
    >>> from analysis_lib import pretraining
    >>> recipe = pretraining.Recipe(size="tiny", targets="kmeans", n_steps=1000, n_checkpoints=4)
    >>> recipe.n_samples, recipe.checkpoint_steps
    (96000, [0, 1, 10, 100, 1000])
    """

    size: str = "base"
    targets: str = "encodec"
    layer: str = ""
    n_codebooks: int = 8
    n_codes: int = 1024
    n_steps: int = 500_000
    batch_size: int = 128
    seconds: float = 4.0
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    schedule: str = "constant"
    warmup: int = 0
    clip_norm: float | None = None
    mask_gap: int = GAP
    mask_share: float = SHARE
    masked_weight: float = MASKED_WEIGHT
    n_checkpoints: int = 24
    first_checkpoint: int = 1
    held_out: float = 0.05

    def __post_init__(self):
        size_of(self.size)
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("schedule", self.schedule, SCHEDULES)
        positive = ("n_steps", "batch_size", "seconds", "learning_rate", "n_codebooks", "n_codes")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name} must be positive, not {getattr(self, name)!r}")
        if not 0 < self.held_out < 1:
            raise ParameterError(f"held_out must lie between 0 and 1, not {self.held_out!r}")

    @property
    def n_samples(self) -> int:
        """Samples per crop, at 24 kHz."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps whose weights are kept: 0, and log-spaced ones up to the last."""
        first = min(self.first_checkpoint, self.n_steps)
        return log_spaced_steps(self.n_steps, self.n_checkpoints, first)

    def learning_rate_schedule(
        self, optimiser: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the schedule of the learning rate."""
        schedulers = torch.optim.lr_scheduler
        after = max(1, self.n_steps - self.warmup)
        if self.schedule == "cosine":
            main = schedulers.CosineAnnealingLR(optimiser, after)
        else:
            main = schedulers.ConstantLR(optimiser, 1.0, 1)
        if not self.warmup:
            return main
        rise = schedulers.LinearLR(optimiser, 1 / self.warmup, 1.0, self.warmup)
        return schedulers.SequentialLR(optimiser, [rise, main], [self.warmup])


# The two small recipes were chosen by what two processor cores get through in the time that a
# chapter may take, before any brain was compared with them.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "demo": Recipe(
            size="tiny",
            targets="kmeans",
            n_codebooks=4,
            n_codes=32,
            n_steps=100,
            batch_size=16,
            seconds=1.0,
            learning_rate=3e-3,
            schedule="cosine",
            warmup=10,
            n_checkpoints=8,
        ),
        "natsound": Recipe(
            size="mini",
            targets="kmeans",
            n_codebooks=4,
            n_codes=128,
            n_steps=300,
            batch_size=16,
            seconds=2.0,
            learning_rate=2e-3,
            schedule="cosine",
            warmup=30,
            n_checkpoints=10,
        ),
        "paper": Recipe(),
        "paper-self-training": Recipe(targets="", n_codebooks=1, n_steps=150_000, n_checkpoints=12),
    }
)


def recipe_of(recipe: str | Recipe, **changes) -> Recipe:
    """Find a recipe by name, and change some of its settings.

    Raises
    ------
    UnknownNameError
        With the nearest names, of recipes or of settings.

    Examples
    --------
    >>> from analysis_lib import pretraining
    >>> recipe = pretraining.recipe_of("demo", n_steps=20)
    >>> recipe.size, recipe.targets, recipe.n_steps
    ('tiny', 'kmeans', 20)
    >>> pretraining.recipe_of("demo", n_step=20)
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown setting of a recipe 'n_step'...
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UnknownNameError("pretraining recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    for name in changes:
        if name not in Recipe.__dataclass_fields__:
            raise UnknownNameError("setting of a recipe", name, Recipe.__dataclass_fields__)
    return replace(recipe, **changes)
