"""Spectrograms as models: what a network would have to improve on."""

from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import KaldiSpectrogram

__all__ = ["LogMel", "Spectrogram", "dct_matrix"]

SAMPLE_RATE = 16_000
WINDOW, HOP = 400, 160


class LogMel(KaldiSpectrogram):
    """Natural logarithm of mel power: Hann windows of 25 ms every 10 ms, none beyond the sound.

    Parameters
    ----------
    n_mels : int
        Bands between 20 Hz and 8 kHz, as triangles on the mel scale.
    n_fft : int
        Samples per transform, windows padded with zeros. 64 bands need 512, 128 bands 1,024:
        with fewer the lowest triangles fall between two bins.
    """

    # Seconds between frames, and centre of the first.
    grid = (HOP / SAMPLE_RATE, WINDOW / 2 / SAMPLE_RATE)

    def __init__(self, n_mels: int = 128, n_fft: int = 1024):
        super().__init__(
            SAMPLE_RATE,
            WINDOW,
            HOP,
            n_mels,
            window="hann",
            preemphasis=0.0,
            remove_dc=False,
            log_floor=1e-10,
            n_fft=n_fft,
        )


class Spectrogram(AudioModel):
    """Log-mel spectrogram and mel-frequency cepstral coefficients.

    Layers ``log_mel``: (batch, frame, n_mels) and ``mfcc``: (batch, frame, n_mfcc), the first
    coefficients of the orthonormal cosine transform of ``log_mel``.

    References
    ----------
    Davis & Mermelstein (1980), IEEE Trans. Acoust. Speech Signal Process. 28, 357-366.
    """

    min_samples = WINDOW

    def __init__(self, card: ModelCard):
        super().__init__(card)
        n_mels, n_mfcc = card.options["n_mels"], card.options["n_mfcc"]
        self.network = nn.Module()
        self.network.log_mel = LogMel(n_mels)
        self.network.register_buffer("cosines", dct_matrix(n_mels, n_mfcc), persistent=False)

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        outputs = {"log_mel": self.network.log_mel(waveforms)}
        if "mfcc" in layers:
            outputs["mfcc"] = outputs["log_mel"] @ self.network.cosines
        return outputs

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        return LogMel.grid


def dct_matrix(n_inputs: int, n_coefficients: int) -> torch.Tensor:
    """First columns of the orthonormal discrete cosine transform of type II.

    Parameters
    ----------
    n_inputs, n_coefficients : int
        Length of the input, and of what ``input @ matrix`` gives.

    Returns
    -------
    tensor of shape (n_inputs, n_coefficients), float32
        With orthonormal columns.
    """
    position = (np.arange(n_inputs) + 0.5) / n_inputs
    matrix = np.cos(np.pi * np.outer(position, np.arange(n_coefficients))) * np.sqrt(2 / n_inputs)
    matrix[:, 0] /= np.sqrt(2)
    return torch.tensor(matrix, dtype=torch.float32)
