"""SepFormer (Subakan et al. 2021): a dual-path transformer that separates speakers."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .audio_model import AudioModel
from .cards import ModelCard

__all__ = ["SepFormer"]

KERNEL, STRIDE = 16, 8
N_UNITS, N_HEADS, N_EXPANDED = 256, 8, 1024
CHUNK, CHUNK_HOP = 250, 125
N_BLOCKS, N_LAYERS = 2, 8
PATHS = ("intra", "inter")


class SepFormer(AudioModel):
    """Learned filter bank, then transformers along and across half-overlapping chunks.

    ``Embedding`` is the rectified filter bank. ``Encoder_1`` to ``Encoder_32`` are the outputs of
    the feed-forward parts before their residual connections, in the order of computation: eight
    within chunks, eight across chunks, twice. Their frames are the chunks (0.25 s every 0.125 s),
    averaged over the 250 positions within each, padding at both ends included: averaged over
    frames, they are the vectors of Tuckute et al. (2023).
    """

    min_samples = KERNEL
    unused_tensors = (
        r"masknet\.dual_mdl\.\d\.int(ra|er)_mdl\.pos_enc\.pe",
        rf"masknet\.dual_mdl\.{N_BLOCKS - 1}\.(inter_mdl\.mdl\.norm\.norm|inter_norm)\..*",
        r"masknet\.(conv2d|end_conv1x1|prelu|output|output_gate)\..*",
        r"decoder\..*",
    )

    def __init__(self, card: ModelCard):
        super().__init__(card)
        blocks = nn.ModuleList(_dual_path_block() for _ in range(N_BLOCKS))
        # Nothing after the last feed-forward part is a layer of this model.
        del blocks[-1]["inter_norm"], blocks[-1]["inter_mdl"]["mdl"]["norm"]
        self.network = nn.ModuleDict(
            {
                "encoder": nn.ModuleDict(
                    {"conv1d": nn.Conv1d(1, N_UNITS, KERNEL, STRIDE, bias=False)}
                ),
                "masknet": nn.ModuleDict(
                    {
                        "norm": nn.GroupNorm(1, N_UNITS, eps=1e-8),
                        "conv1d": nn.Conv1d(N_UNITS, N_UNITS, 1, bias=False),
                        "dual_mdl": blocks,
                    }
                ),
            }
        )

    def _forward(self, waveforms, layers):
        wanted = set(layers)
        encoded = self.network["encoder"]["conv1d"](waveforms[:, None]).relu()
        outputs = {"Embedding": encoded.transpose(1, 2)}
        if wanted <= outputs.keys():
            return outputs
        masknet, depth = self.network["masknet"], 0
        x = chunked(masknet["conv1d"](masknet["norm"](encoded)).transpose(1, 2))
        for block in masknet["dual_mdl"]:
            for path in PATHS:
                model, residual = block[f"{path}_mdl"]["mdl"], x
                if path == "inter":
                    x = x.transpose(1, 2)
                shape = x.shape
                x = x.flatten(0, 1)
                x = x + positions(x.shape[1], x)
                for layer in model["layers"]:
                    depth += 1
                    x, tapped = _transformer_layer(layer, x)
                    within_chunk = 2 if path == "intra" else 1
                    outputs[f"Encoder_{depth}"] = tapped.view(shape).mean(dim=within_chunk)
                    if wanted <= outputs.keys():
                        return {name: outputs[name] for name in wanted}
                x = model["norm"]["norm"](x).view(shape)
                if path == "inter":
                    x = x.transpose(1, 2)
                x = residual + block[f"{path}_norm"](x.movedim(-1, 1)).movedim(1, -1)
        raise AssertionError(f"no such layers: {wanted - outputs.keys()}")

    def _frame_grid(self, layer):
        if layer == "Embedding":
            return STRIDE / self.sample_rate, (KERNEL - 1) / 2 / self.sample_rate
        # The first chunk starts half a chunk before the sound.
        first = (CHUNK - 1) / 2 - CHUNK_HOP
        return (
            CHUNK_HOP * STRIDE / self.sample_rate,
            (first * STRIDE + (KERNEL - 1) / 2) / self.sample_rate,
        )


def chunked(x: torch.Tensor) -> torch.Tensor:
    """Cut a sequence into half-overlapping chunks, zeros at both ends.

    Parameters
    ----------
    x : tensor of shape (batch, frame, unit)
        At least one frame.

    Returns
    -------
    tensor of shape (batch, chunk, 250, unit)
        An even number of chunks; every frame is in two of them.
    """
    rest = (CHUNK_HOP + x.shape[1] % CHUNK) % CHUNK
    x = F.pad(x, (0, 0, CHUNK_HOP, CHUNK - rest + CHUNK_HOP))
    return x.unfold(1, CHUNK, CHUNK_HOP).transpose(2, 3)


def positions(n: int, like: torch.Tensor) -> torch.Tensor:
    """Sinusoidal positions (Vaswani et al. 2017), shape (n, 256)."""
    rate = torch.exp(torch.arange(0, N_UNITS, 2.0) * (-math.log(10000.0) / N_UNITS))
    angle = torch.arange(float(n))[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like)


def _dual_path_block() -> nn.ModuleDict:
    """Parameters of one block, named as in the published file."""
    block = nn.ModuleDict()
    for path in PATHS:
        layers = nn.ModuleList(_layer_parameters() for _ in range(N_LAYERS))
        block[f"{path}_mdl"] = nn.ModuleDict(
            {"mdl": nn.ModuleDict({"layers": layers, "norm": _layer_norm()})}
        )
        block[f"{path}_norm"] = nn.GroupNorm(1, N_UNITS, eps=1e-8)
    return block


def _layer_parameters() -> nn.ModuleDict:
    feed_forward = nn.Sequential(
        nn.Linear(N_UNITS, N_EXPANDED), nn.ReLU(), nn.Identity(), nn.Linear(N_EXPANDED, N_UNITS)
    )
    return nn.ModuleDict(
        {
            "self_att": nn.ModuleDict({"att": nn.MultiheadAttention(N_UNITS, N_HEADS)}),
            "pos_ffn": nn.ModuleDict({"ffn": feed_forward}),
            "norm1": _layer_norm(),
            "norm2": _layer_norm(),
        }
    )


def _layer_norm() -> nn.ModuleDict:
    return nn.ModuleDict({"norm": nn.LayerNorm(N_UNITS, eps=1e-6)})


def _transformer_layer(layer: nn.ModuleDict, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pre-norm transformer layer; also returns the feed-forward part by itself."""
    x = x + _attention(layer["self_att"]["att"], layer["norm1"]["norm"](x))
    tapped = layer["pos_ffn"]["ffn"](layer["norm2"]["norm"](x))
    return x + tapped, tapped


def _attention(parameters: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Self-attention that never holds the (frame, frame) matrix of a long sound."""
    joint = F.linear(x, parameters.in_proj_weight, parameters.in_proj_bias)
    query, key, value = joint.unflatten(-1, (3, N_HEADS, -1)).movedim(-3, 0).transpose(-3, -2)
    attended = F.scaled_dot_product_attention(query, key, value)
    return parameters.out_proj(attended.transpose(-3, -2).flatten(-2))
