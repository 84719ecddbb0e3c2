"""SoundNet with a head for brain responses, of which some layers learn and the others do not."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from ..errors import WeightsError
from ..models.soundnet import BLOCKS, SoundNet8
from .head import TemporalHead, resample_frames
from .settings import LAYERS, Settings

__all__ = ["FRAME", "RATE", "EncodingModel", "hop", "recount_statistics"]

RATE = 22_050  # Hz
N_BLOCKS = len(BLOCKS)


def hop(number: int) -> int:
    """Give the samples between frames after block ``number``; 1 for the waveform (0)."""
    samples = 1
    for _, _, _, pool in BLOCKS[:number]:
        samples *= 2 * pool
    return samples


FRAME = hop(N_BLOCKS)  # 32,768 samples, 1.48608 s
PIECE = 60  # frames that statistics are counted over at once


@torch.no_grad()
def recount_statistics(
    network: SoundNet8, waveforms: Iterable[np.ndarray], input_scale: float = 256.0
) -> None:
    """Count the statistics of every batch normalisation anew, in place, over some sound.

    Parameters
    ----------
    network : SoundNet8
        Its weights stay as they are.
    waveforms : iterable of array of shape (n_samples,)
        At 22,050 Hz in [-1, 1]. They are passed in pieces of a minute and a half, each normalised
        by its own statistics; what is kept is the average over pieces.
    input_scale : float
        Factor on the waveforms.
    """
    device = next(network.parameters()).device
    norms = [network.get_submodule(layer)[1] for layer in LAYERS]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    network.train()
    for waveform in waveforms:
        n_pieces = max(1, len(waveform) // (PIECE * FRAME))
        for piece in np.array_split(waveform, n_pieces):
            wave = torch.from_numpy(np.ascontiguousarray(piece)).to(device)
            next(x for name, x in network.stages(input_scale * wave[None]) if name == LAYERS[-1])
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class EncodingModel(nn.Module):
    """Sound to brain: the network, and the head on its last convolution.

    As an objective of :func:`analysis_lib.training.fit` it takes the batches of
    :class:`~analysis_lib.finetuning.segments.Segments`.

    Parameters
    ----------
    network : SoundNet8
        Weights to begin with; used in place.
    n_targets : int
        Responses of one subject.
    n_subjects : int
        Subjects in a batch; they have a head each where the settings say so.
    settings : Settings
    known : tensor of bool, shape (n_subjects, n_targets), optional
        False for targets that hold no data; they enter no loss. By default all are known.

    Attributes
    ----------
    first : int
        Number of the first block that has to be computed in each step; the output of those before
        it never changes, and can be computed once. 8 where no block changes.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> settings = finetuning.Settings(start="conv6", n_taps=3)
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 4))
    >>> model = finetuning.EncodingModel(network, n_targets=5, settings=settings)
    >>> model.first, sorted({name[:13] for name in model.state_dict()})
    (6, ['head.convolut', 'network.conv6', 'network.conv7'])
    >>> conv5 = torch.zeros(1, 2, 16)  # four frames of conv7
    >>> model.predict(conv5, torch.tensor([[0.0, 1.0, 2.0, 3.0]])).shape
    torch.Size([1, 1, 2, 5])
    """

    def __init__(
        self,
        network: SoundNet8,
        n_targets: int,
        n_subjects: int = 1,
        settings: Settings | None = None,
        known: torch.Tensor | None = None,
    ):
        super().__init__()
        self.settings = settings = settings or Settings()
        self.network = network
        width = network.get_submodule(LAYERS[-1])[0].out_channels
        self.n_targets = n_targets
        self.n_heads = n_subjects if settings.heads == "per-subject" else 1
        self.head = TemporalHead(width, self.n_heads * n_targets, settings.n_taps)
        if settings.head_start != "random":  # ridge weights are filled in by who has the data
            nn.init.zeros_(self.head.convolution.weight)
            nn.init.zeros_(self.head.convolution.bias)
        if known is None:
            known = torch.ones(n_subjects, n_targets, dtype=torch.bool)
        self.register_buffer("known", known, persistent=False)
        learning = (*LAYERS, "none").index(settings.start) + 1
        self._moving = {"trained": learning, "all": 1}.get(settings.statistics, N_BLOCKS + 1)
        self._learning = learning
        in_paper = settings.protocol == "paper"
        self.first = 1 if in_paper else min(learning, self._moving)
        self._constant = ("network.conv8", *(f"network.conv{i}." for i in range(1, self.first)))
        network.requires_grad_(False)
        for number in range(learning, N_BLOCKS + 1):
            network.get_submodule(f"conv{number}").requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> "EncodingModel":
        """Set the mode; batch normalisation that is frozen stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        for number in range(self._moving, N_BLOCKS + 1):
            self.network.get_submodule(f"conv{number}").train(mode)
        return self

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """Give what training changes: without the layers that never move, and the categories."""
        tensors = super().state_dict(*args, **kwargs)
        return {name: tensors[name] for name in tensors if not name.startswith(self._constant)}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Take back what :meth:`state_dict` gave; the rest stays as it is."""
        if strict and set(state_dict) != set(self.state_dict()):
            differing = sorted(set(state_dict) ^ set(self.state_dict()))
            raise WeightsError(
                f"{len(differing)} tensors of the stored model are not those of this one, such "
                f"as {differing[0]}. Remove the run's folder and start it again."
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def groups(self) -> list[dict]:
        """Parameters that learn, with their learning rates, for an optimiser."""
        learning = [p for p in self.network.parameters() if p.requires_grad]
        groups = [{"params": list(self.head.parameters()), "lr": self.settings.head_learning_rate}]
        if learning:
            groups.append({"params": learning, "lr": self.settings.learning_rate})
        return groups

    def blocks(self, inputs: torch.Tensor, through: int, number: int) -> torch.Tensor:
        """Run some blocks.

        Parameters
        ----------
        inputs : tensor of shape (batch, channel, frame)
            Output of block ``through``; for 0 waveforms in [-1, 1], with one channel.
        through, number : int
            Blocks ``through + 1`` to ``number`` are run.

        Returns
        -------
        tensor of shape (batch, channel, frame)
        """
        if through == number:
            return inputs
        if through == 0:
            inputs = self.settings.input_scale * inputs[:, 0]
        stages = self.network.stages(inputs, through + 1)
        return next(output for name, output in stages if name == f"conv{number}")

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Frames of the last convolution.

        Parameters
        ----------
        inputs : tensor of shape (batch, channel, frame)
            Output of the block before :attr:`first`; waveforms where that is 1.

        Returns
        -------
        tensor of shape (batch, n_features, n_frames)
        """
        through = max(self.first, self._learning) - 1
        with torch.no_grad():  # statistics move where nothing is learned
            frames = self.blocks(inputs, self.first - 1, through)
        return self.blocks(frames, through, N_BLOCKS)

    def predict(self, inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Predict responses.

        Parameters
        ----------
        inputs : tensor of shape (batch, channel, frame)
            As for :meth:`features`.
        positions : tensor of shape (batch, n_volumes + n_taps - 1)
            Frames of the volumes and of the history of the first; or (batch, n_volumes), of which
            only the number counts, under the paper's protocol.

        Returns
        -------
        tensor of shape (batch, n_heads, n_volumes, n_targets), float32
        """
        frames = self.features(inputs)
        if self.settings.protocol == "paper":
            predicted = self.head(frames, pad=True)[:, :, : positions.shape[1]]
        else:
            predicted = self.head(resample_frames(frames, positions))
        batch, _, n_volumes = predicted.shape
        return predicted.float().view(batch, self.n_heads, -1, n_volumes).transpose(2, 3)

    def forward(
        self,
        inputs: torch.Tensor,
        positions: torch.Tensor,
        targets: torch.Tensor,
        valid: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch.

        Parameters
        ----------
        inputs, positions
            As for :meth:`predict`.
        targets : tensor of shape (batch, n_subjects, n_volumes, n_targets)
            Measured responses, 0 where there are none.
        valid : tensor of bool, shape (batch, n_subjects, n_volumes)
            False for volumes that are not there, or that another segment counts.

        Returns
        -------
        loss_sum, weight : tensor
            Robust: squared error, averaged over known targets and summed over volumes and
            subjects, and how many those were. Paper: a hundredth of the sum of squares, and the
            volumes of a segment.
        metrics : dict of str to tensor
            Empty: the loss is the only number of a step.
        """
        predicted = self.predict(inputs, positions)
        squared = (predicted - targets).square() * self.known[:, None]
        squared = squared.sum(dim=3) * valid
        if self.settings.protocol == "paper":
            weight = predicted.new_tensor(float(len(inputs) * self.settings.segment_trs))
            return 0.01 * squared.sum(), weight, {}
        per_target = squared / self.known.sum(dim=1).clamp_min(1)[:, None]
        return per_target.sum(), valid.sum().clamp_min(1), {}
