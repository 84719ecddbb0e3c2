"""Cochleagram: how strongly each place along the cochlea responds, over time.

The front end of the SpectroTemporal baseline and of the CochDNN networks, after Feather et al.
(2019) and McDermott & Simoncelli (2011): 211 overlapping filters, half-cosines on an ERB scale,
Hilbert envelopes at 200 Hz, compressed by the power 0.3.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..device import each_core

__all__ = ["CochleagramTransform", "cochlear_filters", "normalize_level"]

SAMPLE_RATE = 20_000
LOW, HIGH = 50.0, 10_000.0  # Hz
N_FILTERS, OVERCOMPLETE = 50, 4
N_CHANNELS = OVERCOMPLETE * (N_FILTERS + 1) - 1 + 2 * OVERCOMPLETE
DECIMATION, N_TAPS = 100, 1001
FRAME_STEP = DECIMATION / SAMPLE_RATE
# The interpolation kernel is centred between two samples, half a sample late.
FIRST_FRAME = (N_TAPS // 2 + 0.5) / SAMPLE_RATE


def normalize_level(waveforms: torch.Tensor, rms: float = 0.1) -> torch.Tensor:
    """Remove the mean and set the root mean square of each waveform.

    Parameters
    ----------
    waveforms : tensor of shape (batch, time)
        At any level.
    rms : float
        Of the result.

    Returns
    -------
    tensor of shape (batch, time), float32
        Silence (or a constant) gives zeros.
    """
    # MPS has no float64.
    precise = waveforms.to(torch.float32 if waveforms.device.type == "mps" else torch.float64)
    centred = precise - precise.mean(dim=-1, keepdim=True)
    level = centred.square().mean(dim=-1, keepdim=True).sqrt()
    # What is left of a constant after its mean is removed is rounding, not sound.
    rounding = 1e-9 * precise.abs().amax(dim=-1, keepdim=True)
    gain = torch.where(level > rounding, rms / level, 0.0)
    return (centred * gain).float()


def cochlear_filters(n_samples: int) -> np.ndarray:
    """Magnitude response of each channel at the bins of a real FFT.

    Parameters
    ----------
    n_samples : int
        Length of the waveform at 20 kHz.

    Returns
    -------
    ndarray of shape (211, n_samples // 2 + 1), float64
        Low to high: 4 low-pass, 203 band-pass and 4 high-pass filters, whose squares sum to 1
        at every bin.
    """
    return _gains(_erb(np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)) - _places()[0][:, None])


def _places() -> tuple[np.ndarray, float]:
    """Place of each channel, and the half width of the band-pass filters, on the ERB scale."""
    n_bands = OVERCOMPLETE * (N_FILTERS + 1) - 1
    centres = np.linspace(_erb(LOW), _erb(HIGH), n_bands + 2)[1:-1]
    places = np.concatenate([centres[:OVERCOMPLETE], centres, centres[-OVERCOMPLETE:]])
    return places, OVERCOMPLETE * (centres[1] - centres[0])


def _gains(distance: np.ndarray) -> np.ndarray:
    """Gain of each channel (211, ...) at distances from its place, on the ERB scale."""
    half_width = _places()[1]
    band = np.where(np.abs(distance) < half_width, np.cos(np.pi / 2 * distance / half_width), 0.0)
    low, high = slice(OVERCOMPLETE), slice(-OVERCOMPLETE, None)
    for ends, beyond in ((low, distance < 0), (high, distance > 0)):
        band[ends] = np.where(beyond[ends], np.sqrt(1 - band[ends] ** 2), 0.0)
    return band / np.sqrt(OVERCOMPLETE)


def _erb(frequency):
    """Count the equivalent rectangular bandwidths below a frequency in Hz."""
    return 9.265 * np.log(1 + frequency / (24.7 * 9.265))


def _decimation_kernel() -> np.ndarray:
    """Windowed sinc from 20 kHz to 200 Hz, as published: window and sinc half a sample apart."""
    position = (np.arange(N_TAPS) - N_TAPS / 2) / DECIMATION
    return np.sinc(position) / DECIMATION * np.kaiser(N_TAPS, 5)


class _FilterBank(NamedTuple):
    """The filters for one length, each cut down to the bins where it is not zero."""

    bins: torch.Tensor  # (channel, width), int64
    weights: torch.Tensor  # (channel, width), float32
    kernel: torch.Tensor  # (tap,), float32


class CochleagramTransform(torch.nn.Module):
    """Cochleagram of equally long 20 kHz waveforms of any length from 1,001 samples.

    The published transform is defined for 2 s; for other lengths its filters are sampled at
    that length's frequencies. Filters are kept for the last few lengths seen.

    Parameters
    ----------
    n_cached : int
        Number of lengths to keep filters for.

    Notes
    -----
    A filter passes only a few of the FFT's bins. They are moved to the start of the spectrum,
    which shifts the sub-band in frequency and leaves its envelope alone, so that nothing as
    large as (channel, frequency) is ever multiplied or stored. The envelopes themselves are
    computed at the full rate: an envelope is not band-limited, and a rate fitted to the
    sub-band's width (even 40 times that width) is visible after compression (1e-4).

    References
    ----------
    McDermott & Simoncelli (2011), Neuron 71, 926-940; Feather et al. (2019), NeurIPS 32.
    """

    min_samples = N_TAPS

    def __init__(self, n_cached: int = 4):
        super().__init__()
        self._filter_bank = lru_cache(maxsize=n_cached)(_filter_bank)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compressed envelopes.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time), float32
            At 20 kHz; used at the level given, clipped to [-1, 1].

        Returns
        -------
        tensor of shape (batch, 211, frame)
            Low to high frequency, 200 frames per second, (time - 1001) // 100 + 1 frames.
            The analysis is circular: the end of a sound reaches into its start.
        """
        n_samples = waveforms.shape[1]
        bank = self._filter_bank(n_samples, waveforms.device)
        # Blocks that stay in the processor's cache; few and large ones where launches cost.
        block_size = 2**18 if waveforms.device.type == "cpu" else 2**25
        n_channels = max(1, block_size // n_samples)
        spectra = torch.fft.rfft(waveforms.clamp(-1, 1), norm="forward")
        spectra = spectra.split(max(1, n_channels // N_CHANNELS))
        blocks = list(zip(bank.bins.split(n_channels), bank.weights.split(n_channels), strict=True))
        pieces = [(spectrum, *block) for spectrum in spectra for block in blocks]

        def envelopes(piece) -> torch.Tensor:
            """Envelopes at 200 Hz of a few channels, shape (batch, channel, frame)."""
            spectrum, bins, weights = piece
            subbands = torch.fft.ifft(spectrum[:, bins] * weights, n=n_samples, norm="forward")
            power = subbands.real.square().addcmul_(subbands.imag, subbands.imag)
            full_rate = power.clamp_(min=1e-16).sqrt_()
            return full_rate.unfold(-1, N_TAPS, DECIMATION) @ bank.kernel

        with each_core(waveforms.device, len(pieces)) as every:
            found = every(envelopes, pieces)
        n = len(blocks)
        together = [torch.cat(found[i : i + n], dim=1) for i in range(0, len(found), n)]
        return (torch.cat(together).clamp(min=0) + 1e-8) ** 0.3


def _filter_bank(n_samples: int, device: torch.device) -> _FilterBank:
    scale = _erb(np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE))
    places, half_width = _places()
    below, above = places - half_width, places + half_width
    below[:OVERCOMPLETE], above[:OVERCOMPLETE] = -np.inf, places[:OVERCOMPLETE]
    below[-OVERCOMPLETE:], above[-OVERCOMPLETE:] = places[-OVERCOMPLETE:], np.inf
    # Only here is a gain not zero; the whole plane would take longer than the sound.
    first, last = np.searchsorted(scale, below, "right"), np.searchsorted(scale, above, "left")
    width = (last - first).max()
    start = np.minimum(first, len(scale) - width)
    bins = start[:, None] + np.arange(width)
    weights = _gains(scale[bins] - places[:, None])
    return _FilterBank(
        torch.as_tensor(bins, device=device),
        torch.as_tensor(weights, dtype=torch.float32, device=device),
        torch.as_tensor(_decimation_kernel(), dtype=torch.float32, device=device),
    )
