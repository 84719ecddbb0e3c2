"""The captioning baseline of DCASE 2020 (Drossos et al. 2020): recurrent encoder and decoder."""

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from .audio_model import AudioModel
from .cards import ModelCard

__all__ = ["DCASE2020"]

N_FFT, HOP, N_MELS = 1024, 512, 64
N_UNITS, N_WORDS, N_STEPS = 256, 4367, 22


class DCASE2020(AudioModel):
    """Audio captioner: three bidirectional GRUs, and a GRU that speaks.

    Every layer is one vector per sound, as scored by Tuckute et al. (2023): the final hidden
    states of the encoder (both directions) and of the decoder, and the word scores averaged over
    the 22 words of the caption.
    """

    min_samples = N_FFT // 2 + 1  # reflection at the edges needs more than half a window

    def __init__(self, card: ModelCard):
        super().__init__(card)
        sizes = {"gru_1": N_MELS, "gru_2": 2 * N_UNITS, "gru_3": 2 * N_UNITS}
        self.network = nn.ModuleDict(
            {
                "encoder": nn.ModuleDict(
                    {
                        name: nn.GRU(size, N_UNITS, batch_first=True, bidirectional=True)
                        for name, size in sizes.items()
                    }
                ),
                "decoder": nn.ModuleDict(
                    {
                        "rnn": nn.GRU(2 * N_UNITS, N_UNITS, batch_first=True),
                        "classifier": nn.Linear(N_UNITS, N_WORDS),
                    }
                ),
            }
        )
        mel = mel_filter_bank(
            N_FFT // 2 + 1, N_MELS, 0, card.sample_rate / 2, card.sample_rate,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        self.network.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.network.register_buffer(
            "mel", torch.tensor(mel, dtype=torch.float32), persistent=False
        )

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log mel magnitudes of the peak-normalised waveforms, shape (batch, frame, 64)."""
        peak = waveforms.abs().amax(dim=1, keepdim=True)
        stft = torch.stft(
            waveforms / peak, N_FFT, HOP, window=self.network.window, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        mel = stft.abs().transpose(1, 2) @ self.network.mel
        return (mel + torch.finfo(torch.float64).eps).log()

    def _forward(self, waveforms, layers):
        encoder, decoder = self.network["encoder"], self.network["decoder"]
        x, final = encoder["gru_1"](self.log_mel(waveforms))
        outputs = {"GRU_1": _both_directions(final)}
        for index in (2, 3):
            step, final = encoder[f"gru_{index}"](x)
            outputs[f"GRU_{index}"] = _both_directions(final)
            x = x + step
        spoken, final = decoder["rnn"](x[:, -1:].expand(-1, N_STEPS, -1))
        outputs["GRU_4"] = final.transpose(0, 1)
        outputs["Linear"] = decoder["classifier"](spoken).mean(dim=1, keepdim=True)
        return {layer: outputs[layer] for layer in layers}

    def _frame_grid(self, layer):
        return None


def _both_directions(final: torch.Tensor) -> torch.Tensor:
    """(2, batch, units) to (batch, 1, 2 * units), forward direction first."""
    return torch.cat([*final], dim=-1)[:, None]
