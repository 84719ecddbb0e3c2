"""How an audio encoder of the transformers library is run, and where its frames lie in time.

Distances are in samples at the model's rate. A stage is a convolution ``(kernel, stride, padding at
the start)`` along time; the windows of the feature extractor count as one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

import torch
from torch import nn

from .taps import stacked_grid

__all__ = ["CODEC", "Encoder", "Stages", "no_convolutions", "waveform_convolutions"]

Stages = list[tuple[int, int, int]]
TRANSFORMER, CODEC = "transformer", "codec"


def waveform_convolutions(config) -> Stages:
    """Convolutions of the wav2vec 2.0 family on the waveform."""
    return [(k, s, 0) for k, s in zip(config.conv_kernel, config.conv_stride, strict=True)]


def no_convolutions(config) -> Stages:
    """Nothing along time."""
    return []


def _same(values: torch.Tensor, layer: str, config) -> torch.Tensor:
    return values


@dataclass(frozen=True)
class Encoder:
    """How to run one architecture.

    Attributes
    ----------
    module, class_name : str
        Where transformers keeps the encoder's class.
    extractor : str
        Class of the default feature extractor.
    blocks : str
        Attribute path of the list of blocks.
    convolutions : callable
        Stages of the network for a configuration.
    last_stages : callable
        Further stages between the last block and the last hidden state.
    extractor_settings : callable
        Arguments of the default extractor for a configuration.
    extractor_arguments : mapping
        Arguments of each call of the extractor.
    accepted : tuple of str
        What of the extractor's output the network takes.
    renamed : mapping
        What the network calls it, where the names differ.
    frames : callable
        Brings a hidden state to (batch, frame, *units).
    window : callable
        Number of samples and frames of a network with a fixed length, or None.
    kind : {"transformer", "codec"}
        Whether hidden states are given by the network or taken at its blocks.
    parts : tuple of str
        Parts of a codec that make its encoder. If there is only one, the rest is not kept.
    """

    module: str
    class_name: str
    extractor: str = "Wav2Vec2FeatureExtractor"
    blocks: str = "encoder.layers"
    convolutions: Callable = waveform_convolutions
    last_stages: Callable = no_convolutions
    extractor_settings: Callable = lambda config: {}
    extractor_arguments: Mapping = field(default_factory=lambda: MappingProxyType({}))
    accepted: tuple[str, ...] = ("input_values",)
    renamed: Mapping = field(default_factory=lambda: MappingProxyType({}))
    frames: Callable = _same
    window: Callable = lambda config, extractor: None
    kind: str = TRANSFORMER
    parts: tuple[str, ...] = ()

    def load_module(self):
        """Import the module of transformers that has the architecture's classes."""
        return import_module(f"transformers.models.{self.module}")

    def default_extractor(self, config):
        """Feature extractor for a model that was saved without one."""
        import transformers

        return getattr(transformers, self.extractor)(**self.extractor_settings(config))

    def kept(self, model: nn.Module) -> nn.Module:
        """Part of a model that its layers depend on."""
        if len(self.parts) != 1:
            return model
        return nn.ModuleDict({part: getattr(model, part) for part in self.parts})

    def run(self, network: nn.Module, waveforms: torch.Tensor) -> object:
        """Run the kept part of a codec."""
        return (network[self.parts[0]] if len(self.parts) == 1 else network)(waveforms)

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """Layer names of an encoder and, of a codec, the modules whose output they are."""
        if self.kind == CODEC:
            parts = (getattr(model, part) for part in self.parts)
            modules = [block for part in parts if part is not None for block in _codec_blocks(part)]
        else:
            modules = [None, *model.get_submodule(self.blocks)]
        return {f"Encoder_{i}" if i else "Embedding": m for i, m in enumerate(modules)}

    def min_samples(self, config, extractor) -> int:
        """Shortest sound that gives a frame."""
        n = 1
        if self.kind == TRANSFORMER:
            for kernel, stride, padding in reversed(
                extractor_stages(extractor) + self.convolutions(config)
            ):
                n = max(1, (n - 1) * stride + kernel - 2 * padding)
        return 1 if self.window(config, extractor) == (n, 1) else n

    def grids(self, model: nn.Module, config, extractor) -> dict[str, tuple[float, float]]:
        """Give samples between frames and centre of the first frame, for each layer."""
        layers = self.layers(model)
        if self.kind == CODEC:
            grids, grid = {}, (1.0, 0.0)
            for layer, block in layers.items():
                grids[layer] = grid = stacked_grid(_codec_stages(block), *grid)
            return grids
        grid = stacked_grid(extractor_stages(extractor) + self.convolutions(config))
        return dict.fromkeys(layers, grid) | {
            [*layers][-1]: stacked_grid(self.last_stages(config), *grid)
        }


def extractor_stages(extractor) -> Stages:
    """Stages of a feature extractor; none for those that keep the waveform."""
    kind = type(extractor).__name__
    if kind in ("ASTFeatureExtractor", "Speech2TextFeatureExtractor"):
        return [(400, 160, 0)]
    if kind == "SeamlessM4TFeatureExtractor":
        return [(400, 160, 0), (extractor.stride, extractor.stride, 0)]
    if kind == "LasrFeatureExtractor":
        return [(extractor.win_length, extractor.hop_length, 0)]
    if kind in ("WhisperFeatureExtractor", "ParakeetFeatureExtractor"):
        return [(1, extractor.hop_length, 0)]  # windows are centred on multiples of the hop
    if kind == "ClapFeatureExtractor":
        n_samples = extractor.nb_max_samples
        return [(n_samples, n_samples, 0)]
    return []


def _codec_blocks(encoder: nn.Module) -> list[nn.Module]:
    """First convolution, downsampling blocks and last convolution of a codec's encoder."""
    if hasattr(encoder, "conv"):  # the convolution that ends Mimi
        return [encoder]
    if hasattr(encoder, "block"):  # DAC
        return [encoder.conv1, *encoder.block, encoder.conv2]
    convolutions = [layer for layer in encoder.layers if hasattr(layer, "conv")]
    return convolutions or [*encoder.layers]


def _codec_stages(block: nn.Module) -> Stages:
    """Stage of a codec's block along its main path; residual units keep frames in place."""
    if hasattr(block, "self_attn"):
        return []
    convolution = getattr(block, "conv", None) or getattr(block, "conv1", None) or block
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    if not hasattr(block, "causal"):
        return [(kernel, stride, convolution.padding[0])]
    total = kernel - stride
    return [(kernel, stride, total if block.causal else total - total // 2)]
