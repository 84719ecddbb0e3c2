"""Dasheng: masked auto-encoders of mel spectrograms, up to 1.2 billion weights.

Dinkel et al. (2024). Each patch is four frames of all mel bands (40 ms); a learned position code
and a pre-norm vision transformer follow.
"""

from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import DecibelMel
from .weights import check_settings

__all__ = ["Dasheng"]

HOP = 160  # samples
N_MELS = 64
PATCH = 4  # spectrogram frames
GROUP = 252  # patches (10.08 s) that attend to each other
N_CLASSES = 527  # of AudioSet


class Dasheng(AudioModel):
    """The Dasheng encoder.

    ``block_i`` is the residual stream after block ``i``. ``final_norm``, given on request, is
    the last of them after the closing layer norm.

    Long sounds are cut into groups of 252 patches, each with its own positions and attention,
    and their frames joined (version 0.0.8 of the authors' package). The spectrogram and its
    dynamic range are those of the whole sound.

    Parameters
    ----------
    card : ModelCard
        Options: ``depth``, ``width``, ``n_heads``, and ``fine_tuned``, whether the file has a
        classifier. Layers do not depend on it, but loading it tells pretrained from fine-tuned
        files.

    Notes
    -----
    The fresh weights of an untrained network are those of vision transformers: normal with
    standard deviation 0.02, truncated, biases 0.
    """

    min_samples = (PATCH - 1) * HOP
    unused_tensors = (r"front_end\..*",)  # window and filters, computed here

    def __init__(self, card: ModelCard):
        super().__init__(card)
        options = card.options
        depth, width = options["depth"], options["width"]
        self.extra_layers = (
            *(name for i in range(depth) if (name := f"block_{i}") not in self.layers),
            "final_norm",
        )
        self.network = _Network(self.sample_rate, depth, width, options["n_heads"])
        if options["fine_tuned"]:
            self.network.outputlayer = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, N_CLASSES)
            )
        _draw_weights(self.network)

    def accept_settings(self, settings: Mapping[str, object]) -> None:
        """Compare the file's ``config`` with the front end and the network."""
        options = self.card.options
        expected = {
            "target_length": PATCH * GROUP,
            "n_mels": N_MELS,
            "hop_size": HOP,
            "embed_dim": options["width"],
            "depth": options["depth"],
            "num_heads": options["n_heads"],
        }
        check_settings(self, settings.get("config", {}), expected)

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take the names of either release, and fit the time code to 252 patches.

        A longer code is cut, a shorter one stretched linearly, as in the original.
        """
        # The Hugging Face release puts everything under "encoder.".
        named = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
        code = named.get("time_pos_embed")
        if code is not None and code.ndim == 4:
            if code.shape[-1] < GROUP:
                code = F.interpolate(
                    code, size=(code.shape[2], GROUP), mode="bilinear", align_corners=False
                )
            named["time_pos_embed"] = code[..., :GROUP]
        return named

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        network = self.network
        spectrogram = network.init_bn(network.spectrogram(waveforms))
        patches = network.patch_embed["proj"](spectrogram[:, None])
        groups = [self._encode(group, layers) for group in patches.split(GROUP, dim=3)]
        return {layer: torch.cat([group[layer] for group in groups], dim=1) for layer in layers}

    def _encode(self, patches: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Activations of one group of patches, shape (batch, width, 1, patch)."""
        network = self.network
        position = network.time_pos_embed[..., : patches.shape[3]] + network.freq_pos_embed
        tokens = (patches + position).flatten(2).transpose(1, 2)
        last = len(network.blocks) - 1
        deepest = max(
            last if layer == "final_norm" else int(layer.removeprefix("block_")) for layer in layers
        )
        outputs = {}
        for index, block in enumerate(network.blocks[: deepest + 1]):
            tokens = block(tokens)
            if f"block_{index}" in layers:
                outputs[f"block_{index}"] = tokens
        if "final_norm" in layers:
            outputs["final_norm"] = network.norm(tokens)
        return outputs

    def _frame_grid(self, layer: str) -> tuple[float, float]:
        """One frame per patch: four spectrogram windows, the first centred on time 0."""
        return PATCH * HOP / self.sample_rate, (PATCH - 1) / 2 * HOP / self.sample_rate


class _Network(nn.Module):
    def __init__(self, sample_rate: int, depth: int, width: int, n_heads: int):
        super().__init__()
        self.spectrogram = DecibelMel(sample_rate, hop=HOP, n_mels=N_MELS)
        self.init_bn = nn.Sequential(nn.Identity(), nn.BatchNorm1d(N_MELS))
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(1, width, (N_MELS, PATCH), stride=(N_MELS, PATCH))}
        )
        self.time_pos_embed = nn.Parameter(torch.empty(1, width, 1, GROUP))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, width, 1, 1))
        self.blocks = nn.ModuleList(_Block(width, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class _Attention(nn.Module):
    """Self-attention with queries, keys and values from one projection."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # batch, token, (3, head, d) to 3 of batch, head, token, d
        query, key, value = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _draw_weights(network: _Network) -> None:
    """Fresh weights, in place."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for code in (network.time_pos_embed, network.freq_pos_embed):
        nn.init.trunc_normal_(code, std=0.02)
