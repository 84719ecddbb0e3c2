"""Sounds: labelled waveforms, read when they are needed."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..errors import AlignmentError, AudioError, AudioNotice, UnknownNameError
from ..paths import file_sha256
from . import fetch

__all__ = ["Sounds", "natural_sounds", "read_audio"]

SILENCE = 1e-7  # peak below which a sound counts as silent (16-bit audio has steps of 3e-5)


class Sounds:
    """An ordered set of named sounds.

    Parameters
    ----------
    names : sequence of str
        One unique name per sound.
    sources : sequence of path or array of shape (n_samples,)
        Audio files, or waveforms in [-1, 1].
    categories : sequence of str, optional
        One category per sound.
    sample_rate : int, optional
        Sampling rate in Hz of the arrays in ``sources``; files bring their own.
    on_silence : {"raise", "warn"}
        What a silent sound gets when it is read.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import data
    >>> tones = [0.1 * np.sin(np.arange(8000) * f) for f in (0.2, 0.4)]
    >>> sounds = data.Sounds(["low", "high"], tones, ["tone", "tone"], sample_rate=8000)
    >>> sounds
    Sounds(2 sounds in 1 categories)
    >>> sounds["high"].waveform("high", sample_rate=4000).shape
    (4000,)
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[Path | np.ndarray],
        categories: Sequence[str] | None = None,
        sample_rate: int | None = None,
        on_silence: str = "raise",
    ):
        self.names = tuple(map(str, names))
        self.categories = tuple(categories) if categories is not None else ("",) * len(self.names)
        self.sample_rate = sample_rate
        self.on_silence = on_silence
        self._sources = dict(zip(self.names, sources, strict=True))
        self._hashes: dict[str, str] = {}
        if len(self._sources) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise AlignmentError(f"sound names must be unique; given twice: {', '.join(twice)}")
        if len(self.categories) != len(self.names):
            raise AlignmentError(f"{len(self.names)} names but {len(self.categories)} categories")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __repr__(self) -> str:
        return f"Sounds({len(self)} sounds in {len(set(self.categories))} categories)"

    def __getitem__(self, selection) -> "Sounds":
        """Subset by slice, integers, a boolean mask, or names (in the order given)."""
        if isinstance(selection, str):
            selection = [selection]
        if not isinstance(selection, slice):
            selection = np.asarray(list(selection))
        if isinstance(selection, slice) or selection.dtype.kind in "biu":
            selection = np.array(self.names, dtype=object)[selection]
        names = [str(name) for name in selection]
        for name in names:
            if name not in self._sources:
                raise UnknownNameError("sound", name, self.names)
        category = dict(zip(self.names, self.categories, strict=True))
        subset = Sounds(
            names,
            [self._sources[name] for name in names],
            [category[name] for name in names],
            self.sample_rate,
            self.on_silence,
        )
        subset._hashes = {name: self._hashes[name] for name in names if name in self._hashes}
        return subset

    def waveform(self, name: str, sample_rate: int | None = None) -> np.ndarray:
        """Waveform of one sound.

        Parameters
        ----------
        name : str
            Its name.
        sample_rate : int, optional
            Rate in Hz to resample to; by default the sound's own.

        Returns
        -------
        array of shape (n_samples,), float32, mono, in [-1, 1]

        Raises
        ------
        AudioError
            When the audio is unreadable, empty, not finite, truncated or (by default) silent.
        """
        if name not in self._sources:
            raise UnknownNameError("sound", name, self.names)
        source = self._sources[name]
        if isinstance(source, np.ndarray):
            return _conditioned(source, self.sample_rate, sample_rate, name, self.on_silence)
        return read_audio(source, sample_rate, name=name, on_silence=self.on_silence)

    def spread(self, n: int) -> list[str]:
        """Names of ``n`` sounds, as evenly over the categories as their numbers allow.

        Examples
        --------
        >>> from analysis_lib import data
        >>> sounds = data.simulated_sounds(2)
        >>> len(set(sounds.categories)), sounds.spread(2)
        (6, ['alarm-00', 'machine-00'])
        """
        turn: dict[str, int] = {}
        order = []
        for place, category in enumerate(self.categories):
            turn[category] = turn.get(category, -1) + 1
            order.append((turn[category], place))
        chosen = sorted(place for _, place in sorted(order)[:n])
        return [self.names[place] for place in chosen]

    def content_hash(self, name: str) -> str:
        """SHA-256 of one sound's content: its file's bytes, or its samples and rate."""
        if name not in self._hashes:
            source = self._sources[name]
            if isinstance(source, np.ndarray):
                samples = np.ascontiguousarray(source)
                head = f"{samples.dtype.str}{samples.shape}@{self.sample_rate}".encode()
                self._hashes[name] = hashlib.sha256(head + samples.tobytes()).hexdigest()
            else:
                self._hashes[name] = file_sha256(_existing(source, name))
        return self._hashes[name]


def read_audio(
    path: Path, sample_rate: int | None = None, name: str | None = None, on_silence: str = "raise"
) -> np.ndarray:
    """Read an audio file as mono float32 in [-1, 1].

    Several channels are averaged, and a rate below the wanted one is raised, each with an
    :class:`AudioNotice`.

    Parameters
    ----------
    path : path
        A file that libsndfile reads (WAV, FLAC, Ogg, MP3, …).
    sample_rate : int, optional
        Rate in Hz to resample to (soxr, high quality).
    name : str, optional
        What to call the sound in messages; by default the file's stem.
    on_silence : {"raise", "warn"}
        What a silent file gets.

    Returns
    -------
    array of shape (n_samples,), float32

    Raises
    ------
    AudioError
        When the file is missing, unreadable, truncated, empty, silent or not finite.

    Examples
    --------
    >>> import tempfile, numpy as np, soundfile
    >>> from analysis_lib import data
    >>> path = f"{tempfile.mkdtemp()}/hum.wav"
    >>> soundfile.write(path, 0.1 * np.sin(np.arange(8000) / 10), 8000)
    >>> data.read_audio(path, sample_rate=4000).shape
    (4000,)
    """
    name = name or Path(path).stem
    path = _existing(path, name)
    try:
        with soundfile.SoundFile(path) as audio:
            rate = audio.samplerate
            shortened = "data" in audio.extra_info and "(should be" in audio.extra_info
            waveform = audio.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"sound {name!r}: {path} is not readable audio ({error}). Replace the file."
        ) from error
    if shortened:
        raise AudioError(
            f"sound {name!r}: {path} is truncated (its header promises more samples than it "
            "holds). Replace the file."
        )
    return _conditioned(waveform, rate, sample_rate, name, on_silence)


def _existing(path: Path, name: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"sound {name!r}: no file {path}. Put it there, or leave out the sound.")
    return path


def _conditioned(
    waveform: np.ndarray, rate: int, wanted_rate: int | None, name: str, on_silence: str
) -> np.ndarray:
    """Check one waveform, mix it down and resample it."""
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim == 2 and waveform.shape[1] > 1:
        warnings.warn(
            AudioNotice(f"sound {name!r}: {waveform.shape[1]} channels averaged to mono"),
            stacklevel=3,
        )
        # The same numbers as mean(axis=1), which takes ten times as long over so few columns.
        waveform = reduce(np.add, waveform.T) / np.float32(waveform.shape[1])
    waveform = waveform.reshape(-1)
    if waveform.size == 0:
        raise AudioError(f"sound {name!r} is empty (0 samples). Replace or leave out the sound.")
    if not np.isfinite(waveform).all():
        raise AudioError(f"sound {name!r} holds NaN or infinite samples. Replace the sound.")
    peak = float(np.abs(waveform).max())
    if peak < SILENCE:
        message = f"sound {name!r} is silent (peak {peak:.1e}): no model can represent it."
        if on_silence == "raise":
            raise AudioError(message + " Replace or leave out the sound.")
        warnings.warn(AudioNotice(message), stacklevel=3)
    if peak > 1:
        warnings.warn(
            AudioNotice(f"sound {name!r}: peak {peak:.2f} is above full scale, clipped to 1"),
            stacklevel=3,
        )
        waveform = waveform.clip(-1, 1)
    if wanted_rate is not None and wanted_rate != rate:
        if rate < wanted_rate:
            warnings.warn(
                AudioNotice(
                    f"sound {name!r}: recorded at {rate} Hz, resampled to {wanted_rate} Hz; "
                    f"nothing is there above {rate // 2} Hz"
                ),
                stacklevel=3,
            )
        waveform = soxr.resample(waveform, rate, wanted_rate, quality="HQ")
    return waveform


def natural_sounds() -> Sounds:
    """Load the 165 natural sounds of Norman-Haignere et al. (2015), two seconds each.

    Returns
    -------
    Sounds
        In ascending order of stimulus number, with their 11 categories. The recordings carry
        no licence: they are fetched, never redistributed.

    Examples
    --------
    >>> from analysis_lib import data
    >>> sounds = data.natural_sounds()
    >>> sounds
    Sounds(165 sounds in 11 categories)
    >>> sounds.names[0]
    'stim5_alarm_clock'
    """
    folder = fetch.fetch("natsound165", "wav/*")
    lines = fetch.path("natsound165", "category_labels.csv").read_text().split()
    category = dict(line.split(",") for line in lines)
    names = sorted(category, key=stimulus_number)
    files = [folder / "wav" / f"{name}.wav" for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
    if missing:
        raise AlignmentError(f"natsound165: no recording for {', '.join(missing)}")
    return Sounds(names, files, [category[name] for name in names])


def stimulus_number(name: str) -> int:
    """Read the number of a natural sound off its name: ``stim28_big_band_music`` is 28."""
    return int(name.split("_")[0].removeprefix("stim"))
