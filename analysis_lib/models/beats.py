"""BEATs: audio transformers taught by their own tokenizers (Chen et al. 2023).

Patches of 16 frames by 16 mel bands are projected, given a convolutional position code, and pass
through twelve post-norm transformer blocks with DeepNorm residuals and a gated relative position
bias that all blocks share.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from .audio_model import AudioModel
from .cards import ModelCard
from .frontends import KaldiSpectrogram
from .weights import check_settings, check_tied

__all__ = ["BEATs"]

PATCH = 16  # frames, and mel bands, per patch
ROWS = 8  # patches on top of each other: 128 mel bands
FRAME_LENGTH, FRAME_SHIFT = 400, 160  # samples
N_BLOCKS, N_HEADS, WIDTH, N_HIDDEN, N_EMBEDDING = 12, 12, 768, 3072, 512
N_CLASSES = 527  # of AudioSet
N_BUCKETS, MAX_DISTANCE = 320, 800  # of the relative position bias, in tokens
DEEPNORM = (2 * N_BLOCKS) ** 0.25
ATTENTION_BUDGET = 2**26  # attention weights held at once

# What the published files must say about themselves for the above to hold.
SETTINGS = {
    "input_patch_size": PATCH,
    "embed_dim": N_EMBEDDING,
    "conv_bias": False,
    "encoder_layers": N_BLOCKS,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": N_HIDDEN,
    "encoder_attention_heads": N_HEADS,
    "activation_fn": "gelu",
    "deep_norm": True,
    "layer_norm_first": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": N_BUCKETS,
    "max_distance": MAX_DISTANCE,
    "gru_rel_pos": True,
}


class BEATs(AudioModel):
    """The BEATs encoder.

    ``tap_0`` is the input of the first block, ``tap_i`` the output of block ``i``. The network's
    tokens are patches in time and frequency. A frame here is one row of 8 patches that share
    their 16 spectrogram frames: ``tap_i`` is the mean over its 8 frequencies, shape
    (batch, frame, 768), so that frames have times and their mean is the mean over all tokens.
    ``tap_i_by_frequency``, given on request, keeps the frequencies apart, shape
    (batch, frame, 8, 768), low to high.

    Sounds of any length are attended to as a whole, as in the original; memory stays bounded
    because queries are taken in blocks, time grows with the square of the length.

    Parameters
    ----------
    card : ModelCard
        Options: ``fine_tuned``, whether the file has a classifier. Layers do not depend on it,
        but loading it tells pretrained from fine-tuned files.

    Notes
    -----
    The table of the position bias is one tensor that published files repeat under each block.
    Fresh weights of an untrained network are drawn as for BERT, with the smaller values,
    outputs and FFNs that DeepNorm asks for (Wang et al. 2022).
    """

    min_samples = FRAME_LENGTH + (PATCH - 1) * FRAME_SHIFT

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.extra_layers = tuple(f"{layer}_by_frequency" for layer in self.layers)
        table = nn.Embedding(N_BUCKETS, N_HEADS)
        self.network = nn.ModuleDict(
            {
                "spectrogram": KaldiSpectrogram(
                    self.sample_rate, FRAME_LENGTH, FRAME_SHIFT, n_mels=PATCH * ROWS
                ),
                "patch_embedding": nn.Conv2d(1, N_EMBEDDING, PATCH, stride=PATCH, bias=False),
                "layer_norm": nn.LayerNorm(N_EMBEDDING),
                "post_extract_proj": nn.Linear(N_EMBEDDING, WIDTH),
                "encoder": nn.ModuleDict(
                    {
                        "pos_conv": nn.Sequential(_PositionConvolution()),
                        "layer_norm": nn.LayerNorm(WIDTH),
                        "layers": nn.ModuleList(_Block(table) for _ in range(N_BLOCKS)),
                    }
                ),
            }
        )
        if card.options["fine_tuned"]:
            self.network["predictor"] = nn.Linear(WIDTH, N_CLASSES)
        _draw_weights(self.network)

    def accept_settings(self, settings: Mapping[str, object]) -> None:
        """Compare the file's ``cfg`` with the network, entry by entry."""
        expected = {**SETTINGS, "finetuned_model": self.card.options["fine_tuned"]}
        check_settings(self, settings.get("cfg", {}), expected)

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep the published names.

        Warns
        -----
        WeightsNotice
            When the copies of the position bias differ.
        """
        check_tied(tensors, r"encoder\.layers\.\d+\.self_attn\.(relative_attention_bias\.weight)")
        return dict(tensors)

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        network, encoder = self.network, self.network["encoder"]
        spectrogram = (network["spectrogram"](waveforms * 2**15) - 15.41663) / (2 * 6.55582)
        patches = network["patch_embedding"](spectrogram[:, None])
        tokens = network["layer_norm"](patches.flatten(2).transpose(1, 2))
        tokens = network["post_extract_proj"](tokens)
        tokens = encoder["layer_norm"](tokens + encoder["pos_conv"](tokens))

        deepest = max(int(layer.split("_")[1]) for layer in layers)
        outputs = {}
        bias = encoder["layers"][0].self_attn.position_bias(tokens.shape[1]) if deepest else None
        for index in range(deepest + 1):
            if index > 0:
                tokens = encoder["layers"][index - 1](tokens, bias)
            rows = tokens.unflatten(1, (-1, ROWS))
            if f"tap_{index}" in layers:
                outputs[f"tap_{index}"] = rows.mean(dim=2)
            if f"tap_{index}_by_frequency" in layers:
                outputs[f"tap_{index}_by_frequency"] = rows
        return outputs

    def _frame_grid(self, layer: str) -> tuple[float, float]:
        """One frame per row of patches, centred on the samples that its 16 windows cover."""
        return PATCH * FRAME_SHIFT / self.sample_rate, self.min_samples / 2 / self.sample_rate


class _PositionConvolution(nn.Module):
    """Position code from a convolution along the tokens, with one gain per kernel position."""

    def __init__(self, kernel: int = 128, groups: int = 16):
        super().__init__()
        self.groups, self.padding = groups, kernel // 2
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(WIDTH, WIDTH // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        norm = self.weight_v.norm(dim=(0, 1), keepdim=True)
        code = F.conv1d(
            tokens.transpose(1, 2),
            self.weight_v * (self.weight_g / norm),
            self.bias,
            padding=self.padding,
            groups=self.groups,
        )
        # The kernel is even: padded on both sides, it gives one output too many.
        return F.gelu(code[..., :-1]).transpose(1, 2)


class _Block(nn.Module):
    """A post-norm transformer block with DeepNorm residuals."""

    def __init__(self, table: nn.Embedding):
        super().__init__()
        self.self_attn = _Attention(table)
        self.self_attn_layer_norm = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, N_HIDDEN)
        self.fc2 = nn.Linear(N_HIDDEN, WIDTH)
        self.final_layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = self.self_attn_layer_norm(DEEPNORM * x + self.self_attn(x, bias))
        return self.final_layer_norm(DEEPNORM * x + self.fc2(F.gelu(self.fc1(x))))


class _Attention(nn.Module):
    """Self-attention with a relative position bias, gated by each query."""

    def __init__(self, table: nn.Embedding):
        super().__init__()
        self.relative_attention_bias = table
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(WIDTH, WIDTH) for _ in range(4)
        )
        self.grep_linear = nn.Linear(WIDTH // N_HEADS, 8)
        self.grep_a = nn.Parameter(torch.ones(1, N_HEADS, 1, 1))

    def position_bias(self, n_tokens: int) -> torch.Tensor:
        """Bias by relative position.

        Returns
        -------
        tensor of shape (head, n_tokens, n_tokens)
            A view; row ``i`` belongs to query ``n_tokens - 1 - i``, its columns to the keys.
        """
        table = self.relative_attention_bias.weight
        offset = torch.arange(1 - n_tokens, n_tokens, device=table.device)  # key minus query
        bias = table[_bucket(offset)].T
        return bias.unfold(-1, n_tokens, 1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            project(x).unflatten(-1, (N_HEADS, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # batch, head, token, d
        ga, gb = self.grep_linear(query).unflatten(-1, (2, 4)).sum(dim=-1).sigmoid().unbind(-1)
        gate = ga[..., None] * (gb[..., None] * self.grep_a - 1) + 2
        n_batch, n_tokens, _ = x.shape
        block = max(1, ATTENTION_BUDGET // (n_batch * N_HEADS * n_tokens))
        mixed = []
        for start in range(0, n_tokens, block):
            stop = min(start + block, n_tokens)
            rows = bias[:, n_tokens - stop : n_tokens - start].flip(1)
            mixed.append(
                F.scaled_dot_product_attention(
                    query[:, :, start:stop],
                    key,
                    value,
                    attn_mask=gate[:, :, start:stop] * rows,
                )
            )
        return self.out_proj(torch.cat(mixed, dim=2).transpose(1, 2).flatten(2))


def _bucket(offset: torch.Tensor) -> torch.Tensor:
    """Bucket of a relative position: exact when near, logarithmic when far, one side each."""
    half = N_BUCKETS // 2
    exact = half // 2
    distance = offset.abs()
    far = (distance.clamp(min=1).float() / exact).log() / math.log(MAX_DISTANCE / exact) * exact
    far = (exact + far.long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


def _draw_weights(network: nn.ModuleDict) -> None:
    """Fresh weights, in place."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        if isinstance(module, _PositionConvolution):
            nn.init.normal_(module.weight_v)
            nn.init.constant_(module.weight_g, math.sqrt(WIDTH * 4 / 128))
    shrunk = (8 * N_BLOCKS) ** -0.25
    for block in network["encoder"]["layers"]:
        attention = block.self_attn
        for linear in (attention.q_proj, attention.k_proj):
            nn.init.xavier_normal_(linear.weight)
        for linear in (attention.v_proj, attention.out_proj, block.fc1, block.fc2):
            nn.init.xavier_normal_(linear.weight, gain=shrunk)
    nn.init.xavier_normal_(network["encoder"]["layers"][0].self_attn.relative_attention_bias.weight)
