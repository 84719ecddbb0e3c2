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
    of the modulation plane where frequency rises, or falls, with time. Let ``z`` be the analytic
    signal of the cochleagram filtered in time, and ``even + 1j * odd`` the positive half of the
    spectral filter. Then ``even @ z.real + odd @ z.imag`` is the rising output and
    ``even @ z.real - odd @ z.imag`` the falling one: two real products of a 211 x 211 matrix
    serve two filters, instead of a complex two-dimensional transform of 422 x 1170 for each.
    """

    def __init__(self, n_cached: int = 4):
        super().__init__()
        self._temporal_filters = lru_cache(maxsize=n_cached)(_temporal_filters)
        self._spectral_filters = lru_cache(maxsize=n_cached)(_spectral_filters)

    def forward(self, cochleagrams: torch.Tensor) -> torch.Tensor:
        """Power of each filter's output at each frequency, averaged over time.

        Parameters
        ----------
        cochleagrams : tensor of shape (batch, 211, frame)
            As :class:`CochleagramTransform` gives them.

        Returns
        -------
        tensor of shape (batch, 111, 211)
            63 filters for rising frequency, 48 for falling; within these by scale, then by
            rate. Filters of rate or scale 0 have no direction and come with the first 63.
        """
        return torch.stack([self._power(100 * cochleagram) for cochleagram in cochleagrams])

    def _power(self, cochleagram: torch.Tensor) -> torch.Tensor:
        """Mean power for one sound; its filtered outputs never exist all at once."""
        n_frames = cochleagram.shape[1]
        temporal = self._temporal_filters(n_frames, cochleagram.device)
        spectral = self._spectral_filters(cochleagram.device)
        analytic = torch.fft.ifft(
            torch.fft.fft(cochleagram, n=3 * n_frames) * temporal.analytic[:, None]
        )[..., :n_frames]
        in_phase, quadrature = analytic.real.contiguous(), analytic.imag.contiguous()
        # Rate 0 is the mean over the padded frames, scale 0 the mean over the padded channels.
        still = cochleagram.sum(dim=1) / (3 * n_frames)
        flat = in_phase.sum(dim=1) / (2 * N_CHANNELS)
        # The highest modulation frequency in time belongs to both directions: its other half.
        highest = temporal.nyquist[:, None, None] * temporal.alternating
        fastest = cochleagram @ temporal.alternating

        n_rates, n_scales = len(RATES), len(SCALES)
        rising = cochleagram.new_empty(n_scales + 1, n_rates + 1, N_CHANNELS)
        falling = cochleagram.new_empty(n_scales, n_rates, N_CHANNELS)
        rising[0, 0] = _floored_power(still.sum() / (2 * N_CHANNELS))
        rising[0, 1:] = _floored_power(flat).mean(dim=1, keepdim=True)
        for scale, (even, odd, half) in enumerate(
            zip(spectral.even, spectral.odd, spectral.half, strict=True)
        ):
            rising[1 + scale, 0] = _floored_power((even + half) @ still)
            common = even @ in_phase + highest * (half @ fastest)[:, None]
            difference = odd @ quadrature
            rising[1 + scale, 1:] = _floored_power(common + difference).mean(dim=-1)
            falling[scale] = _floored_power(common - difference).mean(dim=-1)
        return torch.cat([rising.flatten(0, 1), falling.flatten(0, 1)])


def _floored_power(signal: torch.Tensor) -> torch.Tensor:
    return signal.square().clamp_(min=1e-8)


class _TemporalFilters(NamedTuple):
    analytic: torch.Tensor  # (rate, padded frame), complex64: positive frequencies, doubled
    nyquist: torch.Tensor  # (rate,): response at the highest frequency, if there is that bin
    alternating: torch.Tensor  # (frame,): 1, -1, 1, ...


class _SpectralFilters(NamedTuple):
    even: torch.Tensor  # (scale, 211, 211): real part of the positive half
    odd: torch.Tensor  # (scale, 211, 211): imaginary part of the positive half
    half: torch.Tensor  # (scale, 211, 211): real part without the highest frequency


def _temporal_filters(n_frames: int, device: torch.device) -> _TemporalFilters:
    """Gammatone-like responses to each rate, as analytic filters over padded frames."""
    n_padded = 3 * n_frames
    n_positive = n_padded // 2 + 1
    cycles = np.outer(RATES, np.arange(n_frames)) * FRAME_STEP
    impulse = np.sin(2 * np.pi * cycles) * cycles**2 * np.exp(-3.5 * cycles)
    response = np.fft.fft(impulse - impulse.mean(axis=1, keepdims=True), n=n_padded)
    gain = np.abs(response)
    phase = np.exp(1j * np.angle(response))
    gain /= gain.max(axis=1, keepdims=True)
    # The highest rate passes everything above it, too.
    first = gain[-1, :n_positive].argmax()
    last = n_positive + gain[-1, n_positive:].argmax()
    gain[-1, first:last] = 1.0

    response = gain * phase
    has_nyquist = n_padded % 2 == 0
    nyquist = response[:, n_padded // 2].real / n_padded * has_nyquist
    analytic = np.zeros_like(response)
    analytic[:, 1:n_positive] = 2 * response[:, 1:n_positive]
    if has_nyquist:
        analytic[:, n_padded // 2] /= 2
    return _TemporalFilters(
        torch.as_tensor(analytic, dtype=torch.complex64, device=device),
        torch.as_tensor(nyquist, dtype=torch.float32, device=device),
        1.0 - 2.0 * (torch.arange(n_frames, device=device) % 2),
    )


def _spectral_filters(device: torch.device) -> _SpectralFilters:
    """Zero-phase responses to each scale, as matrices from channels to channels."""
    n_padded = 2 * N_CHANNELS
    k = np.arange(N_CHANNELS + 1)
    ratio = (CHANNELS_PER_ERB * k / n_padded / np.array(SCALES)[:, None]) ** 2
    gain = ratio * np.exp(-ratio)
    gain /= gain.max(axis=1, keepdims=True)
    gain[-1, gain[-1].argmax() :] = 1.0  # the finest scale passes everything finer, too

    channel = np.arange(N_CHANNELS)
    lag = channel[:, None] - channel
    waves = np.exp(2j * np.pi / n_padded * k[1:, None, None] * lag) / n_padded
    positive = np.tensordot(gain[:, 1:], waves, axes=1)
    half = np.tensordot(gain[:, 1:-1], waves[:-1], axes=1)
    return _SpectralFilters(
        *(
            torch.as_tensor(part, dtype=torch.float32, device=device)
            for part in (positive.real, positive.imag, half.real)
        )
    )
