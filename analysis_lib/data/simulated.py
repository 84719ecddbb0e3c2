"""Sounds and a cortex whose truth is known, for demonstrations and tests.

The sounds are synthesised in six kinds. The cortex listens to three planted layers, each drawn
from the previous: the spectrum, the modulation of the spectrum in time, and conjunctions of both.
Every area is driven by one of them, so what an analysis should find is known.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import scipy
import xarray as xr

from ..errors import ParameterError, UnknownNameError
from .natural_sounds import Sounds

__all__ = ["AREAS", "plant", "planted_features", "simulated_sounds"]

SAMPLE_RATE = 16_000  # Hz
DURATION = 2.0  # s
AREAS: Mapping[str, str] = MappingProxyType(
    {
        "Primary": "spectrum",
        "Lateral": "modulation",
        "Anterior": "conjunction",
        "Posterior": "conjunction",
    }
)


def simulated_sounds(n_per_category: int = 10, seed: int = 0) -> Sounds:
    """Synthesise two-second sounds of six kinds.

    Parameters
    ----------
    n_per_category : int
        Sounds of each kind.
    seed : int
        Same seed, same samples.

    Returns
    -------
    Sounds
        At 16 kHz, RMS 0.05, named ``<kind>_<number>``.

    Examples
    --------
    >>> from analysis_lib import data
    >>> sounds = data.simulated_sounds(2)
    >>> sounds
    Sounds(12 sounds in 6 categories)
    >>> sounds.names[:2], sounds.sample_rate
    (('speech_01', 'speech_02'), 16000)
    """
    rng = np.random.default_rng(seed)
    names, waves, categories = [], [], []
    for category, synthesise in _KINDS.items():
        for number in range(1, n_per_category + 1):
            wave = synthesise(rng)
            wave = 0.05 * wave / np.sqrt(np.mean(wave**2))
            names.append(f"{category}_{number:02d}")
            waves.append(np.clip(wave, -1, 1).astype(np.float32))
            categories.append(category)
    return Sounds(names, waves, categories, SAMPLE_RATE)


def _time() -> np.ndarray:
    return np.arange(int(SAMPLE_RATE * DURATION)) / SAMPLE_RATE


def _steps(rng, rate: float, low: float, high: float) -> np.ndarray:
    """Random values that change ``rate`` times a second, smoothed over 10 ms, (n_samples,)."""
    n_steps = int(np.ceil(rate * DURATION))
    values = rng.uniform(low, high, n_steps).repeat(int(SAMPLE_RATE / rate) + 1)
    values = values[: _time().size]
    return (
        scipy.signal.lfilter(*scipy.signal.butter(1, 100, fs=SAMPLE_RATE), values - values[0])
        + (values[0])
    )


def _harmonic(f0: np.ndarray, formants: Sequence[np.ndarray], n_harmonics: int = 24) -> np.ndarray:
    """Harmonic complex with a moving pitch and moving resonances (all in Hz)."""
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    wave = np.zeros_like(f0)
    for k in range(1, n_harmonics + 1):
        gain = sum(np.exp(-0.5 * ((k * f0 - centre) / 250) ** 2) for centre in formants) + 0.05 / k
        wave += np.where(k * f0 < SAMPLE_RATE / 2, gain, 0) * np.sin(k * phase)
    return wave


def _noise(rng, low: float, high: float) -> np.ndarray:
    sos = scipy.signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
    return scipy.signal.sosfilt(sos, rng.standard_normal(_time().size))


def _speech(rng):
    rate = rng.uniform(3, 6)
    f0 = rng.uniform(90, 240) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * _time()))
    voiced = _harmonic(f0, [_steps(rng, rate, 300, 800), _steps(rng, rate, 900, 2500)])
    syllables = np.maximum(0, np.sin(2 * np.pi * rate / 2 * _time() + rng.uniform(0, 6))) ** 0.5
    hiss = _noise(rng, 3000, 7000) * np.maximum(0, -np.sin(2 * np.pi * rate / 2 * _time())) ** 4
    return voiced / voiced.std() * syllables + 0.4 * hiss / hiss.std()


def _song(rng):
    notes = 220 * 2 ** (np.round(_steps(rng, rng.uniform(1.5, 3), 0, 12)) / 12)
    vibrato = 1 + 0.02 * np.sin(2 * np.pi * rng.uniform(5, 7) * _time())
    return _harmonic(notes * vibrato, [_steps(rng, 1.5, 400, 900), _steps(rng, 1.5, 1200, 3000)])


def _music(rng):
    wave = np.zeros_like(_time())
    for onset in np.arange(0, DURATION, 1 / rng.uniform(2, 5)):
        decay = np.exp(-rng.uniform(3, 8) * np.maximum(_time() - onset, 0)) * (_time() >= onset)
        for semitone in rng.choice([0, 3, 4, 7, 9, 12], 3):
            f0 = 196 * 2 ** (semitone / 12) * rng.choice([1, 2])
            wave += decay * sum(np.sin(2 * np.pi * k * f0 * _time()) / k for k in range(1, 6))
    return wave


def _nature(rng):
    low = rng.uniform(100, 2000)
    slow = np.abs(_steps(rng, rng.uniform(0.5, 2), 0.1, 1))
    return _noise(rng, low, min(low * rng.uniform(2, 5), 7500)) * slow


def _machine(rng):
    rate = rng.uniform(12, 40)
    pulse = 1 + 0.9 * scipy.signal.square(2 * np.pi * rate * _time())
    return _noise(rng, 80, rng.uniform(1500, 7000)) * pulse


def _alarm(rng):
    tones = rng.uniform(800, 3500) * 2 ** np.round(_steps(rng, rng.uniform(2, 8), 0, 1))
    return np.sin(2 * np.pi * np.cumsum(tones) / SAMPLE_RATE) * (0.2 + _steps(rng, 6, 0, 1))


_KINDS = MappingProxyType(
    {
        "speech": _speech,
        "song": _song,
        "music": _music,
        "nature": _nature,
        "machine": _machine,
        "alarm": _alarm,
    }
)


def planted_features(sounds: Sounds) -> dict[str, np.ndarray]:
    """Compute the true features that drive the simulated cortex.

    Parameters
    ----------
    sounds : Sounds
        Any sounds; analysed at 16 kHz.

    Returns
    -------
    dict of str to array of shape (n_sounds, n_features)
        ``spectrum``: mean log energy in 24 bands; ``modulation``: energy of 8 band envelopes at
        6 rates (2 to 64 Hz); ``conjunction``: 64 products of random combinations of the two,
        compressed.

    Examples
    --------
    >>> from analysis_lib import data
    >>> layers = data.planted_features(data.simulated_sounds(1))
    >>> {layer: values.shape for layer, values in layers.items()}
    {'spectrum': (6, 24), 'modulation': (6, 48), 'conjunction': (6, 64)}
    """
    spectrum, modulation = [], []
    for name in sounds:
        _, _, spectrogram = scipy.signal.stft(
            sounds.waveform(name, SAMPLE_RATE), SAMPLE_RATE, nperseg=400, noverlap=320, nfft=512
        )
        bands = _bank(24) @ np.abs(spectrogram) ** 2
        spectrum.append(np.log(bands + 1e-8).mean(axis=1))
        envelopes = np.log(bands + 1e-8).reshape(8, 3, -1).mean(axis=1)
        envelopes -= envelopes.mean(axis=1, keepdims=True)
        power = np.abs(np.fft.rfft(envelopes, axis=1)) ** 2
        rates = np.fft.rfftfreq(envelopes.shape[1], 80 / SAMPLE_RATE)
        octave = np.round(np.log2(np.maximum(rates, 1e-3))).astype(int)
        rows = [power[:, octave == k].mean(axis=1) for k in range(1, 7)]
        modulation.append(np.log(np.stack(rows) + 1e-8).ravel())
    spectrum, modulation = _standardised(spectrum), _standardised(modulation)
    rng = np.random.default_rng(165)
    mixed = (spectrum @ rng.standard_normal((spectrum.shape[1], 64))) * (
        modulation @ rng.standard_normal((modulation.shape[1], 64))
    )
    conjunction = _standardised(np.sign(mixed) * np.sqrt(np.abs(mixed)))
    return {"spectrum": spectrum, "modulation": modulation, "conjunction": conjunction}


def _bank(n_bands: int) -> np.ndarray:
    """Triangular filters on a mel scale, (n_bands, 257)."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([60, 7600]) / 700)), n_bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.linspace(0, SAMPLE_RATE / 2, 257)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def _standardised(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-12)


def plant(
    features: Mapping[str, np.ndarray],
    names: Sequence[str],
    areas: Mapping[str, str] = AREAS,
    n_subjects: int = 4,
    n_voxels: int = 30,
    n_repetitions: int = 3,
    noise: float = 1.0,
    n_null: int = 10,
    seed: int = 0,
) -> xr.DataArray:
    """Simulate a cortex in which the layer that drives each area is known.

    Each voxel is a random combination of its area's layer, scaled to unit variance over sounds;
    each repetition adds independent noise.

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        The layers that voxels may be driven by.
    names : sequence of str
        Of the sounds.
    areas : mapping of str to str
        Which layer drives which area.
    n_subjects, n_voxels, n_repetitions : int
        Subjects, voxels per area and subject, and repetitions of each sound.
    noise : float
        Standard deviation of one repetition's noise, in units of the signal's.
    n_null : int
        Voxels per subject that nothing drives.
    seed : int
        Same seed, same responses.

    Returns
    -------
    DataArray (sound, target, repetition)
        With ``subject``, ``roi``, ``hemisphere``, ``x``, ``y``, ``kind``, ``planted_layer``
        (``"none"`` where nothing drives) and ``ceiling``, the squared correlation that a perfect
        model would reach with the mean of the repetitions.

    Examples
    --------
    >>> from analysis_lib import data
    >>> sounds = data.simulated_sounds(2)
    >>> layers = data.planted_features(sounds)
    >>> responses = data.plant(layers, sounds.names, n_subjects=2, n_voxels=5)
    >>> dict(responses.sizes)
    {'sound': 12, 'target': 60, 'repetition': 3}
    >>> sorted(set(responses["planted_layer"].values))
    ['conjunction', 'modulation', 'none', 'spectrum']
    """
    for layer in areas.values():
        if layer not in features:
            raise UnknownNameError("planted layer", layer, features)
    if min(n_subjects, n_voxels, n_repetitions) < 1 or noise < 0:
        raise ParameterError("subjects, voxels and repetitions must be positive, noise at least 0")
    rng = np.random.default_rng(seed)
    signals, coordinates = [], []
    for subject in range(n_subjects):
        for area, layer in {**areas, "": "none"}.items():
            count = n_voxels if area else n_null
            if area:
                units = _standardised(np.asarray(features[layer]))
                signals.append(_standardised(units @ rng.standard_normal((units.shape[1], count))))
            else:
                signals.append(np.zeros((len(names), count)))
            # Areas are square blocks of the 2 mm grid, two beside each other, one row below
            # another; voxels that nothing drives lie below them all.
            block = list(areas).index(area) if area else 2 * (-(-len(areas) // 2))
            width = int(np.ceil(np.sqrt(n_voxels / 2)))
            for voxel in range(count):
                row, column = divmod(voxel // 2, width)
                coordinates.append(
                    {
                        "subject": f"sub-{subject + 1:02d}",
                        "roi": area,
                        "hemisphere": ("lh", "rh")[voxel % 2],
                        "x": 2.0 * (width * (block % 2) + column),
                        "y": -2.0 * (width * (block // 2) + row),
                        "planted_layer": layer,
                        "ceiling": 1 / (1 + noise**2 / n_repetitions) if area else 0.0,
                    }
                )
    signal = np.concatenate(signals, axis=1)
    repeated = signal[..., None] + noise * rng.standard_normal((*signal.shape, n_repetitions))
    columns = {key: [row[key] for row in coordinates] for key in coordinates[0]}
    return xr.DataArray(
        repeated,
        dims=("sound", "target", "repetition"),
        coords={
            "sound": np.array(names, dtype=object),
            "target": np.arange(signal.shape[1]),
            "kind": ("target", np.full(signal.shape[1], "voxel", dtype=object)),
            **{
                key: ("target", np.array(values, dtype=object if key in _TEXT else float))
                for key, values in columns.items()
            },
        },
        name="response",
        attrs={"dataset": "simulated", "noise": noise, "seed": seed},
    )


_TEXT = ("subject", "roi", "hemisphere", "planted_layer")
