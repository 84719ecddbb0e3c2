"""MetricGAN+ (Fu et al. 2021): the generator of a speech enhancer."""

import torch
from torch import nn
from torch.nn import functional as F

from .audio_model import AudioModel
from .cards import ModelCard

__all__ = ["MetricGAN"]

N_FFT, HOP = 512, 256
N_FREQUENCIES, N_UNITS, N_HIDDEN = N_FFT // 2 + 1, 200, 300


class MetricGAN(AudioModel):
    """Two bidirectional LSTMs and two linear layers on a log spectrogram.

    ``LSTM_k-cell`` is the final cell state of both directions, one vector per sound, as scored
    by Tuckute et al. (2023). ``Linear_1`` is taken after its leaky rectifier, ``Linear_2``
    before the sigmoid that makes it a mask.
    """

    unused_tensors = (r"Learnable_sigmoid\.slope",)

    def __init__(self, card: ModelCard):
        super().__init__(card)
        lstm = nn.LSTM(N_FREQUENCIES, N_UNITS, num_layers=2, batch_first=True, bidirectional=True)
        self.network = nn.ModuleDict(
            {
                "blstm": nn.ModuleDict({"rnn": lstm}),
                "linear1": nn.Linear(2 * N_UNITS, N_HIDDEN),
                "linear2": nn.Linear(N_HIDDEN, N_FREQUENCIES),
            }
        )
        self.network.register_buffer("window", torch.hamming_window(N_FFT), persistent=False)

    def spectrogram(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log magnitudes, shape (batch, frame, 257 frequencies)."""
        stft = torch.stft(
            waveforms, N_FFT, HOP, window=self.network.window, pad_mode="constant",
            return_complex=True,
        )  # fmt: skip
        power = torch.view_as_real(stft).square().sum(dim=-1)
        return (power + 1e-14).sqrt().log1p().transpose(1, 2)

    def _forward(self, waveforms, layers):
        x, (_, cells) = self.network["blstm"]["rnn"](self.spectrogram(waveforms))
        outputs = {
            f"LSTM_{index}-cell": torch.cat([*both], dim=-1)[:, None]
            for index, both in enumerate(cells.split(2), start=1)
        }
        outputs["Linear_1"] = F.leaky_relu(self.network["linear1"](x), 0.3)
        outputs["Linear_2"] = self.network["linear2"](outputs["Linear_1"])
        return {layer: outputs[layer] for layer in layers}

    def _frame_grid(self, layer):
        return (HOP / self.sample_rate, 0.0) if layer.startswith("Linear") else None
