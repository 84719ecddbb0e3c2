"""Checks of lab 1: hear, see, extract."""

import numpy as np

from .exercise import Choice, Exercise, Mistake

__all__ = [
    "check_band_features",
    "check_in_order",
    "check_level",
    "check_nearest",
    "check_pooling",
    "check_power_spectrogram",
    "check_zscore",
]


def _wave(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return 0.3 + rng.standard_normal(rng.integers(300, 400)), float(rng.uniform(0.01, 0.2))


check_level = Exercise(
    "level",
    2,
    right=lambda wave, level: level * wave / np.sqrt(np.mean(wave**2)),
    cases=(_wave,),
    mistakes=(
        Mistake(
            "peak",
            "this sets the highest sample to the level. The level of a sound is its root mean "
            "square: a click and a hum with the same peak are not equally loud.",
            lambda wave, level: level * wave / np.abs(wave).max(),
        ),
        Mistake(
            "no-root",
            "you divide by the mean square. Its root is missing: twice the wave would give "
            "half the level.",
            lambda wave, level: level * wave / np.mean(wave**2),
        ),
        Mistake(
            "no-mean",
            "you divide by the root of the sum of squares. It grows with the length of the sound; "
            "take the mean.",
            lambda wave, level: level * wave / np.sqrt(np.sum(wave**2)),
        ),
        Mistake(
            "standard-deviation",
            "you divide by the standard deviation, which takes the mean of the wave out first. "
            "The root mean square does not.",
            lambda wave, level: level * wave / wave.std(),
        ),
        Mistake(
            "centred",
            "you take the mean out of the wave. Only the level is to change.",
            lambda wave, level: level * (wave - wave.mean()) / wave.std(),
        ),
        Mistake(
            "level-missing",
            "the sound comes out with a root mean square of 1; multiply by the level.",
            lambda wave, level: wave / np.sqrt(np.mean(wave**2)),
        ),
    ),
)


def _frames(wave: np.ndarray, window: int, hop: int) -> np.ndarray:
    starts = np.arange(0, len(wave) - window + 1, hop)
    return wave[starts[:, None] + np.arange(window)]


def _hann(window: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


def _power(wave: np.ndarray, window: int, hop: int, n_fft: int) -> np.ndarray:
    return np.abs(np.fft.rfft(_frames(wave, window, hop) * _hann(window), n_fft)) ** 2


def _sound(rng: np.random.Generator) -> tuple[np.ndarray, int, int, int]:
    return rng.standard_normal(rng.integers(190, 240)), 40, 16, 64


def _zero_ended(wave: np.ndarray, window: int, hop: int, n_fft: int) -> np.ndarray:
    return _power(np.pad(wave, (0, window)), window, hop, n_fft)


check_power_spectrogram = Exercise(
    "power_spectrogram",
    3,
    right=_power,
    cases=(_sound,),
    mistakes=(
        Mistake(
            "transposed",
            "rows are frequencies and columns are frames here. We want a row per frame.",
            lambda *inputs: _power(*inputs).T,
        ),
        Mistake(
            "no-window",
            "each piece is cut out with hard edges. Multiply it by the Hann window first: the "
            "edges would spread energy over all frequencies.",
            lambda wave, window, hop, n_fft: (
                np.abs(np.fft.rfft(_frames(wave, window, hop), n_fft)) ** 2
            ),
        ),
        Mistake(
            "symmetric-window",
            "this Hann window is the symmetric one (numpy.hanning). For spectra the periodic one "
            "is used: 0.5 - 0.5 cos(2πn/N) with n from 0 to N - 1.",
            lambda wave, window, hop, n_fft: (
                np.abs(np.fft.rfft(_frames(wave, window, hop) * np.hanning(window), n_fft)) ** 2
            ),
        ),
        Mistake(
            "magnitude",
            "these are magnitudes. Square them to get power.",
            lambda *inputs: np.sqrt(_power(*inputs)),
        ),
        Mistake(
            "complex",
            "these are complex numbers: level and phase. Take the absolute value, squared.",
            lambda wave, window, hop, n_fft: np.fft.rfft(
                _frames(wave, window, hop) * _hann(window), n_fft
            ),
        ),
        Mistake(
            "two-sided",
            "this holds positive and negative frequencies, which for a real wave say the same. "
            "numpy.fft.rfft keeps one side.",
            lambda wave, window, hop, n_fft: (
                np.abs(np.fft.fft(_frames(wave, window, hop) * _hann(window), n_fft)) ** 2
            ),
        ),
        Mistake(
            "no-padding",
            "the transform is as short as the window. Give rfft the length n_fft: it pads with "
            "zeros.",
            lambda wave, window, hop, n_fft: _power(wave, window, hop, window),
        ),
        Mistake(
            "last-frame-missing",
            "the last whole window is missing: a window may start at len(wave) - window.",
            lambda wave, window, hop, n_fft: _power(wave, window, hop, n_fft)[:-1],
        ),
        Mistake(
            "beyond-the-end",
            "there are windows that reach beyond the end of the sound. Keep whole windows only.",
            lambda wave, window, hop, n_fft: _zero_ended(wave, window, hop, n_fft)[
                : -(-len(wave) // hop)
            ],
        ),
    ),
)


def _spectrogram(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((9, 12)), rng.random((12, 7))


def _silent(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    power, filters = _spectrogram(rng)
    power[4] = 0
    return power, filters


def _log(power: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(power, 1e-10))


check_band_features = Exercise(
    "band_features",
    3,
    right=lambda power, filters: _log(power @ filters).mean(axis=0),
    cases=(_spectrogram, _silent),
    mistakes=(
        Mistake(
            "mean-before-log",
            "the mean over time is taken before the logarithm. Then one loud moment outweighs "
            "everything else; take the logarithm of each frame first.",
            lambda power, filters: _log((power @ filters).mean(axis=0)),
        ),
        Mistake(
            "log-before-bands",
            "the logarithm is taken before the bands are summed. Energies add up within a band, "
            "their logarithms do not.",
            lambda power, filters: (_log(power) @ filters).mean(axis=0),
        ),
        Mistake(
            "wrong-axis",
            "this is one number per frame: the mean was taken over bands. Take it over time.",
            lambda power, filters: _log(power @ filters).mean(axis=1),
        ),
        Mistake(
            "not-averaged",
            "this still has a row per frame. Average over time.",
            lambda power, filters: _log(power @ filters),
        ),
        Mistake(
            "decimal-logarithm",
            "this is the logarithm to base 10. Use the natural one.",
            lambda power, filters: _log(power @ filters).mean(axis=0) / np.log(10),
        ),
        Mistake(
            "no-logarithm",
            "the logarithm is missing. Hearing, and the ear, respond to ratios.",
            lambda power, filters: (power @ filters).mean(axis=0),
        ),
        Mistake(
            "silence",
            "a frame of silence gives -inf, and with it the whole mean. Let no band fall below "
            "1e-10 before the logarithm.",
            lambda power, filters: np.log(power @ filters).mean(axis=0),
        ),
    ),
)


def _table(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(3.0, 2.0, (8, 8)) * rng.uniform(1, 5, 8),)


def _constant_unit(rng: np.random.Generator) -> tuple[np.ndarray]:
    (x,) = _table(rng)
    x[:, 3] = 4.0
    return (x,)


def _zscore(x: np.ndarray, axis: int | None = 0, ddof: int = 0) -> np.ndarray:
    spread = x.std(axis=axis, ddof=ddof, keepdims=True)
    return (x - x.mean(axis=axis, keepdims=True)) / np.where(spread > 0, spread, 1.0)


check_zscore = Exercise(
    "zscore",
    2,
    right=_zscore,
    cases=(_table, _constant_unit),
    mistakes=(
        Mistake(
            "wrong-axis",
            "each sound is standardised over its units. Standardise each unit over the sounds: "
            "axis 0.",
            lambda x: _zscore(x, axis=1),
        ),
        Mistake(
            "whole-table",
            "one mean and one spread were taken for the whole table. Every unit has its own.",
            lambda x: _zscore(x, axis=None),
        ),
        Mistake(
            "not-centred",
            "the spread is 1, but the mean is still there: subtract it first.",
            lambda x: x / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0),
        ),
        Mistake(
            "not-scaled",
            "the mean is 0, but units still differ in spread: divide by the standard deviation.",
            lambda x: x - x.mean(axis=0),
        ),
        Mistake(
            "sample-deviation",
            "you divide by the deviation with n - 1. Use NumPy's default, n, as the book does.",
            lambda x: _zscore(x, ddof=1),
        ),
        Mistake(
            "constant-unit",
            "a unit that is the same for all sounds became NaN (0 divided by 0). It should be 0.",
            lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
        ),
    ),
)


def _distances(x: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))


def _off_diagonal(x: np.ndarray, value: float) -> np.ndarray:
    distance = _distances(x)
    np.fill_diagonal(distance, value)
    return distance


check_nearest = Exercise(
    "nearest",
    2,
    right=lambda x: _off_diagonal(x, np.inf).argmin(axis=1),
    cases=(lambda rng: (rng.standard_normal((11, 11)) * rng.uniform(0.5, 2, 11),),),
    mistakes=(
        Mistake(
            "itself",
            "every sound is nearest to itself, at distance 0. Leave it out, for instance by "
            "setting the diagonal of the distances to infinity.",
            lambda x: _distances(x).argmin(axis=1),
        ),
        Mistake(
            "farthest",
            "these are the sounds farthest away: argmax instead of argmin.",
            lambda x: _distances(x).argmax(axis=1),
        ),
        Mistake(
            "units",
            "this compares columns, the units. Compare rows, the sounds.",
            lambda x: _off_diagonal(x.T, np.inf).argmin(axis=1),
        ),
        Mistake(
            "distances",
            "these are the distances. We want the row numbers of the nearest sounds: argmin.",
            lambda x: _off_diagonal(x, np.inf).min(axis=1),
        ),
    ),
)


def _named(rng: np.random.Generator) -> tuple[np.ndarray, list[str], list[str]]:
    names = [f"sound_{k}" for k in rng.permutation(9)]
    while True:  # an order whose inverse is another one
        order = rng.permutation(9)
        if (order != np.argsort(order)).any():
            return rng.standard_normal((9, 3)), names, [names[k] for k in order]


def _in_order(x: np.ndarray, names: list[str], wanted: list[str]) -> np.ndarray:
    return x[[names.index(name) for name in wanted]]


check_in_order = Exercise(
    "in_order",
    2,
    right=_in_order,
    cases=(_named,),
    mistakes=(
        Mistake(
            "untouched",
            "the rows are as they were. Row k of the result must belong to the sound wanted[k].",
            lambda x, names, wanted: x,
        ),
        Mistake(
            "inverse",
            "this is the inverse order: you looked up where each of names stands in wanted. Look "
            "up where each of wanted stands in names.",
            lambda x, names, wanted: x[[wanted.index(name) for name in names]],
        ),
        Mistake(
            "alphabetical",
            "the rows are in alphabetical order. They should be in the order of wanted.",
            lambda x, names, wanted: x[np.argsort(names)],
        ),
        Mistake(
            "row-numbers",
            "these are row numbers. Take those rows of x.",
            lambda x, names, wanted: [names.index(name) for name in wanted],
        ),
    ),
)

check_pooling = Choice(
    "pooling",
    1,
    right="c",
    wrong={
        "a": "the level survives: every band would be higher on average.",
        "b": "the balance of low and high bands is exactly what a mean over time keeps.",
        "d": "what is the mean of the frames of a sound, and of the same frames in reverse order?",
    },
)
