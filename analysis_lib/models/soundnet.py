"""SoundNet: eight convolutions on the waveform (Aytar et al. 2016)."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import nn

from ..errors import AudioError, WeightsError
from .audio_model import AudioModel
from .cards import ModelCard
from .taps import stacked_grid, take_layers

__all__ = ["WIDTHS", "SoundNet", "SoundNet8"]

# Channels, kernel and padding of conv1 to conv7, each of stride 2, and the pooling after it.
BLOCKS = (
    (16, 64, 32, 8),
    (32, 32, 16, 8),
    (64, 16, 8, 1),
    (128, 8, 4, 1),
    (256, 4, 2, 4),
    (512, 4, 2, 1),
    (1024, 4, 2, 1),
)
WIDTHS = tuple(n_out for n_out, *_ in BLOCKS)
CATEGORIES = {"conv8": 1000, "conv8_2": 401}  # objects, scenes
CATEGORY_KERNEL = 8
SHORTEST = 4_574  # samples that give one frame of conv7
SHORTEST_WITH_CATEGORIES = 209_374  # samples that give the eight frames conv8 needs


class SoundNet8(nn.Module):
    """The eight-layer network; tensors are named and shaped as in ``sound8.pth``.

    Time is the third axis of four, as it was published.

    Parameters
    ----------
    widths : sequence of int
        Channels of conv1 to conv7; by default the published ones. Fewer make a network with the
        same frames in time that trains in no time.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS):
        super().__init__()
        n_in = 1
        for number, (n_out, (_, kernel, padding, pool)) in enumerate(
            zip(widths, BLOCKS, strict=True), start=1
        ):
            block = nn.Sequential(
                nn.Conv2d(n_in, n_out, (kernel, 1), (2, 1), (padding, 0)),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            )
            if pool > 1:
                block.append(nn.MaxPool2d((pool, 1)))
            self.add_module(f"conv{number}", block)
            n_in = n_out
        for name, n_categories in CATEGORIES.items():
            convolution = nn.Conv2d(n_in, n_categories, (CATEGORY_KERNEL, 1), (2, 1))
            self.add_module(name, nn.Sequential(convolution))

    def stages(self, inputs: torch.Tensor, first: int = 1) -> Iterator[tuple[str, torch.Tensor]]:
        """Compute one block after the other.

        Parameters
        ----------
        inputs : tensor of shape (batch, time), or (batch, channel, frame)
            Waveforms at 22,050 Hz and the level that the weights expect; or the output of the
            block before ``first``.
        first : int
            Number of the first block to compute.

        Yields
        ------
        str, tensor
            Name, and output of shape (batch, channel, frame), after pooling where the block
            pools. ``conv8`` and ``conv8_2`` both follow ``conv7`` and come only where there
            are at least 8 frames of it.
        """
        x = inputs[:, None, :, None] if inputs.ndim == 2 else inputs[..., None]
        for number in range(first, len(BLOCKS) + 1):
            x = self.get_submodule(f"conv{number}")(x)
            yield f"conv{number}", x[..., 0]
        if x.shape[2] >= CATEGORY_KERNEL:
            for name in CATEGORIES:
                yield name, self.get_submodule(name)(x)[..., 0]


class SoundNet(AudioModel):
    """Network on the waveform, taught by vision networks that watched the same videos.

    Layers have shape (batch, frame, channel). ``conv1``, ``conv2`` and ``conv5`` are taken after
    their pooling. ``conv8`` (objects) and ``conv8_2`` (scenes) have to be asked for by name, and
    take sounds of at least 9.5 s.

    The card's option ``input_scale`` multiplies the waveform: the published weights were learned
    on amplitudes up to 256. Networks fine-tuned by Freteault et al. (2025) take 1. A checkpoint
    that says which scale it was trained with is given that one.
    """

    extra_layers = tuple(CATEGORIES)
    min_samples = SHORTEST

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.input_scale = card.options["input_scale"]
        self.network = SoundNet8()

    @property
    def identity(self) -> dict[str, str]:
        """What the features depend on: the scale may be the checkpoint's, not the card's."""
        return {**super().identity, "input_scale": str(self.input_scale)}

    def accept_settings(self, settings: Mapping[str, object]) -> None:
        """Adopt the input scale that a network was fine-tuned with."""
        scale = settings.get("input_scale", self.input_scale)
        if not isinstance(scale, (int, float)) or not 0 < scale < float("inf"):
            raise WeightsError(
                f"{self.card.name}: the checkpoint's input_scale must be a positive number, "
                f"not {scale!r}"
            )
        self.input_scale = float(scale)

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        n_samples = waveforms.shape[1]
        categories = [layer for layer in layers if layer in CATEGORIES]
        if categories and n_samples < SHORTEST_WITH_CATEGORIES:
            raise AudioError(
                f"{self.card.name}: layer {categories[0]!r} needs at least "
                f"{SHORTEST_WITH_CATEGORIES:,} samples (9.5 s) and got {n_samples:,}. "
                "Pad the sounds with silence, or leave the layer out."
            )
        outputs = take_layers(self.network.stages(self.input_scale * waveforms), layers)
        return {layer: output.transpose(1, 2) for layer, output in outputs.items()}

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        stages = []
        for number, (_, kernel, padding, pool) in enumerate(BLOCKS, start=1):
            stages += [(kernel, 2, padding), (pool, pool, 0)]
            if layer == f"conv{number}":
                break
        if layer in CATEGORIES:
            stages.append((CATEGORY_KERNEL, 2, 0))
        return stacked_grid(stages, 1 / self.sample_rate)

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename the tensors of ``sound8.npy``, whose kernels are (time, 1, in, out)."""
        parts = {
            "weights": "0.weight",
            "biases": "0.bias",
            "gamma": "1.weight",
            "beta": "1.bias",
            "mean": "1.running_mean",
            "var": "1.running_var",
        }
        renamed = {}
        for name, tensor in tensors.items():
            layer, _, part = name.partition(".")
            if part == "weights":
                tensor = tensor.permute(3, 2, 0, 1)
            renamed[f"{layer}.{parts[part]}" if part in parts else name] = tensor
        return renamed
