"""From recordings to batches: crops, frames, codes and masks."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ..models.residual_transformer import mel_front_end
from .audio import Corpus
from .masking import gap_mask, split_frames
from .recipes import Recipe
from .targets import Targets

__all__ = ["Batches", "VALIDATION"]

VALIDATION = 1 << 40  # number of the step whose crops validate: no training step gets there
Alter = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Batches:
    """Batches of a run, each a pure function of seed, step and part.

    Sound ``i`` of the whole batch of a step depends on ``(seed, step, i)`` alone, however the batch
    is divided. For a GPU they are made one step ahead.

    Parameters
    ----------
    audio : Corpus
    recipe : Recipe
    targets : Targets or None
        None gives labels instead of codes.
    labels : sequence of str
        All of them, in order.
    alter : callable
        ``alter(wave, rng)`` is done with each crop.
    seed : int
    device : torch.device
        Where frames and codes are computed, in float32 whatever the network computes in.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from analysis_lib import pretraining
    >>> waves = 0.1 * np.random.default_rng(0).standard_normal((4, 24_000))
    >>> corpus = pretraining.Corpus(
    ...     [pretraining.Clip(str(i), wave, 24_000, 24_000) for i, wave in enumerate(waves)]
    ... )
    >>> recipe = pretraining.recipe_of("demo", batch_size=2, seconds=0.5)
    >>> targets = pretraining.KMeansTargets(torch.randn(1, 8, 256))
    >>> options = dict(labels=(), alter=lambda wave, rng: wave, seed=0, device=torch.device("cpu"))
    >>> with pretraining.Batches(corpus, recipe, targets, **options) as batches:
    ...     frames, codes, visible, hidden = batches(0)
    ...
    >>> frames.shape, codes.shape, visible.shape, hidden.shape
    (torch.Size([2, 36, 256]), torch.Size([2, 36, 1]), torch.Size([2, 18]), torch.Size([2, 18]))
    """

    def __init__(
        self,
        audio: Corpus,
        recipe: Recipe,
        targets: Targets | None,
        labels: Sequence[str],
        alter: Alter,
        seed: int,
        device: torch.device,
    ):
        self.audio, self.recipe, self.seed, self.device = audio, recipe, seed, device
        self.alter, self.labels = alter, tuple(labels)
        self.front_end = mel_front_end().to(device)
        self.targets = targets if targets is None else targets.to(device)
        self.n_frames = self._count_frames()
        self._readers = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        self._ahead = ThreadPoolExecutor(1)
        self._coming: dict[tuple[int, int, int], Future] = {}

    def __call__(self, step: int, part: int = 0, n_parts: int = 1) -> tuple[torch.Tensor, ...]:
        """One part of the batch of a step, on the device.

        Returns
        -------
        tuple of tensor
            The arguments of :class:`~analysis_lib.pretraining.MaskedAutoencoder` or
            :class:`~analysis_lib.pretraining.LabelledEncoder`.
        """
        coming = self._coming.pop((step, part, n_parts), None)
        batch = self._made(step, part, n_parts) if coming is None else coming.result()
        # A processor that trains has no time to spare; a GPU's waits for it.
        if self.device.type != "cpu" and step + 1 < self.recipe.n_steps:
            following = (step + 1, part, n_parts)
            self._coming[following] = self._ahead.submit(self._made, *following)
        return batch

    def waveforms(self, step: int, part: int = 0, n_parts: int = 1) -> np.ndarray:
        """Let hear what a batch sounds like: array of shape (batch, time), at 24 kHz."""
        return np.stack([crop[0] for crop in self._crops(step, part, n_parts)])

    def frames(self, waves: np.ndarray) -> torch.Tensor:
        """Compute what the network gets of waveforms: tensor of shape (batch, frame, input)."""
        # On a CPU, the spectra of two sounds stay in the cache; those of a whole batch do not.
        at_once = 2 if self.device.type == "cpu" else len(waves)
        parts = torch.from_numpy(waves).to(self.device).split(at_once)
        with torch.no_grad():
            return torch.cat([self.front_end(part)[:, : self.n_frames] for part in parts])

    @torch.no_grad()
    def _made(self, step: int, part: int, n_parts: int) -> tuple[torch.Tensor, ...]:
        waves, hidden, labels = zip(*self._crops(step, part, n_parts), strict=True)
        waves = np.stack(waves)
        frames = self.frames(waves)
        if self.targets is None:
            return frames, torch.tensor(labels, device=self.device)
        codes = self.targets(torch.from_numpy(waves).to(self.device), frames)
        shown = [torch.from_numpy(part).to(self.device) for part in split_frames(np.stack(hidden))]
        return frames, codes[:, : self.n_frames], *shown

    def _crops(
        self, step: int, part: int, n_parts: int
    ) -> list[tuple[np.ndarray, np.ndarray, int]]:
        """Waveform, mask and label of each sound of a part."""
        size = self.recipe.batch_size
        numbers = range(part * size // n_parts, (part + 1) * size // n_parts)
        # Threads help to read files; cutting what is in memory takes less time than they do.
        each = map if self.audio.is_kept else self._readers.map
        return list(each(lambda number: self._crop(step, number), numbers))

    def _crop(self, step: int, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        rng = np.random.default_rng([self.seed, step, number])
        wave, label = self.audio.crop(self.recipe.n_samples, rng)
        hidden = gap_mask(self.n_frames, rng, self.recipe.mask_gap, self.recipe.mask_share)
        number = self.labels.index(label) if self.targets is None else 0
        return self.alter(wave, rng), hidden, number

    def _count_frames(self) -> int:
        """Frames per crop for which there are codes too."""
        if self.targets is None:
            return self.front_end.n_frames(self.recipe.n_samples)
        silence = torch.zeros(1, self.recipe.n_samples, device=self.device)
        with torch.no_grad():
            return self.targets(silence, self.front_end(silence)).shape[1]

    def close(self) -> None:
        """End the threads."""
        for pool in (self._ahead, self._readers):
            pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error) -> None:
        self.close()
