"""What a network is trained on instead of natural audio, to see what natural audio does.

=============  ==================================================================================
control        audio
=============  ==================================================================================
``none``       as recorded
``shuffled``   each crop cut into pieces of 20 ms, put together in a random order: its spectrum
               and level stay, the order of events goes
``noise``      Gaussian noise with the long-term spectrum of all the audio, at the level of the
               crop it stands for: nothing of any one sound stays
``labels``     as recorded; the encoder is taught the recordings' labels instead of its gaps
=============  ==================================================================================

The noise is not white: white noise would lie outside the range that the front end is normalised
for, and differ from natural audio in a way that has nothing to do with structure.
"""

from collections.abc import Callable

import numpy as np

from .audio import Corpus

__all__ = ["CONTROLS", "PIECE", "noise_like", "shuffled", "spectrum_of"]

CONTROLS = ("none", "shuffled", "noise", "labels")
PIECE = 480  # samples (20 ms): shorter than a syllable or a note, longer than a pitch period
_N_CROPS = 256  # that the long-term spectrum is measured on


def shuffled(wave: np.ndarray, rng: np.random.Generator, piece: int = PIECE) -> np.ndarray:
    """Put the pieces of a sound together in a random order.

    Pieces are twice as long as their distance and faded by half a sine wave, so that neighbours
    overlap without clicks, and pieces that have nothing to do with each other add up to the power
    that they had.

    Parameters
    ----------
    wave : array of shape (n_samples,)
        Any sound.
    rng : Generator
        Where the order is drawn from.
    piece : int
        Samples between the beginnings of two pieces.

    Returns
    -------
    array of shape (n_samples,), float32
    """
    n_pieces = -(-len(wave) // piece)
    padded = np.pad(wave, (0, (n_pieces + 1) * piece - len(wave)), mode="wrap")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * piece)[::piece]
    fade = np.sin(np.pi * (np.arange(2 * piece) + 0.5) / (2 * piece))
    pieces = pieces[rng.permutation(n_pieces)] * fade
    whole = np.zeros((n_pieces + 1) * piece)
    for half in (0, 1):  # first halves and second halves, each side by side
        begin = half * piece
        whole[begin : begin + n_pieces * piece] += pieces[:, begin : begin + piece].reshape(-1)
    whole[:piece] += whole[n_pieces * piece :]
    return whole[: len(wave)].astype(np.float32).clip(-1, 1)


def spectrum_of(audio: Corpus, n_samples: int, seed: int) -> np.ndarray:
    """Long-term spectrum: root mean power of crops, shape (n_samples // 2 + 1,)."""
    power = 0.0
    for i in range(_N_CROPS):
        wave, _ = audio.crop(n_samples, np.random.default_rng([seed, 1, i]))
        power = power + np.abs(np.fft.rfft(wave)) ** 2
    return np.sqrt(power / _N_CROPS)


def noise_like(wave: np.ndarray, spectrum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw Gaussian noise with a given spectrum and the level (RMS) of a sound.

    Parameters
    ----------
    wave : array of shape (n_samples,)
        Of which the level is taken and nothing else.
    spectrum : array of shape (n_samples // 2 + 1,)
        Magnitude at each frequency, in any unit.
    rng : Generator
        Where the noise is drawn from.

    Returns
    -------
    array of shape (n_samples,), float32
    """
    parts = rng.standard_normal((2, len(spectrum)))
    noise = np.fft.irfft(spectrum * (parts[0] + 1j * parts[1]), n=len(wave))
    level = np.sqrt(np.mean(wave.astype(float) ** 2))
    noise *= level / max(np.sqrt(np.mean(noise**2)), 1e-12)
    return noise.astype(np.float32).clip(-1, 1)


def altered(
    control: str, audio: Corpus, n_samples: int, seed: int
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Give what a control does with a crop."""
    if control == "shuffled":
        return shuffled
    if control == "noise":
        spectrum = spectrum_of(audio, n_samples, seed)
        return lambda wave, rng: noise_like(wave, spectrum, rng)
    return lambda wave, rng: wave
