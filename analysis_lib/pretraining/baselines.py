"""What a network must beat: guessing by frequency, and copying the nearest frame that is seen."""

from collections.abc import Sequence

import numpy as np
import torch

from .batches import VALIDATION, Batches

__all__ = ["copy_accuracy", "measured_baselines", "unigram_nats"]

_N_BATCHES = 16  # of the training audio, to count codes in


def unigram_nats(heard: torch.Tensor, unheard: torch.Tensor, n_codes: int) -> list[float]:
    """Cross-entropy of codes under their frequencies elsewhere (one added to every count).

    Parameters
    ----------
    heard, unheard : tensor of int, shape (..., codebook)
        Where codes are counted, and where they are guessed.
    n_codes : int
        Per codebook.

    Returns
    -------
    list of float
        In nats, one per codebook.
    """
    nats = []
    for counted, guessed in zip(heard.flatten(0, -2).T, unheard.flatten(0, -2).T, strict=True):
        counts = torch.bincount(counted, minlength=n_codes).double() + 1
        nats.append(float(-(counts / counts.sum()).log()[guessed].mean()))
    return nats


def copy_accuracy(codes: torch.Tensor, visible: torch.Tensor, hidden: torch.Tensor) -> float:
    """Share of the hidden frames that have the code of the nearest visible frame.

    Of two that are equally near, the earlier one.

    Parameters
    ----------
    codes : tensor of int, shape (batch, frame)
        Of one codebook.
    visible, hidden : tensor of int, shape (batch, n)
        Numbers of the frames.
    """
    distance = (hidden[:, :, None] - visible[:, None, :]).abs()
    nearest = visible.gather(1, distance.argmin(2))
    return float((codes.gather(1, nearest) == codes.gather(1, hidden)).double().mean())


def measured_baselines(
    heard: Batches, unheard: Batches, weights: Sequence[float], n_codes: int, n_batches: int
) -> dict[str, float]:
    """Baselines for the columns of a run's record, on the crops that validate it.

    Returns
    -------
    dict of str to float
        ``unigram_loss`` to hold against ``validation_masked_loss``, ``unigram_nats`` against
        ``validation_masked_nats``, ``copy_accuracy`` against ``validation_masked_accuracy``.
    """
    counted = torch.cat([heard(VALIDATION + i)[1] for i in range(_N_BATCHES)])
    parts = [unheard(VALIDATION + i)[1:] for i in range(n_batches)]
    codes, visible, hidden = (torch.cat(column) for column in zip(*parts, strict=True))
    guessed = codes.gather(1, hidden[..., None].expand(-1, -1, codes.shape[2]))
    nats = unigram_nats(counted, guessed, n_codes)
    return {
        "unigram_loss": float(np.dot(nats, weights)),
        "unigram_nats": nats[0],
        "copy_accuracy": copy_accuracy(codes[..., 0], visible, hidden),
    }
