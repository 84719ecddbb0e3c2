"""Random halves of the sounds, as drawn by Tuckute et al. (2023)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..errors import AlignmentError

__all__ = ["tuckute_splits"]


def tuckute_splits(names: Sequence[str], n_splits: int = 10, seed: int = 0) -> xr.DataArray:
    """Draw the training halves of the reference protocol again.

    Each split draws one sound more than half without replacement (83 of 165) for training; the
    rest is tested. The halves are independent draws, so test sets overlap by about a half, and
    they are not balanced over categories.

    Parameters
    ----------
    names : sequence of str
        The sounds in the data set's own order (ascending stimulus number for the 165).
    n_splits : int
        Number of splits; the reference has 10.
    seed : int
        Of NumPy's legacy generator; the reference has 0.

    Returns
    -------
    DataArray (split, sound) of bool
        True where a sound trains, False where it is tested.

    References
    ----------
    Tuckute, Feather, Boebinger & McDermott (2023), PLOS Biology.
    """
    names = list(map(str, names))
    if len(set(names)) != len(names):
        raise AlignmentError("sound names must be unique to draw splits over them")
    n_sounds = len(names)
    n_train = n_sounds // 2 + n_sounds % 2
    rng = np.random.RandomState(seed)
    trains = np.zeros((n_splits, n_sounds), dtype=bool)
    for train in trains:
        train[rng.choice(n_sounds, n_train, replace=False)] = True
        # The reference draws the order of the test half too, which moves the generator on.
        rng.choice(n_sounds - n_train, n_sounds - n_train, replace=False)
    return xr.DataArray(
        trains,
        dims=("split", "sound"),
        coords={"sound": np.array(names, dtype=object), "split": np.arange(n_splits)},
        name="train",
    )
