"""Generated notes: simple instruments whose pitch and timbre are known."""

import numpy as np

from ..errors import UnknownNameError

__all__ = ["INSTRUMENTS", "midi_to_hz", "synthesise_note"]

INSTRUMENTS = ("bell", "brass", "flute", "organ", "plucked", "reed", "strings", "voice")
# Partials of a bell relative to its strike note: Risset (1969).
_BELL = np.array([0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76])


def midi_to_hz(pitch: float) -> float:
    """Frequency in Hz of a MIDI note number (69 is 440 Hz)."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def synthesise_note(
    instrument: str,
    pitch: int,
    rng: np.random.Generator,
    seconds: float = 0.75,
    sample_rate: int = 16_000,
) -> np.ndarray:
    """Synthesise one note of an instrument whose timbre is drawn anew each time.

    Parameters
    ----------
    instrument : str
        One of :data:`INSTRUMENTS`.
    pitch : int
        MIDI note number.
    rng : numpy.random.Generator
        Draws spectral slope, envelope, vibrato, level, tuning (within 10 cents) and noise.
    seconds : float
        Its length.
    sample_rate : int
        In Hz.

    Returns
    -------
    array of shape (n_samples,), float32
        Peak between 0.1 and 0.9.
    """
    if instrument not in INSTRUMENTS:
        raise UnknownNameError("instrument", instrument, INSTRUMENTS)
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    fundamental = midi_to_hz(pitch + rng.uniform(-0.1, 0.1))
    n_harmonics = int(np.clip(0.45 * sample_rate / fundamental, 1, 32))
    order = np.arange(1, n_harmonics + 1)[:, None]
    slope = rng.uniform(0.8, 1.4)
    vibrato_depth, attack = 0.0, rng.uniform(0.01, 0.03)
    envelope = np.ones((1, t.size))
    if instrument == "organ":
        amplitude = np.isin(order, (1, 2, 4, 8)) * rng.uniform(0.3, 1.0, order.shape)
        amplitude[0] = 1.0
    elif instrument == "reed":
        amplitude = (order % 2) / order**slope
    elif instrument == "brass":
        amplitude = 1.0 / order ** (0.6 * slope)
        attack = rng.uniform(0.04, 0.1)
        # Upper harmonics enter later and leave earlier: the brightness follows the loudness.
        loudness = np.minimum(1, t / (2 * attack)) * np.exp(-0.6 * t)
        envelope = loudness ** (0.25 * order)
    elif instrument == "strings":
        amplitude = 1.0 / order**slope
        vibrato_depth, attack = rng.uniform(0.003, 0.01), rng.uniform(0.06, 0.15)
    elif instrument == "plucked":
        place = rng.uniform(0.12, 0.4)
        amplitude = np.abs(np.sin(np.pi * order * place)) / order
        envelope = np.exp(-t * (1.5 + rng.uniform(0.5, 1.5) * order))
        attack = 0.002
    elif instrument == "flute":
        amplitude = 1.0 / order ** (2.5 + slope)
        vibrato_depth, attack = rng.uniform(0.0, 0.005), rng.uniform(0.05, 0.1)
    elif instrument == "voice":
        frequency = order * fundamental
        formants = rng.choice([[700, 1150], [350, 2000], [400, 800], [550, 1750]])
        amplitude = (
            sum(np.exp(-0.5 * ((frequency - formant) / 150) ** 2) for formant in formants)
            + 0.03 / order
        )
        vibrato_depth, attack = rng.uniform(0.004, 0.012), rng.uniform(0.04, 0.1)
    else:
        order = _BELL[_BELL * fundamental < 0.45 * sample_rate][:, None]
        amplitude = rng.uniform(0.3, 1.0, order.shape)
        envelope = np.exp(-t * rng.uniform(1.5, 4.0) * order)
        attack = 0.002
    wobble = vibrato_depth * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * t) / (2 * np.pi * 5.5)
    phase = rng.uniform(0, 2 * np.pi, order.shape)
    partials = np.sin((2 * np.pi * fundamental * order * (t + wobble) + phase).astype(np.float32))
    wave = (amplitude * envelope * partials).sum(axis=0)
    wave = wave / np.abs(wave).max()
    breath = 0.05 if instrument == "flute" else 0.003
    wave = wave + breath * rng.standard_normal(t.size)
    fade = np.minimum(1, t / attack) * np.minimum(1, (t[-1] - t) / 0.03)
    wave = wave * fade
    return (rng.uniform(0.1, 0.9) * wave / np.abs(wave).max()).astype(np.float32)
