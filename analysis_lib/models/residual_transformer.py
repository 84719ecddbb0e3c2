"""The transformer of EnCodecMAE: two residual streams (ResiDual, Xie et al. 2023), shared FFN.

The published network, and those that are pretrained here, are built of the same parts.
"""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .frontends import KaldiSpectrogram

__all__ = [
    "CHUNK",
    "N_HIDDEN",
    "N_MELS",
    "SAMPLE_RATE",
    "NormalisedSpectrogram",
    "PositionCode",
    "ResidualStack",
    "mel_front_end",
]

SAMPLE_RATE = 24_000  # Hz
CHUNK = 96_000  # samples (4 s) that the published network sees at once
N_MELS = 256
N_HIDDEN = 4096  # units of the published FFN


class NormalisedSpectrogram(nn.Module):
    """A spectrogram, shifted and scaled by fixed numbers.

    Parameters
    ----------
    spectrogram : KaldiSpectrogram
    mean, std : float
        What is subtracted, and what the difference is divided by.
    """

    def __init__(self, spectrogram: KaldiSpectrogram, mean: float, std: float):
        super().__init__()
        self.spectrogram, self.mean, self.std = spectrogram, mean, std

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Give (batch, frame, bin) for waveforms of shape (batch, time)."""
        return (self.spectrogram(waveforms) - self.mean) / self.std

    def n_frames(self, n_samples: int) -> int:
        """Whole windows in so many samples."""
        spectrogram = self.spectrogram
        return max(0, 1 + (n_samples - spectrogram.frame_length) // spectrogram.frame_shift)


def mel_front_end() -> NormalisedSpectrogram:
    """Log-mel frames of the published networks: 75.5 a second, 256 mels, at 24 kHz."""
    mel = KaldiSpectrogram(SAMPLE_RATE, 637, 318, n_mels=N_MELS, window="hanning")
    return NormalisedSpectrogram(mel, -6.12, 4.82)


class PositionCode(nn.Module):
    """Sines and cosines of the frame number, alternating, times a learned scalar."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, frames: torch.Tensor, number: torch.Tensor | None = None) -> torch.Tensor:
        """Add the code.

        Parameters
        ----------
        frames : tensor of shape (batch, frame, width)
            What it is added to.
        number : tensor of int, shape (batch, frame), optional
            Which frames of the sound these are; by default all, from the first.
        """
        if number is None:
            number = torch.arange(frames.shape[1], device=frames.device)
        angle = number[..., None] * self.frequency
        return frames + self.scale * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class ResidualStack(nn.ModuleDict):
    """Transformer blocks with a normalised and a raw stream, and the norm that joins the two.

    Parameters
    ----------
    n_layers, width, n_heads : int
    n_hidden : int
        Units of the one FFN that all blocks share.
    """

    def __init__(self, n_layers: int, width: int, n_heads: int, n_hidden: int = N_HIDDEN):
        ffn = nn.Sequential(nn.Linear(width, n_hidden), nn.ReLU(), nn.Linear(n_hidden, width))
        blocks = nn.ModuleList(_Block(width, n_heads, ffn) for _ in range(n_layers))
        super().__init__({"encoder_layers": blocks, "final_norm": nn.LayerNorm(width)})

    def streams(
        self, x: torch.Tensor, keys: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised (left) and raw (right) stream after each block, computed as they are taken.

        Parameters
        ----------
        x : tensor of shape (batch, frame, width)
            With a position code.
        keys : bool tensor that broadcasts to (batch, frame, frame), optional
            Which frames are attended to.
        """
        left = right = x
        for block in self["encoder_layers"]:
            left, right = block(left, right, keys)
            yield left, right

    def forward(self, x: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Output of the whole stack: the left stream and the normalised right one, added."""
        *_, (left, right) = self.streams(x, keys)
        return left + self["final_norm"](right)


class _Block(nn.Module):
    """A transformer block with a normalised stream (left) and a raw one (right)."""

    def __init__(self, width: int, n_heads: int, ffn: nn.Module):
        super().__init__()
        self.att_layer = _Attention(width, n_heads)
        self.ff_layer = ffn
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self, left: torch.Tensor, right: torch.Tensor, keys: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attended = self.att_layer(left, keys)
        left, right = self.norm1(left + attended), right + attended
        fed = self.ff_layer(left)
        return self.norm2(left + fed), right + fed


class _Attention(nn.Module):
    """Self-attention whose heads interleave: channel ``i * n_heads + head``."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        inner = width // n_heads * n_heads
        self.wq = nn.Linear(width, inner, bias=False)
        self.wk = nn.Linear(width, inner, bias=False)
        self.wv = nn.Linear(width, inner, bias=False)
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        # As (batch, head, frame, d), copied: fused attention wants the channels of a head together.
        query, key, value = (
            project(x).unflatten(-1, (-1, self.n_heads)).permute(0, 3, 1, 2).contiguous()
            for project in (self.wq, self.wk, self.wv)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.wo(mixed.permute(0, 2, 3, 1).flatten(2))
