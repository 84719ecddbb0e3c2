"""Which frames are hidden: whole gaps, an exact number of frames."""

import numpy as np

from ..errors import ParameterError

__all__ = ["GAP", "SHARE", "gap_mask", "split_frames"]

GAP = 15  # frames (0.2 s) of the published mask
SHARE = 0.5  # of the frames are hidden


def gap_mask(
    n_frames: int, rng: np.random.Generator, gap: int = GAP, share: float = SHARE
) -> np.ndarray:
    """Hide gaps until a share of the frames is hidden (Pepino et al. 2023).

    Gaps of ``gap`` frames start anywhere that they fit, with equal probability, and may overlap.
    They are added until ``floor(share * n_frames)`` frames or more are hidden; what is too much is
    taken back at the beginning of the first gap. So every mask hides the same number of frames,
    and all stretches of hidden frames are at least ``gap`` long but for what is left around the
    frames taken back. Frames less than ``gap`` from an end lie in fewer gaps and are hidden less
    often.

    Parameters
    ----------
    n_frames : int
        At least ``gap``.
    rng : Generator
        Where the starts are drawn from.
    gap : int
        Frames per gap.
    share : float
        Of the frames, between 0 and 1.

    Returns
    -------
    bool array of shape (n_frames,)
        Whether a frame is hidden.

    Raises
    ------
    ParameterError
        When a gap is longer than the sound, or nothing would be hidden or left to see.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import pretraining
    >>> hidden = pretraining.gap_mask(20, np.random.default_rng(0), gap=5)
    >>> "".join(np.where(hidden, "#", "."))
    '........##########..'
    >>> int(hidden.sum())
    10
    """
    n_hidden = int(n_frames * share)
    if not 1 <= gap <= n_frames or not 1 <= n_hidden < n_frames:
        raise ParameterError(
            f"gaps of {gap} frames cannot hide {share:g} of {n_frames} frames. Use longer crops, "
            "shorter gaps, or a share between 0 and 1."
        )
    hidden = np.zeros(n_frames, dtype=bool)
    starts = []
    while (surplus := int(hidden.sum()) - n_hidden) < 0:
        starts.append(int(rng.integers(n_frames - gap + 1)))
        hidden[starts[-1] : starts[-1] + gap] = True
    hidden[starts[0] : starts[0] + surplus] = False
    return hidden


def split_frames(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the visible and of the hidden frames.

    Parameters
    ----------
    hidden : bool array of shape (n_sounds, n_frames)
        With equally many hidden frames in each row.

    Returns
    -------
    visible, hidden : int arrays of shape (n_sounds, n)
        In ascending order.
    """
    n_sounds = len(hidden)
    return (
        np.nonzero(~hidden)[1].reshape(n_sounds, -1),
        np.nonzero(hidden)[1].reshape(n_sounds, -1),
    )
