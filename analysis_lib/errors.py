"""What can go wrong, in one family.

Every message says what was wrong, with which item, and what to do about it.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AlignmentError",
    "AudioError",
    "AudioNotice",
    "BrainbookError",
    "ChecksumError",
    "DataError",
    "DataNotice",
    "MemoryBudgetError",
    "MissingDataError",
    "ParameterError",
    "StorageError",
    "TrainingError",
    "UnknownNameError",
    "WeightsError",
    "WeightsNotice",
]


class BrainbookError(Exception):
    """Base of every error that this package raises on purpose."""


class UnknownNameError(BrainbookError):
    """A model, layer, data set, chapter, profile or parameter that does not exist.

    Parameters
    ----------
    kind : str
        What was looked for, as a reader would call it ("model", "data set").
    name : str
        The name that was not found.
    known : iterable of str
        Every name that would have been accepted.

    Examples
    --------
    >>> from analysis_lib import errors
    >>> str(errors.UnknownNameError("model", "mffc", ["mfcc", "log-mel"]))
    "unknown model 'mffc'. Did you mean 'mfcc'?"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        self.kind, self.name, self.known = kind, str(name), sorted(map(str, known))
        folded = {k.casefold(): k for k in self.known}
        near = [folded[k] for k in get_close_matches(self.name.casefold(), folded, n=3, cutoff=0.5)]
        if near:
            hint = f"Did you mean {' or '.join(map(repr, near))}?"
        else:
            shown = ", ".join(self.known[:20]) + (", …" if len(self.known) > 20 else "")
            hint = f"Known: {shown or '(none)'}."
        super().__init__(f"unknown {kind} {self.name!r}. {hint}")


class ParameterError(BrainbookError):
    """A parameter or argument with an impossible value or the wrong type."""


class DataError(BrainbookError):
    """A data file or array that is not what it should be."""


class MissingDataError(DataError):
    """A file that is not here and could not be fetched."""


class ChecksumError(DataError):
    """A file whose bytes are not the registered ones; it was set aside, not used."""


class AlignmentError(DataError):
    """Arrays whose sounds do not match by name."""


class AudioError(DataError):
    """Audio that cannot be used: unreadable, empty, silent, not finite."""


class AudioNotice(UserWarning):
    """Audio that was converted before use (mixed down, resampled, clipped)."""


class DataNotice(UserWarning):
    """Data that can be used, with something to know about them."""


class WeightsError(BrainbookError):
    """A checkpoint that does not fit its network, or is not safe to read."""


class WeightsNotice(UserWarning):
    """Weights that are used, but are not quite what was expected."""


class TrainingError(BrainbookError):
    """A training run that cannot go on; the last good checkpoint is named."""


class StorageError(BrainbookError):
    """A folder that cannot be written, or a disk that is full."""


class MemoryBudgetError(BrainbookError):
    """A computation that would not fit in memory, refused before it starts."""
