"""A small convolutional network on log-mel spectrograms: a laptop's worth of deep learning."""

from collections.abc import Collection, Sequence

import torch
from torch import nn

from .audio_model import AudioModel
from .cards import ModelCard
from .handcrafted import WINDOW, LogMel
from .taps import stacked_grid

__all__ = ["SmallCNN", "SmallConvNet"]


class SmallConvNet(nn.Module):
    """Log-mel front end and blocks of convolution, batch normalisation and ReLU.

    Every block halves time and frequency. With the default widths, which double from block to
    block, each has the same number of units per frame (512).

    Parameters
    ----------
    widths : sequence of int
        Channels of each block; their number is the network's depth.
    n_mels : int
        Bands of the front end.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256), n_mels: int = 64):
        super().__init__()
        self.front_end = LogMel(n_mels, n_fft=512 if n_mels <= 64 else 1024)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            )
            for n_in, n_out in zip([1, *widths], widths, strict=False)
        )
        # Keeps the activations' variance from block to block, so that an untrained network
        # passes on what it hears: fresh batch normalisation does nothing in evaluation.
        for block in self.blocks:
            nn.init.kaiming_normal_(block[0].weight, nonlinearity="relu")

    def forward(self, waveforms: torch.Tensor, depth: int | None = None) -> list[torch.Tensor]:
        """Compute the first ``depth`` blocks (by default all).

        Parameters
        ----------
        waveforms : tensor of shape (batch, time)
            At 16 kHz. The level does not matter: each sound's log-mel spectrogram is
            standardised as a whole.
        depth : int, optional
            Blocks to compute.

        Returns
        -------
        list of tensor of shape (batch, channel, frame, frequency)
        """
        return self.from_log_mel(self.front_end(waveforms), depth)

    def from_log_mel(self, log_mel: torch.Tensor, depth: int | None = None) -> list[torch.Tensor]:
        """As :meth:`forward`, from spectrograms of shape (batch, frame, n_mels)."""
        spread, mean = torch.std_mean(log_mel, dim=(1, 2), correction=0, keepdim=True)
        x = ((log_mel - mean) / (spread + 1e-3)).unsqueeze(1)
        outputs = []
        for block in self.blocks[:depth]:
            x = block(x)
            outputs.append(x)
        return outputs


class SmallCNN(AudioModel):
    """Small convolutional network on a log-mel spectrogram.

    Layers ``conv1``, ``conv2``, ...: (batch, frame, channel, frequency), output of each block.
    """

    min_samples = WINDOW

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = SmallConvNet(**card.options)

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        depth = max(_block(layer) for layer in layers)
        outputs = self.network(waveforms, depth)
        return {layer: outputs[_block(layer) - 1].transpose(1, 2) for layer in layers}

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        return stacked_grid([(3, 2, 1)] * _block(layer), *LogMel.grid)


def _block(layer: str) -> int:
    """Read the number of a block, from 1, out of its layer's name."""
    return int(layer.removeprefix("conv"))
