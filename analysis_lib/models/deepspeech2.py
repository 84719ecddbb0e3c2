"""DeepSpeech2 (Amodei et al. 2016): two convolutions and five bidirectional LSTMs."""

import torch
from torch import nn

from .audio_model import AudioModel
from .cards import ModelCard

__all__ = ["DeepSpeech2"]

N_FFT, HOP = 320, 160
N_FREQUENCIES = N_FFT // 2 + 1
N_CHANNELS, N_UNITS, N_RECURRENT = 32, 1024, 5


class DeepSpeech2(AudioModel):
    """Speech recogniser on a normalised log spectrogram.

    ``Tanh_1`` and ``Tanh_2`` are the clipped convolutions, (channel, frequency) per frame.
    ``LSTM_k-cell`` is the final cell state of both directions, one vector per sound, as scored
    by Tuckute et al. (2023): the forward direction after the last frame, the backward direction
    after the first.
    """

    min_samples = N_FFT // 2 + 1  # reflection at the edges needs more than half a window
    unused_tensors = (r"fc\.0\.module\..*",)

    def __init__(self, card: ModelCard):
        super().__init__(card)
        features, recurrent = _flattened_size(), []
        for index in range(N_RECURRENT):
            stage = nn.ModuleDict(
                {"rnn": nn.LSTM(features, N_UNITS, batch_first=True, bidirectional=True)}
            )
            if index:
                stage["batch_norm"] = nn.ModuleDict({"module": nn.BatchNorm1d(features)})
            recurrent.append(stage)
            features = N_UNITS
        self.network = nn.ModuleDict(
            {
                "conv": nn.ModuleDict({"seq_module": _convolutions()}),
                "rnns": nn.ModuleList(recurrent),
            }
        )
        self.network.register_buffer("window", torch.hamming_window(N_FFT), persistent=False)

    def spectrogram(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log magnitudes, zero mean and unit variance over each whole sound.

        Returns
        -------
        tensor of shape (batch, 161 frequencies, frame)
        """
        stft = torch.stft(
            _mirrored_at_both_ends(waveforms), N_FFT, HOP, window=self.network.window,
            center=False, return_complex=True,
        )  # fmt: skip
        log = stft.abs().log1p()
        mean = log.mean(dim=(1, 2), keepdim=True)
        return (log - mean) / log.std(dim=(1, 2), keepdim=True)

    def _forward(self, waveforms, layers):
        wanted, outputs = set(layers), {}
        x = self.spectrogram(waveforms)[:, None]
        convolutions = self.network["conv"]["seq_module"]
        for layer, stage in (("Tanh_1", convolutions[:3]), ("Tanh_2", convolutions[3:])):
            x = stage(x)
            outputs[layer] = x.permute(0, 3, 1, 2)
        x = outputs["Tanh_2"].flatten(2)
        for index, stage in enumerate(self.network["rnns"], start=1):
            if wanted <= outputs.keys():
                break
            if "batch_norm" in stage:
                x = stage["batch_norm"]["module"](x.transpose(1, 2)).transpose(1, 2)
            x, (_, cells) = stage["rnn"](x)
            outputs[f"LSTM_{index}-cell"] = torch.cat([*cells], dim=-1)[:, None]
            x = x.unflatten(-1, (2, N_UNITS)).sum(dim=-2)
        return {layer: outputs[layer] for layer in wanted}

    def _frame_grid(self, layer):
        # The first convolution takes every second frame, each centred on its own.
        return (2 * HOP / self.sample_rate, 0.0) if layer.startswith("Tanh") else None


def _mirrored_at_both_ends(waveforms: torch.Tensor) -> torch.Tensor:
    """Extend each sound by half a window at both ends, as librosa (0.10 and later) does.

    It mirrors the last window by itself. In sounds of a whole number of hops that window holds
    one sample too few, and the outermost sample is taken from the second reflection.
    """
    half = N_FFT // 2
    mirrored = nn.functional.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
    if waveforms.shape[1] % HOP == 0:
        mirrored[:, -1] = waveforms[:, -(half - 1)]
    return mirrored


def _convolutions() -> nn.Sequential:
    """Two convolutions over (frequency, frame), batch-normalised and clipped to 0…20."""
    return nn.Sequential(
        nn.Conv2d(1, N_CHANNELS, (41, 11), stride=(2, 2), padding=(20, 5)),
        nn.BatchNorm2d(N_CHANNELS),
        nn.Hardtanh(0, 20),
        nn.Conv2d(N_CHANNELS, N_CHANNELS, (21, 11), stride=(2, 1), padding=(10, 5)),
        nn.BatchNorm2d(N_CHANNELS),
        nn.Hardtanh(0, 20),
    )


def _flattened_size() -> int:
    n_frequencies = (N_FREQUENCIES + 1) // 2  # each convolution halves the frequencies
    return N_CHANNELS * ((n_frequencies + 1) // 2)
