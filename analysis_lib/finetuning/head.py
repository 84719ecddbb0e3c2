"""From frames of a network to a brain: a causal filter per feature and target."""

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["TemporalHead", "frame_positions", "resample_frames"]


class TemporalHead(nn.Module):
    """A temporal convolution that looks back, never forward.

    The prediction at volume ``t`` is ``b + sum_j W_j e_(t-j)`` over the features ``e`` of the
    last ``n_taps`` volumes: a finite impulse response (FIR) per feature and target. No
    haemodynamic response is assumed; the filter learns the delay.

    Parameters
    ----------
    n_features, n_targets : int
    n_taps : int
        Volumes of history, the present one included. Seven are 10.4 s of 1.49 s each.

    References
    ----------
    Freteault et al. (2025), Imaging Neuroscience.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import finetuning
    >>> head = finetuning.TemporalHead(n_features=4, n_targets=2, n_taps=3)
    >>> head(torch.zeros(1, 4, 12)).shape, head(torch.zeros(1, 4, 10), pad=True).shape
    (torch.Size([1, 2, 10]), torch.Size([1, 2, 10]))
    >>> head.fir.shape
    torch.Size([3, 2, 4])
    """

    def __init__(self, n_features: int, n_targets: int, n_taps: int):
        super().__init__()
        self.convolution = nn.Conv1d(n_features, n_targets, n_taps)

    @property
    def n_taps(self) -> int:
        """Volumes of history, the present one included."""
        return self.convolution.kernel_size[0]

    @property
    def fir(self) -> torch.Tensor:
        """Weights by delay, of shape (n_taps, n_targets, n_features); delay 0 is the first."""
        return self.convolution.weight.flip(2).permute(2, 0, 1)

    def forward(self, features: torch.Tensor, pad: bool = False) -> torch.Tensor:
        """Predict.

        Parameters
        ----------
        features : tensor of shape (batch, n_features, n_volumes + n_taps - 1)
            Beginning ``n_taps - 1`` volumes before the first to predict.
        pad : bool
            Put zeros where that history would be; ``features`` then has ``n_volumes``.

        Returns
        -------
        tensor of shape (batch, n_targets, n_volumes)
        """
        return self.convolution(F.pad(features, (self.n_taps - 1, 0)) if pad else features)


def frame_positions(first: int, n_volumes: int, tr: float, frame_step: float) -> torch.Tensor:
    """Where volumes lie among frames: volume ``i`` at frame ``i * tr / frame_step``.

    SoundNet's last frames are 1.48608 s apart and the volumes of Friends 1.49 s. Taking the
    ``i``-th frame for the ``i``-th volume loses 3.9 ms with each, 1.9 s by the end of a run of 12
    minutes. Here volume 0 keeps the frame that it has by counting, and the others keep their
    distance from it.

    Parameters
    ----------
    first, n_volumes : int
        Which volumes; ``first`` may be negative (before the run).
    tr, frame_step : float
        Seconds between volumes, and between frames.

    Returns
    -------
    tensor of shape (n_volumes,), float64
        In frames since frame 0.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> finetuning.frame_positions(-1, 4, tr=1.5, frame_step=1.0)
    tensor([-1.5000,  0.0000,  1.5000,  3.0000], dtype=torch.float64)
    """
    return torch.arange(first, first + n_volumes, dtype=torch.float64) * (tr / frame_step)


def resample_frames(frames: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Interpolate frames linearly.

    Parameters
    ----------
    frames : tensor of shape (batch, n_features, n_frames)
        Evenly spaced in time.
    positions : tensor of shape (batch, n_volumes)
        In frames, from 0 to ``n_frames - 1``.

    Returns
    -------
    tensor of shape (batch, n_features, n_volumes)

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import finetuning
    >>> frames = torch.tensor([[[0.0, 10.0, 20.0]]])
    >>> finetuning.resample_frames(frames, torch.tensor([[0.0, 0.5, 1.75]]))
    tensor([[[ 0.0000,  5.0000, 17.5000]]])
    """
    below = positions.floor().clamp(0, frames.shape[2] - 2).long()
    share = (positions - below).to(frames.dtype)[:, None]
    index = below[:, None].expand(-1, frames.shape[1], -1)
    return (1 - share) * frames.gather(2, index) + share * frames.gather(2, index + 1)
