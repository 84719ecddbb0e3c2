"""VGGish: a VGG network on patches of log-mel spectrogram (Hershey et al. 2017)."""

from collections.abc import Collection, Iterator

import torch
from torch import nn

from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import KaldiSpectrogram
from .taps import take_layers

__all__ = ["VGGish", "VGGishNetwork"]

WINDOW, HOP, N_FRAMES = 400, 160, 96  # samples, samples, frames per patch


class VGGishNetwork(nn.Module):
    """Log-mel front end, six convolutions, four poolings and three dense layers.

    Modules are named as in the published checkpoint.
    """

    def __init__(self):
        super().__init__()
        self.front_end = KaldiSpectrogram(
            16_000,
            WINDOW,
            HOP,
            n_mels=64,
            fmin=125.0,
            fmax=7500.0,
            window="hann",
            preemphasis=0.0,
            remove_dc=False,
            power=1,
            log_floor=None,
            log_offset=0.01,
        )
        modules, n_in = [], 1
        for width in (64, 128, (256, 256), (512, 512)):
            for n_out in width if isinstance(width, tuple) else (width,):
                modules += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
                n_in = n_out
            modules.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*modules)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(),
            nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, 128), nn.ReLU(),
        )  # fmt: skip

    def stages(self, patches: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Compute one stage after the other.

        Parameters
        ----------
        patches : tensor of shape (patch, 1, 96, 64)
            Log-mel spectrogram, time by frequency.

        Yields
        ------
        str, tensor
            Name such as ``ReLU_1``, and output of shape (patch, channel, time, frequency) or,
            from the dense layers, (patch, unit).
        """
        counts = {"ReLU": 0, "MaxPool2d": 0}
        x = patches
        for part in (self.features, self.embeddings):
            if part is self.embeddings:
                # Published in an order of (time, frequency, channel).
                x = x.permute(0, 2, 3, 1).flatten(1)
            for module in part:
                x = module(x)
                kind = type(module).__name__
                if kind in counts:
                    counts[kind] += 1
                    yield f"{kind}_{counts[kind]}", x


class VGGish(AudioModel):
    """VGG network trained to label videos by their sound, 0.96 s at a time.

    Layers before the dense ones have shape (batch, frame, channel, frequency), the patches' frames
    one after the other; the dense ones (``ReLU_7`` to ``ReLU_9``) one vector per patch. What is
    left at the end of a sound and fills no patch is not used.
    """

    min_samples = WINDOW + (N_FRAMES - 1) * HOP

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = VGGishNetwork()

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        log_mel = self.network.front_end(waveforms)
        n_sounds, n_frames, n_mels = log_mel.shape
        n_patches = n_frames // N_FRAMES
        patches = log_mel[:, : n_patches * N_FRAMES].reshape(-1, 1, N_FRAMES, n_mels)
        outputs = take_layers(self.network.stages(patches), layers)
        return {
            layer: (output if output.ndim == 2 else output.transpose(1, 2).flatten(0, 1))
            .unflatten(0, (n_sounds, -1))
            for layer, output in outputs.items()
        }  # fmt: skip

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        position = self.card.layers.index(layer)
        n_pooled = sum(name.startswith("MaxPool") for name in self.card.layers[: position + 1])
        dense = layer in ("ReLU_7", "ReLU_8", "ReLU_9")
        n_spanned = N_FRAMES if dense else 2**n_pooled
        step = HOP / self.sample_rate
        return n_spanned * step, WINDOW / 2 / self.sample_rate + (n_spanned - 1) / 2 * step
