"""The masked autoencoder of EnCodecMAE (Pepino et al. 2023), at any size, and its losses.

Names and shapes of its tensors are those of the published checkpoints, without the
``target_encoder``, which is not learned and is kept once per run. So what is trained here is
loaded by the class that loads the published files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ParameterError, UnknownNameError
from ..models.residual_transformer import N_HIDDEN, N_MELS, PositionCode, ResidualStack

__all__ = [
    "CODEBOOK_WEIGHTS",
    "MASKED_WEIGHT",
    "SIZES",
    "LabelledEncoder",
    "MaskedAutoencoder",
    "Size",
    "size_of",
]

MASKED_WEIGHT = 0.9  # of the loss on hidden frames; the rest is that on visible ones
# How much each codebook of EnCodec counts, as published; they add up to 1.
CODEBOOK_WEIGHTS = (
    0.22407463, 0.1759858, 0.14499009, 0.12150037, 0.10315603, 0.08831368, 0.07608274, 0.06589669,
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes
    ----------
    n_layers, width, n_heads : int
        Of the encoder; ``width`` and ``n_heads`` of the decoder too.
    n_hidden : int
        Units of the feed-forward network that the encoder's blocks share, and the decoder's.
    n_decoder_layers : int

    Examples
    --------
    >>> from analysis_lib import pretraining
    >>> pretraining.SIZES["tiny"]
    Size(n_layers=3, width=48, n_heads=4, n_hidden=96, n_decoder_layers=1)
    >>> mine = pretraining.Size(n_layers=2, width=16, n_heads=4, n_hidden=24)
    >>> mine.n_decoder_layers
    2
    """

    n_layers: int
    width: int
    n_heads: int
    n_hidden: int = N_HIDDEN
    n_decoder_layers: int = 2


# The published sizes, and two that a laptop trains.
SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": Size(3, 48, 4, 96, 1),
        "mini": Size(6, 96, 4, 256, 1),
        "small": Size(5, 768, 12),
        "base": Size(10, 768, 12),
        "large": Size(20, 1024, 12),
    }
)


def size_of(name: str) -> Size:
    """Look up one of :data:`SIZES`."""
    if name not in SIZES:
        raise UnknownNameError("size of network", name, SIZES)
    return SIZES[name]


class _Encoder(nn.Module):
    """Projection, position code and encoder: the part that stays after pretraining."""

    def __init__(self, size: Size, n_inputs: int):
        super().__init__()
        self.wav_encoder = nn.ModuleDict({"post_net": nn.Linear(n_inputs, size.width)})
        self.masker = nn.ModuleDict({"positional_encoder": PositionCode(size.width)})
        self.visible_encoder = ResidualStack(size.n_layers, size.width, size.n_heads, size.n_hidden)
        self.apply(_freshen)  # before anything else is drawn: the same encoder in every control

    def encode(self, frames: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Encode the visible frames and nothing else, each at its place in time.

        Parameters
        ----------
        frames : tensor of shape (batch, frame, input)
            All of them.
        visible : tensor of int, shape (batch, visible frame), optional
            Numbers of the visible frames; by default all.

        Returns
        -------
        tensor of shape (batch, visible frame, width)
        """
        if visible is not None:
            frames = frames.gather(1, visible[..., None].expand(-1, -1, frames.shape[2]))
        projected = self.wav_encoder["post_net"](frames)
        return self.visible_encoder(self.masker["positional_encoder"](projected, visible))


def _freshen(module: nn.Module) -> None:
    """Draw weights as the published networks start: Xavier's, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MaskedAutoencoder(_Encoder):
    """The network of EnCodecMAE with everything that pretraining needs.

    The encoder gets the visible frames alone. Its output goes through a linear layer and is put
    back where it was; hidden frames are zeros there, told apart by the decoder's position code.
    The decoder's output at each frame is read out as one class per codebook.

    Parameters
    ----------
    size : Size
    n_codebooks, n_codes : int
        Of the targets.
    masked_weight : float
        Weight of the loss on hidden frames.
    codebook_weights : sequence of float, optional
        One per codebook, adding up to 1; by default the first of :data:`CODEBOOK_WEIGHTS`,
        rescaled.
    n_inputs : int
        Values per frame.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import pretraining
    >>> size = pretraining.Size(n_layers=2, width=16, n_heads=4, n_hidden=24, n_decoder_layers=1)
    >>> network = pretraining.MaskedAutoencoder(size, n_codebooks=2, n_codes=5)
    >>> frames, codes = torch.randn(3, 8, 256), torch.zeros(3, 8, 2, dtype=torch.int64)
    >>> visible, hidden = torch.arange(8).expand(3, 8).split(4, dim=1)
    >>> network.predict(frames, visible).shape
    torch.Size([3, 8, 2, 5])
    >>> loss, weight, metrics = network(frames, codes, visible, hidden)
    >>> weight.item(), sorted(metrics)
    (3.0, ['masked_accuracy', 'masked_loss', 'masked_nats', 'visible_loss'])
    """

    def __init__(
        self,
        size: Size,
        n_codebooks: int = 8,
        n_codes: int = 1024,
        masked_weight: float = MASKED_WEIGHT,
        codebook_weights: Sequence[float] | None = None,
        n_inputs: int = N_MELS,
    ):
        super().__init__(size, n_inputs)
        if codebook_weights is None:
            first = CODEBOOK_WEIGHTS[:n_codebooks]
            codebook_weights = [weight / sum(first) for weight in first]
        if len(codebook_weights) != n_codebooks:
            raise ParameterError(
                f"{len(codebook_weights)} codebook weights for {n_codebooks} codebooks"
            )
        width = size.width
        self.n_codebooks, self.masked_weight = n_codebooks, masked_weight
        self.visible_encoder["post_net"] = nn.Linear(width, width)
        self.decoder = ResidualStack(size.n_decoder_layers, width, size.n_heads, size.n_hidden)
        self.decoder["positional_encoder"] = PositionCode(width)
        self.head = nn.ModuleDict({"layer": nn.Linear(width, n_codebooks * n_codes)})
        self.register_buffer("codebook_weights", torch.tensor(codebook_weights), persistent=False)
        for part in (self.visible_encoder["post_net"], self.decoder, self.head):
            part.apply(_freshen)

    def predict(self, frames: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Logits of every frame's codes, from the visible frames.

        Returns
        -------
        tensor of shape (batch, frame, codebook, code)
        """
        encoded = self.visible_encoder["post_net"](self.encode(frames, visible))
        whole = encoded.new_zeros(*frames.shape[:2], encoded.shape[2])
        whole = whole.scatter(1, visible[..., None].expand_as(encoded), encoded)
        decoded = self.decoder(self.decoder["positional_encoder"](whole))
        return self.head["layer"](decoded).unflatten(-1, (self.n_codebooks, -1))

    def forward(
        self,
        frames: torch.Tensor,
        codes: torch.Tensor,
        visible: torch.Tensor,
        hidden: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of the sounds' losses, how many sounds they are, and sums of metrics.

        The loss of a sound is ``0.9 * masked_loss + 0.1 * visible_loss`` (the published weights):
        cross-entropies in nats, averaged over the hidden or the visible frames, the codebooks
        weighted.

        Parameters
        ----------
        frames : tensor of shape (batch, frame, input)
            All of them; hidden ones are not looked at.
        codes : tensor of int, shape (batch, frame, codebook)
            What is to be predicted.
        visible, hidden : tensor of int, shape (batch, n)
            Numbers of the frames; together they are all frames.

        Returns
        -------
        loss_sum, weight : tensor
        metrics : dict of str to tensor
            ``masked_loss``, ``visible_loss``; for the first codebook ``masked_nats`` (not
            weighted) and ``masked_accuracy``.
        """
        logits = self.predict(frames, visible).float()
        nats = F.cross_entropy(logits.flatten(0, 2), codes.flatten(), reduction="none")
        nats = nats.view_as(codes)
        weighted = nats @ self.codebook_weights
        masked, seen = weighted.gather(1, hidden).mean(1), weighted.gather(1, visible).mean(1)
        losses = self.masked_weight * masked + (1 - self.masked_weight) * seen
        right = (logits[:, :, 0].argmax(-1) == codes[..., 0]).float()
        metrics = {
            "masked_loss": masked.sum(),
            "visible_loss": seen.sum(),
            "masked_nats": nats[..., 0].gather(1, hidden).mean(1).sum(),
            "masked_accuracy": right.gather(1, hidden).mean(1).sum(),
        }
        return losses.sum(), losses.new_tensor(len(losses)), metrics


class LabelledEncoder(_Encoder):
    """The same encoder, taught by labels: its output, averaged over time, is read out linearly.

    Parameters
    ----------
    size : Size
    n_classes : int
    n_inputs : int
        Values per frame.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import pretraining
    >>> size = pretraining.Size(n_layers=2, width=16, n_heads=4, n_hidden=24)
    >>> network = pretraining.LabelledEncoder(size, n_classes=3)
    >>> frames = torch.randn(4, 8, 256)
    >>> network.encode(frames).shape
    torch.Size([4, 8, 16])
    >>> loss, weight, metrics = network(frames, torch.tensor([0, 1, 2, 0]))
    >>> weight.item(), list(metrics)
    (4.0, ['accuracy'])
    """

    def __init__(self, size: Size, n_classes: int, n_inputs: int = N_MELS):
        super().__init__(size, n_inputs)
        self.head = nn.ModuleDict({"layer": nn.Linear(size.width, n_classes)}).apply(_freshen)

    def forward(
        self, frames: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Sum of cross-entropies, how many sounds they are, and how many were right.

        Parameters
        ----------
        frames : tensor of shape (batch, frame, input)
            All are seen.
        labels : tensor of int, shape (batch,)
            One per sound.
        """
        logits = self.head["layer"](self.encode(frames).mean(1)).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        right = (logits.argmax(1) == labels).float().sum()
        return loss, loss.new_tensor(len(labels)), {"accuracy": right}
