"""Models without learned weights: the cochleagram, and modulation filters on top of it."""

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .audio_model import AudioModel
from .cards import ModelCard
from .cochleagram import (
    FIRST_FRAME,
    FRAME_STEP,
    N_CHANNELS,
    CochleagramTransform,
    normalize_level,
)

__all__ = ["Cochleagram", "ModulationFilters", "SpectroTemporal"]

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # Hz
SCALES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)  # cycles per ERB
# The filters' nominal density; the cochleagram's own is 6.112.
CHANNELS_PER_ERB = 6.0


class Cochleagram(AudioModel):
    """The cochleagram itself, at a fixed level (RMS 0.1).

    Layer ``cochleagram``: (batch, frame, 211), 200 frames per second.
    """

    min_samples = CochleagramTransform.min_samples

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = CochleagramTransform()

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        cochleagrams = self.network(normalize_level(waveforms))
        return {"cochleagram": cochleagrams.transpose(1, 2)}

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        return FRAME_STEP, FIRST_FRAME


class SpectroTemporal(AudioModel):
    """Power in 111 spectro-temporal modulation filters at each of 211 frequencies.

    Layer ``avgpool``: (batch, 1, 111, 211), one vector of 23,421 features per sound, of which
    21,531 are distinct: a filter of scale 0 has one value for all frequencies.

    References
    ----------
    Chi, Ru & Shamma (2005), J. Acoust. Soc. Am. 118, 887-906.
    """

    min_samples = CochleagramTransform.min_samples

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = torch.nn.Sequential(CochleagramTransform(), ModulationFilters())

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        return {"avgpool": self.network(normalize_level(waveforms)).unsqueeze(1)}

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        return None


class ModulationFilters(torch.nn.Module):
    """Mean power of a cochleagram in 111 spectro-temporal modulation filters.

    The published filters are defined for 390 frames (2 s); for another number of frames the same
    responses are sampled at that length.

    Parameters
    ----------
    n_cached : int
        Number of lengths to keep filters for.

    Notes
    -----
    A filter is the product of a spectral and a temporal response, restricted to the quadrants
    of the modulation plane where sounds sweep up, or down. Let ``z`` be the cochleagram filtered
    by the positive half of the temporal response, ``even`` the spectral filter and ``odd`` its
    Hilbert transform. Then

        ``even @ z.real + odd @ z.imag``  and  ``even @ z.real - odd @ z.imag``

    are the two directions' outputs: two real products of a 211 x 211 matrix instead of two
    complex two-dimensional Fourier transforms of 422 x 1170.
    """

    def __init__(self, n_cached: int = 4):
        super().__init__()
        self._temporal_filters = lru_cache(maxsize=n_cached)(_temporal_filters)
        self._spectral_filters = lru_cache(maxsize=2)(_spectral_filters)

    def forward(self, cochleagrams: torch.Tensor) -> torch.Tensor:
        """Power of each filter's output at each frequency, averaged over time.

        Parameters
        ----------
        cochleagrams : tensor of shape (batch, 211, frame)

        Returns
        -------
        tensor of shape (batch, 111, 211)
            Downward, then upward sweeps; within these by scale, then by rate. Filters of rate or
            scale 0 have no direction and come once, with the first.
        """
        return torch.stack([self._power(100 * cochleagram) for cochleagram in cochleagrams])

    def _power(self, cochleagram: torch.Tensor) -> torch.Tensor:
        n_frames = cochleagram.shape[-1]
        temporal = self._temporal_filters(n_frames, cochleagram.device)
        spectral = self._spectral_filters(cochleagram.device)
        analytic = torch.fft.ifft(
            torch.fft.fft(cochleagram, n=3 * n_frames) * temporal.positive[:, None]
        )[..., :n_frames]
        in_phase, quadrature = analytic.real.contiguous(), analytic.imag.contiguous()

        # Both Nyquist bins belong to both directions; the products below count the bin where
        # they meet twice.
        sign = spectral.alternating[:, None] * temporal.alternating
        twice = (
            temporal.nyquist[:, None, None] * (cochleagram * sign).sum() * sign
        )  # (rate, 211, frame)

        # Rate 0 is the mean over the padded frames, scale 0 the mean over the padded channels.
        still = cochleagram.sum(dim=1) / (3 * n_frames)
        flat = 2 * in_phase.sum(dim=1) / (2 * N_CHANNELS) ...
