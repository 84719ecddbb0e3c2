"""The VQ-VAE of van Niekerk et al. (2020) for the ZeroSpeech challenge: its encoder."""

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from .audio_model import AudioModel
from .cards import ModelCard
from .taps import stacked_grid

__all__ = ["ZeroSpeech"]

N_FFT, WINDOW, HOP, N_MELS = 2048, 400, 160, 80
N_CHANNELS = 768
DYNAMIC_RANGE = 80.0  # dB
# Kernel, stride and padding of each convolution over time.
CONVOLUTIONS = ((3, 1, 0), (3, 1, 1), (4, 2, 1), (3, 1, 1), (3, 1, 1))


class ZeroSpeech(AudioModel):
    """Five rectified convolutions over a log-mel spectrogram, up to the vector quantiser."""

    min_samples = N_FFT // 2 + 1  # reflection at the edges needs more than half a window
    unused_tensors = (
        r"encoder\.encoder\.15\..*",
        r"encoder\.(codebook|jitter)\..*",
        r"decoder\..*",
    )

    def __init__(self, card: ModelCard):
        super().__init__(card)
        stages, channels = [], N_MELS
        for kernel, stride, padding in CONVOLUTIONS:
            stages += [
                nn.Conv1d(channels, N_CHANNELS, kernel, stride, padding, bias=False),
                nn.BatchNorm1d(N_CHANNELS),
                nn.ReLU(),
            ]
            channels = N_CHANNELS
        encoder = nn.ModuleDict({"encoder": nn.Sequential(*stages)})
        self.network = nn.ModuleDict({"encoder": encoder})
        mel = mel_filter_bank(
            N_FFT // 2 + 1, N_MELS, 50, card.sample_rate / 2, card.sample_rate,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        self.network.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.network.register_buffer(
            "mel", torch.tensor(mel.T, dtype=torch.float32), persistent=False
        )

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram of each pre-emphasised sound, in [0, 1] below full scale.

        Returns
        -------
        tensor of shape (batch, 80, frame)
            The loudest 80 dB of each sound; 1 stands for a mel magnitude of one.
        """
        x = waveforms / waveforms.abs().amax(dim=1, keepdim=True) * 0.999
        x = torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], dim=1)
        stft = torch.stft(
            x, N_FFT, HOP, WINDOW, window=self.network.window, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        decibels = 20 * (self.network.mel @ stft.abs()).clamp(min=1e-5).log10()
        floor = decibels.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE
        return torch.maximum(decibels, floor) / DYNAMIC_RANGE + 1

    def _forward(self, waveforms, layers):
        wanted, outputs = set(layers), {}
        x, stages = self.log_mel(waveforms), self.network["encoder"]["encoder"]
        for index in range(len(CONVOLUTIONS)):
            x = stages[3 * index : 3 * index + 3](x)
            outputs[f"ReLU_{index + 1}"] = x.transpose(1, 2)
            if wanted <= outputs.keys():
                break
        return {layer: outputs[layer] for layer in wanted}

    def _frame_grid(self, layer):
        depth = int(layer.removeprefix("ReLU_"))
        return stacked_grid(CONVOLUTIONS[:depth], step=HOP / self.sample_rate)
