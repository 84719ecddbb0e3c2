"""Streaming audio: random crops out of any number of recordings, read as they are needed.

What a crop holds depends on the seed, the step and the number of the sound in the batch alone, so
that a resumed run, a divided batch and several processes see the same audio.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm.auto import tqdm

from .. import data
from ..data.fetch import registry
from ..data.light_tasks import ZOO_ESC10_FOLDS, ZOO_SPEAKERS, esc10_clips, fsdd_clips
from ..errors import AudioError, MissingDataError, ParameterError, UnknownNameError
from ..models.residual_transformer import SAMPLE_RATE
from ..paths import content_key, file_sha256

__all__ = ["SHORT", "AudioFolder", "Clip", "Corpus", "corpus"]

log = logging.getLogger("brainbook")

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64")
SHORT = ("join", "loop", "pad", "refuse")
MEMORY_MB = 512  # of decoded audio that a small corpus may keep
_MARGIN = 0.02  # s read beyond a crop at both ends, for the filter of the resampler


@dataclass(frozen=True)
class Clip:
    """One recording: its name, where it is, samples, rate in Hz, and a label if it has one.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import pretraining
    >>> pretraining.Clip("silence", np.zeros(36_000), 36_000, 24_000, label="nothing").seconds
    1.5
    """

    name: str
    source: Path | np.ndarray
    n_samples: int
    sample_rate: int
    label: str = ""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.n_samples / self.sample_rate


class Corpus:
    """Recordings to draw crops from, every second of them equally likely.

    Parameters
    ----------
    clips : sequence of Clip
    short : {"join", "loop", "pad", "refuse"}
        What a recording shorter than the crop gets: others drawn after it until the crop is full,
        itself again and again, silence after it, or an error that names it.
    memory_mb : float
        A corpus that takes no more than this when decoded is kept in memory once read; of a larger
        one, only the part of a file that a crop needs is read, each time.

    Raises
    ------
    AudioError
        When there are no recordings, or an empty one.
    ParameterError
        When ``short`` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import pretraining
    >>> rng = np.random.default_rng(0)
    >>> waves = 0.1 * rng.standard_normal((4, 24_000))
    >>> corpus = pretraining.Corpus(
    ...     [pretraining.Clip(f"noise {i}", wave, 24_000, 24_000) for i, wave in enumerate(waves)]
    ... )
    >>> corpus
    Corpus(4 recordings, 4 s)
    >>> wave, label = corpus.crop(48_000, rng)  # joined from several recordings
    >>> wave.shape, corpus.split(0.25)
    ((48000,), (Corpus(3 recordings, 3 s), Corpus(1 recordings, 1 s)))
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, clips: Sequence[Clip], short: str = "join", memory_mb: float = MEMORY_MB):
        if short not in SHORT:
            raise UnknownNameError("rule for short recordings", short, SHORT)
        if not clips:
            raise AudioError("there is no audio to train on: the list of recordings is empty")
        for clip in clips:
            if not clip.n_samples:
                raise AudioError(f"{clip.name} is empty (0 samples). Leave it out.")
        self.clips = tuple(clips)
        self.short, self.memory_mb = short, memory_mb
        self._until = np.cumsum([clip.seconds for clip in self.clips])
        n_bytes = 4 * self.seconds * self.sample_rate
        # Decided for the corpus as a whole, once: a crop is resampled either with its whole
        # recording or with its surroundings, and the two differ in the last digits.
        self._kept: dict[int, np.ndarray] | None = {} if n_bytes <= 1e6 * memory_mb else None

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} recordings, {self.seconds:,.0f} s)"

    @property
    def seconds(self) -> float:
        """Duration of all recordings."""
        return float(self._until[-1])

    @property
    def is_kept(self) -> bool:
        """Whether recordings stay in memory once read."""
        return self._kept is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that occur, in alphabetical order."""
        return tuple(sorted({clip.label for clip in self.clips}))

    @property
    def key(self) -> str:
        """Name of the content: names, lengths, rates and labels of all recordings, and samples.

        Of files the content is not read; their length stands for it.
        """
        rows = [
            (
                clip.name,
                clip.n_samples,
                clip.sample_rate,
                clip.label,
                clip.source if isinstance(clip.source, np.ndarray) else None,
            )
            for clip in self.clips
        ]
        return content_key(rows, self.short, not self.is_kept)

    def with_short(self, short: str) -> "Corpus":
        """Make the same recordings follow another rule for short ones."""
        return Corpus(self.clips, short, self.memory_mb)

    def split(self, share: float, seed: int = 0) -> tuple["Corpus", "Corpus"]:
        """Divide at random into two: the rest, and a share of the recordings (at least one)."""
        n_held = max(1, round(share * len(self)))
        if n_held >= len(self):
            raise ParameterError(
                f"{len(self)} recordings cannot be divided: give at least two, or more for "
                f"a share of {share:g}"
            )
        held = set(np.random.default_rng([seed, len(self)]).permutation(len(self))[:n_held])
        parts = [[], []]
        for i, clip in enumerate(self.clips):
            parts[i in held].append(clip)
        rest, chosen = (Corpus(part, self.short, self.memory_mb) for part in parts)
        return rest, chosen

    def crop(self, n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Draw a stretch of audio.

        A recording is drawn with a probability proportional to its duration, and a beginning
        anywhere that leaves room.

        Parameters
        ----------
        n_samples : int
            At 24 kHz.
        rng : Generator
            Everything random comes from here.

        Returns
        -------
        wave : array of shape (n_samples,), float32
        label : str
            Of the (first) recording.

        Raises
        ------
        AudioError
            When a recording cannot be read, is not finite, or is too short and that is refused.
        """
        first = self._draw(rng)
        clip = self.clips[first]
        wave = self._stretch(first, n_samples, rng)
        missing = n_samples - len(wave)
        if missing and self.short == "refuse":
            raise AudioError(
                f"{clip.name} has {clip.seconds:.3f} s, the crop {n_samples / SAMPLE_RATE:g} s. "
                "Use shorter crops, leave it out, or let short='join', 'loop' or 'pad'."
            )
        parts = [wave]
        while missing:
            if self.short == "pad":
                parts.append(np.zeros(missing, dtype=np.float32))
            elif self.short == "loop":
                parts.append(wave[:missing])
            else:
                parts.append(self._stretch(self._draw(rng), missing, rng))
            missing -= len(parts[-1])
        return np.concatenate(parts), clip.label

    def _draw(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self._until, rng.uniform(0, self.seconds), side="right"))

    def _stretch(self, i: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """At most so many samples of a recording, at 24 kHz, from a random beginning."""
        clip = self.clips[i]
        total = max(1, int(clip.n_samples * SAMPLE_RATE / clip.sample_rate))
        start = int(rng.integers(max(0, total - n_samples) + 1))
        stop = min(total, start + n_samples)
        if not self.is_kept:
            wave = _read(clip, start, stop)
        else:
            if i not in self._kept:
                self._kept[i] = _read(clip, 0, total)
            wave = self._kept[i][start:stop]
        if not np.isfinite(wave).all():
            raise AudioError(f"{clip.name} holds NaN or infinite samples. Replace or leave it out.")
        return wave


class AudioFolder(Corpus):
    """All recordings in folders and their subfolders, at any rate and of any length.

    The name of the folder that a file is in is its label. None of the 165 sounds that brains heard
    may be among them.

    Parameters
    ----------
    *folders : path
        Folders, or files.
    short, memory_mb
        See :class:`Corpus`.

    Raises
    ------
    MissingDataError
        When a folder does not exist.
    AudioError
        When a folder holds no audio, or a file cannot be read; names it.
    ParameterError
        When one of the 165 sounds is among the files.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from analysis_lib import pretraining
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("birds", "rain"):
    ...     (folder / name).mkdir()
    ...     soundfile.write(folder / name / "one.wav", np.zeros(16_000), 16_000)
    ...
    >>> audio = pretraining.AudioFolder(folder, short="loop")
    >>> audio, audio.labels
    (AudioFolder(2 recordings, 2 s), ('birds', 'rain'))
    """

    def __init__(self, *folders: str | Path, short: str = "join", memory_mb: float = MEMORY_MB):
        files = [(file, root) for root in map(Path, folders) for file in _audio_files(root)]
        if not folders:
            raise AudioError("there is no audio to train on: name at least one folder")
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            described = pool.map(lambda pair: describe(*pair), files)
            clips = list(tqdm(described, total=len(files), desc="audio", disable=len(files) < 5000))
        super().__init__(clips, short, memory_mb)


def _audio_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise MissingDataError(f"no folder {root} with audio to train on. Name one that exists.")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise AudioError(
            f"{root} holds no audio ({', '.join(SUFFIXES)}), nor do its subfolders. Name a folder "
            "with recordings."
        )
    return files


def describe(file: Path, root: Path | None = None, label: str | None = None) -> Clip:
    """Read the head of an audio file.

    Raises
    ------
    AudioError
        When it is not readable; names it.
    ParameterError
        When it is one of the 165 sounds that alignment is measured with.
    """
    try:
        found = soundfile.info(file)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"{file} is not readable audio ({error}). Replace it, or take it out of the folder."
        ) from error
    if _is_test_sound(file):
        raise ParameterError(
            f"{file} is one of the 165 natural sounds that brains are compared on. A network that "
            "heard them in training could not be tested with them: leave them out."
        )
    name = str(file.relative_to(root)) if root is not None and root != file else file.name
    return Clip(
        name, file, found.frames, found.samplerate, file.parent.name if label is None else label
    )


@lru_cache(maxsize=1)
def _test_sounds() -> Mapping[int, frozenset[str]]:
    """Checksums of the 165 sounds, by size of the file."""
    by_size: dict[int, set[str]] = {}
    for entry in registry("natsound165").matching("wav/*"):
        by_size.setdefault(entry.n_bytes, set()).add(entry.sha256)
    return {size: frozenset(sums) for size, sums in by_size.items()}


def _is_test_sound(file: Path) -> bool:
    sums = _test_sounds().get(file.stat().st_size)
    return bool(sums) and file_sha256(file) in sums


def _read(clip: Clip, start: int, stop: int) -> np.ndarray:
    """Read samples ``start`` to ``stop`` (at 24 kHz) of a recording, mono, in [-1, 1]."""
    ratio = clip.sample_rate / SAMPLE_RATE
    margin = 0 if ratio == 1 else round(_MARGIN * SAMPLE_RATE)
    first = max(0, int((start - margin) * ratio))
    last = min(clip.n_samples, int(np.ceil((stop + margin) * ratio)))
    if isinstance(clip.source, np.ndarray):
        wave = clip.source[first:last]
    else:
        wave = _read_file(clip, first, last)
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    wave = np.asarray(wave, dtype=np.float32)
    if ratio != 1:
        wave = soxr.resample(wave, clip.sample_rate, SAMPLE_RATE, quality="HQ")
    skip = round(start - first / ratio)
    wave = wave[skip : skip + stop - start]
    # The resampler rounds the number of samples its own way: off by one at a recording's end.
    return np.pad(wave, (0, stop - start - len(wave)), mode="edge").clip(-1, 1)


def _read_file(clip: Clip, first: int, last: int) -> np.ndarray:
    try:
        with soundfile.SoundFile(clip.source) as audio:
            audio.seek(first)
            wave = audio.read(last - first, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"{clip.source} is not readable audio ({error}). Replace it, or take it out."
        ) from error
    if len(wave) < last - first:
        raise AudioError(
            f"{clip.source} is truncated: it ends after {first + len(wave)} of {clip.n_samples} "
            "samples. Replace it, or take it out."
        )
    return wave


def _demo() -> Corpus:
    """Generate sounds from another seed than those that the simulated brains hear."""
    sounds = data.simulated_sounds(n_per_category=10, seed=5)
    clips = []
    for name, category in zip(sounds.names, sounds.categories, strict=True):
        wave = sounds.waveform(name)
        clips.append(Clip(name, wave, len(wave), sounds.sample_rate, category))
    return Corpus(clips)


def _natsound() -> Corpus:
    """List the share of ESC-10 and digits that no task probes: the light zoo's too."""
    files = [(file, label) for file, label, fold in esc10_clips() if fold in ZOO_ESC10_FOLDS] + [
        (file, f"digit {digit}")
        for file, digit, speaker, _ in fsdd_clips()
        if speaker in ZOO_SPEAKERS
    ]
    return Corpus([describe(file, label=label) for file, label in files])


_CORPORA: dict[str, Callable[[], Corpus]] = {"demo": _demo, "natsound": _natsound}


def corpus(*names: str | Path) -> Corpus:
    """Find audio to train on.

    Parameters
    ----------
    *names : str or path
        ``"demo"``: 60 generated sounds of 2 s. ``"natsound"``: environmental sounds (folds 4 and
        5 of ESC-10) and spoken digits (three speakers), none of which a task probes. Anything
        else: one or more folders, see :class:`AudioFolder`.

    Examples
    --------
    >>> from analysis_lib import pretraining
    >>> pretraining.corpus("demo")  # doctest: +SKIP
    Corpus(60 recordings, 120 s)
    >>> pretraining.corpus("no/such/folder")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.MissingDataError: no folder no/such/folder with audio to train on. ...
    """
    if len(names) == 1 and str(names[0]) in _CORPORA:
        return _CORPORA[str(names[0])]()
    for name in names:
        if not Path(name).exists():
            raise MissingDataError(
                f"no folder {name} with audio to train on. Name folders with recordings, or one of "
                f"{', '.join(_CORPORA)}."
            )
    return AudioFolder(*names)
