"""Spectrogram front ends that published networks were trained on.

They are modules without weights: their tables are buffers that no checkpoint holds, so that they
move to a device with the network.
"""

import math

import numpy as np
import torch
from torch import nn

__all__ = ["KaldiSpectrogram", "DecibelMel", "kaldi_mel", "mel_htk", "triangular_filters"]

FLOAT32_EPS = 2.0**-23


class KaldiSpectrogram(nn.Module):
    """Log spectrogram as Kaldi computes it, whole windows only and without dither.

    Each window is centred on its own mean, pre-emphasised (its first sample against itself),
    tapered, padded with zeros to a power of two and transformed.

    Parameters
    ----------
    sample_rate : int
        In Hz.
    frame_length, frame_shift : int
        Samples per window and between windows.
    n_mels : int or None
        Triangular mel filters; None leaves all FFT bins, the first of which then holds the
        log energy of the window before pre-emphasis (at least 0), as in Kaldi.
    fmin, fmax : float
        Edges of the lowest and highest filter in Hz; ``fmax`` defaults to half the sample rate.
    window : {"povey", "hanning", "hann"}
        Kaldi's own, the symmetric or the periodic Hann window.
    preemphasis : float
        0 for none.
    remove_dc : bool
        Whether to centre each window on its mean.
    power : {1, 2}
        Magnitude or power spectrum.
    log_floor : float or None
        Smallest value that enters the logarithm.
    log_offset : float
        Added before the logarithm.
    n_fft : int, optional
        Length of the transform; by default the next power of two. Narrow mel filters need more.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_length: int,
        frame_shift: int,
        n_mels: int | None,
        fmin: float = 20.0,
        fmax: float | None = None,
        window: str = "povey",
        preemphasis: float = 0.97,
        remove_dc: bool = True,
        power: int = 2,
        log_floor: float | None = FLOAT32_EPS,
        log_offset: float = 0.0,
        n_fft: int | None = None,
    ):
        super().__init__()
        self.frame_length, self.frame_shift = frame_length, frame_shift
        self.preemphasis, self.remove_dc = preemphasis, remove_dc
        self.power, self.log_floor, self.log_offset = power, log_floor, log_offset
        self.n_fft = n_fft or 2 ** math.ceil(math.log2(frame_length))
        self.register_buffer("taper", _table(_window(window, frame_length)), persistent=False)
        filters = None
        if n_mels is not None:
            filters = _table(kaldi_mel(sample_rate, self.n_fft, n_mels, fmin, fmax))
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log spectrogram.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time)
            At least one window long, at the scale that the network was trained with.

        Returns
        -------
        tensor of shape (batch, frame, mel) or (batch, frame, bin)
            Computed in the precision of ``waveforms``.
        """
        frames = waveforms.unfold(-1, self.frame_length, self.frame_shift)
        mean = frames.mean(dim=-1, keepdim=True) if self.remove_dc else 0.0
        energy = (frames - mean).square().sum(dim=-1) if self.filters is None else None
        # Pre-emphasis of the whole sound is that of its windows, but for their first samples and
        # the mean, of which a share is left.
        left = 1 - self.preemphasis
        emphasised = waveforms.clone()
        emphasised[..., 1:] -= self.preemphasis * waveforms[..., :-1]
        padded = waveforms.new_zeros(*frames.shape[:-1], self.n_fft)
        windows = padded[..., : self.frame_length]
        windows += emphasised.unfold(-1, self.frame_length, self.frame_shift)
        windows[..., 0] = left * frames[..., 0]
        windows -= left * mean
        windows *= self.taper.to(windows)
        real, imaginary = torch.view_as_real(torch.fft.rfft(padded)).unbind(-1)
        spectrum = real.square().addcmul_(imaginary, imaginary)
        if self.power == 1:
            spectrum = spectrum.sqrt()
        if self.filters is not None:
            spectrum = spectrum @ self.filters.to(spectrum)
        if self.log_floor is not None:
            spectrum = spectrum.clamp(min=self.log_floor)
        log = (spectrum + self.log_offset).log() if self.log_offset else spectrum.log()
        if energy is not None:
            log[..., 0] = energy.clamp(min=1.0).log()
        return log


class DecibelMel(nn.Module):
    """Mel power spectrogram in decibels: the front end of Dasheng (Dinkel et al. 2024).

    Windows (periodic Hann) are centred on multiples of ``hop``, the sound reflected at its ends.
    Filters are triangular in Hz and peak at 1, their centres equally spaced on the HTK mel
    scale. Values more than ``top_db`` below the loudest one of the same sound are raised to
    that level.

    Parameters
    ----------
    sample_rate : int
        In Hz.
    n_fft, hop : int
        Samples per window and between windows.
    n_mels : int
        Filters between 0 Hz and half the sample rate.
    floor : float
        Smallest power that enters the logarithm.
    top_db : float
        Dynamic range in dB.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        hop: int = 160,
        n_mels: int = 64,
        floor: float = 1e-10,
        top_db: float = 120.0,
    ):
        super().__init__()
        self.n_fft, self.hop, self.floor, self.top_db = n_fft, hop, floor, top_db
        top_mel = mel_htk(np.array(sample_rate / 2), 2595, 10)
        edges = 700 * (10 ** (np.linspace(0, top_mel, n_mels + 2) / 2595) - 1)
        bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
        filters = triangular_filters(edges, bins)
        self.register_buffer("taper", _table(_window("hann", n_fft)), persistent=False)
        self.register_buffer("filters", _table(filters.T), persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time)
            More than ``n_fft / 2`` samples each.

        Returns
        -------
        tensor of shape (batch, mel, frame)
        """
        spectrum = torch.stft(
            waveforms, self.n_fft, self.hop, window=self.taper, return_complex=True
        )
        decibels = 10 * (self.filters @ spectrum.abs().square()).clamp(min=self.floor).log10()
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - self.top_db)


def mel_htk(hertz: np.ndarray, scale: float = 1127.0, base: float = math.e) -> np.ndarray:
    """Mel scale of O'Shaughnessy: ``scale * log_base(1 + hertz / 700)``."""
    return scale * np.log1p(np.asarray(hertz, dtype=float) / 700) / np.log(base)


def triangular_filters(edges: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Weights of triangular filters with peak 1.

    Parameters
    ----------
    edges : array of shape (n_filters + 2,)
        Filter ``i`` rises from ``edges[i]`` to its peak at ``edges[i + 1]`` and falls to 0 at
        ``edges[i + 2]``.
    bins : array of shape (n_bins,)
        Where to evaluate them, on the same scale.

    Returns
    -------
    array of shape (n_bins, n_filters), float64
    """
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    rise = (bins[:, None] - left) / (peak - left)
    fall = (right - bins[:, None]) / (right - peak)
    return np.maximum(0, np.minimum(rise, fall))


def kaldi_mel(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float = 20.0, fmax: float | None = None
) -> np.ndarray:
    """Kaldi's mel filters: triangles on the mel axis, the Nyquist bin left out.

    Returns
    -------
    array of shape (n_fft // 2 + 1, n_mels), float64
        A filter narrower than the spacing of the FFT bins may be empty.
    """
    low, high = mel_htk([fmin, sample_rate / 2 if fmax is None else fmax])
    bins = mel_htk(np.arange(n_fft // 2 + 1) * sample_rate / n_fft)
    filters = triangular_filters(np.linspace(low, high, n_mels + 2), bins)
    filters[-1] = 0
    return filters


def _window(kind: str, n: int) -> np.ndarray:
    period = n if kind == "hann" else n - 1
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / period)
    return {"hann": hann, "hanning": hann, "povey": hann**0.85}[kind]


def _table(values: np.ndarray) -> torch.Tensor:
    """Float32 buffer on the default device."""
    return torch.tensor(np.ascontiguousarray(values), dtype=torch.float32)
