"""Light tasks in the HEAR format, made from open data or generated, in the cache.

The small networks that this project trains itself never see a clip that a task probes:

==================  =================================  ==========================================
source              the light zoo trains on            the tasks probe
==================  =================================  ==========================================
spoken digits       three speakers, all utterances     the three other speakers, 20 utterances
ESC-10              its folds 4 and 5                  its folds 1-3 (``esc10-heldout``)
notes               notes drawn from other seeds       notes drawn from the tasks' seeds
==================  =================================  ==========================================

``esc10`` is the whole published data set with its five folds, for models trained elsewhere; the
light zoo has heard two fifths of it, and its metadata say so (``light_zoo_clips``).
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile

from ..errors import DataError, UnknownNameError
from ..paths import cache_dir, content_key
from . import fetch, task_format
from .synthesis import INSTRUMENTS, synthesise_note

__all__ = [
    "LIGHT_TASKS",
    "NOTE_PITCHES",
    "PROBE_SPEAKERS",
    "ZOO_ESC10_FOLDS",
    "ZOO_SPEAKERS",
    "esc10_clips",
    "fsdd_clips",
    "make",
]

log = logging.getLogger("brainbook")
PROBE_SPEAKERS = ("george", "lucas", "yweweler")
ZOO_SPEAKERS = ("jackson", "nicolas", "theo")
ZOO_ESC10_FOLDS = (4, 5)
NOTE_PITCHES = tuple(range(48, 72))  # two octaves from C3
_N_UTTERANCES = 20  # of the 50 per speaker and digit: enough for ±2 points, half the time
_VERSION = 3  # raised whenever a maker writes something else

Clips = dict[str, dict[str, tuple[list, Path | np.ndarray]]]


def make(name: str) -> Path:
    """Make a light task in the cache, unless it is there.

    Parameters
    ----------
    name : str
        One of :data:`LIGHT_TASKS`.

    Returns
    -------
    Path
        Its folder.
    """
    if name not in LIGHT_TASKS:
        raise UnknownNameError("light task", name, LIGHT_TASKS)
    maker, metadata, sample_rate = LIGHT_TASKS[name]
    key = content_key(name, _VERSION, {k: str(v) for k, v in metadata.items()})
    folder = cache_dir("tasks", f"{name}-{key[:8]}")
    if not (folder / "task_metadata.json").is_file():
        log.info("making task %s in %s", name, folder)
        task_format.write_task(folder, {"task_name": name, **metadata}, maker(), sample_rate)
    return folder


def fsdd_clips() -> list[tuple[Path, str, str, int]]:
    """List the free spoken digit data set: file, digit, speaker, utterance number."""
    folder = fetch.fetch("fsdd", "recordings/*")
    clips = []
    for entry in fetch.registry("fsdd").matching("recordings/*"):
        digit, speaker, number = Path(entry.file).stem.split("_")
        clips.append((folder / entry.file, digit, speaker, int(number)))
    return clips


def esc10_clips() -> list[tuple[Path, str, int]]:
    """List the clips of ESC-10: file, class, fold (1 to 5).

    The fold is the first number of the file's name; clips cut from one recording share a fold.
    """
    folder = fetch.fetch("esc10", "*/*.ogg")
    clips = []
    for entry in fetch.registry("esc10").matching("*/*.ogg"):
        label = Path(entry.file).parent.name.split(" - ", 1)[1]
        clips.append((folder / entry.file, label, int(Path(entry.file).name.split("-")[0])))
    return clips


_ESC10_RATE = 44_100


def _esc10(folds: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Clips:
    """Five seconds of each clip, as in HEAR: some are a few milliseconds longer, a few shorter."""
    clips = defaultdict(dict)
    for file, label, fold in esc10_clips():
        if fold in folds:
            wave = soundfile.read(file, 5 * _ESC10_RATE, dtype="int16", fill_value=0)[0]
            clips[f"fold{folds.index(fold):02d}"][f"{file.stem}.flac"] = ([label], wave)
    return clips


_WORD = 0.45  # seconds; half of the spoken digits are shorter


def _spoken(file: Path) -> np.ndarray:
    """Read a word, with silence after a short one: the shortest are too short for some networks."""
    wave, rate = soundfile.read(file, dtype="int16")
    return np.pad(wave, (0, max(0, round(_WORD * rate) - len(wave))))


def _digits() -> Clips:
    """One fold per speaker: nobody who is tested on was heard in training."""
    clips = defaultdict(dict)
    for file, digit, speaker, number in fsdd_clips():
        if speaker in PROBE_SPEAKERS and number < _N_UTTERANCES:
            fold = f"fold{PROBE_SPEAKERS.index(speaker):02d}"
            clips[fold][file.name] = ([digit], _spoken(file))
    return clips


def _speakers() -> Clips:
    """One fold per pair of digits: a speaker is recognised by words not heard in training."""
    clips = defaultdict(dict)
    for file, digit, speaker, number in fsdd_clips():
        if speaker in PROBE_SPEAKERS and number < _N_UTTERANCES:
            clips[f"fold{int(digit) // 2:02d}"][file.name] = ([speaker], _spoken(file))
    return clips


def _pitch() -> Clips:
    """As in NSynth: the instruments of train, valid and test are different ones."""
    rng = np.random.default_rng([6, 48])
    heard = {
        "train": ("brass", "organ", "reed", "strings"),
        "valid": ("plucked",),
        "test": ("flute", "voice"),
    }
    n_notes = {"train": 3, "valid": 4, "test": 3}  # per instrument and pitch
    clips = defaultdict(dict)
    for split, instruments in heard.items():
        for instrument in instruments:
            for pitch in NOTE_PITCHES:
                for i in range(n_notes[split]):
                    note = synthesise_note(instrument, pitch, rng)
                    clips[split][f"{instrument}_{pitch}_{i}.wav"] = ([str(pitch)], note)
    return clips


def _instrument() -> Clips:
    """No pitch in two folds: an instrument is recognised by notes not heard in training."""
    rng = np.random.default_rng([6, 49])
    clips = defaultdict(dict)
    for instrument in INSTRUMENTS:
        for pitch in NOTE_PITCHES:
            for i in range(2):
                note = synthesise_note(instrument, pitch, rng)
                fold = f"fold{pitch % 5:02d}"
                clips[fold][f"{instrument}_{pitch}_{i}.wav"] = ([instrument], note)
    return clips


_RATE = 16_000  # of generated clips, in Hz


def _burst(kind: str, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """One generated sound event: a tone, a band of noise, a rising chirp or a train of clicks."""
    t = np.arange(round(seconds * _RATE)) / _RATE
    if kind == "tone":
        wave = np.sin(2 * np.pi * rng.uniform(300, 600) * t)
    elif kind == "chirp":
        start = rng.uniform(600, 1000)
        wave = np.sin(2 * np.pi * (start * t + rng.uniform(800, 1500) / seconds * t**2))
    elif kind == "clicks":
        wave = (t % rng.uniform(0.02, 0.04) < 5e-4).astype(float)
    elif kind == "noise":
        wave = rng.standard_normal(t.size)
    else:
        raise DataError(f"no such event: {kind}")
    fade = np.minimum(1, np.minimum(t + 1 / _RATE, t[-1] - t + 1 / _RATE) / 0.01)
    return rng.uniform(0.1, 0.3) * fade * wave


def _background(rng: np.random.Generator, seconds: float) -> np.ndarray:
    return 0.005 * rng.standard_normal(round(seconds * _RATE))


_KINDS = ("chirp", "clicks", "noise", "tone")


def _demo_scene() -> Clips:
    rng = np.random.default_rng([6, 0])
    clips = defaultdict(dict)
    for fold in range(5):
        for kind in _KINDS:
            for i in range(4):
                wave = _background(rng, 0.5) + _burst(kind, rng, 0.5)
                clips[f"fold{fold:02d}"][f"{kind}_{fold}{i}.wav"] = ([kind], wave)
    return clips


def _demo_tags() -> Clips:
    rng = np.random.default_rng([6, 1])
    clips = defaultdict(dict)
    for split, n_clips in {"train": 60, "valid": 30, "test": 30}.items():
        for i in range(n_clips):
            present = [kind for kind in _KINDS if rng.random() < 0.4]
            wave = _background(rng, 0.5) + sum(_burst(kind, rng, 0.5) for kind in present)
            clips[split][f"{split}_{i:02d}.wav"] = (present, wave)
    return clips


def _demo_notes() -> Clips:
    """No pitch in two folds, few notes: too hard to be solved, too small to take long."""
    rng = np.random.default_rng([6, 3])
    clips = defaultdict(dict)
    for instrument in INSTRUMENTS:
        for pitch in NOTE_PITCHES[::2]:
            note = synthesise_note(instrument, pitch, rng, seconds=0.4)
            fold = f"fold{pitch // 2 % 4:02d}"
            clips[fold][f"{instrument}_{pitch}.wav"] = ([instrument], note)
    return clips


def _demo_events() -> Clips:
    rng = np.random.default_rng([6, 2])
    clips = defaultdict(dict)
    for split, n_clips in {"train": 12, "valid": 6, "test": 6}.items():
        for i in range(n_clips):
            wave, events = _background(rng, 3.0), []
            for start in (0.2, 1.15, 2.1):
                kind, onset = rng.choice(_KINDS), start + rng.uniform(0, 0.3)
                seconds = rng.uniform(0.3, 0.5)
                burst = _burst(kind, rng, seconds)
                first = round(onset * _RATE)
                wave[first : first + burst.size] += burst
                events.append((str(kind), onset, onset + seconds))
            clips[split][f"{split}_{i:02d}.wav"] = (events, wave)
    return clips


def _metadata(split_mode: str, metrics: list[str], duration: float, **more) -> dict:
    return {
        "version": "light-1",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": split_mode,
        "sample_duration": duration,
        "evaluation": metrics,
        "light_zoo_clips": 0,
        **more,
    }


_ESC10 = {"licence": "CC BY 3.0", "citation": "piczak2015esc"}
_FSDD = {"licence": "CC BY-SA 4.0", "citation": "jackson2018fsdd"}
_OURS = {"licence": "generated here, same licence as the code", "citation": ""}

# Name -> how to make it, its metadata, and the sampling rate of its audio in Hz.
LIGHT_TASKS: Mapping[str, tuple[Callable[[], Clips], dict, int]] = MappingProxyType({
    "esc10": (
        _esc10,
        _metadata("presplit_kfold", ["top1_acc"], 5.0, **{**_ESC10, "light_zoo_clips": 160}),
        _ESC10_RATE,
    ),
    "esc10-heldout": (
        lambda: _esc10((1, 2, 3)),
        _metadata("presplit_kfold", ["top1_acc"], 5.0, **_ESC10),
        _ESC10_RATE,
    ),
    "spoken-digits": (_digits, _metadata("new_split_kfold", ["top1_acc"], _WORD, **_FSDD), 8_000),
    "spoken-speakers": (
        _speakers,
        _metadata("new_split_kfold", ["top1_acc"], _WORD, **_FSDD),
        8_000,
    ),
    "pitch": (
        _pitch,
        _metadata("trainvaltest", ["pitch_acc", "chroma_acc"], 0.75, **_OURS),
        _RATE,
    ),
    "instrument": (
        _instrument,
        _metadata("new_split_kfold", ["top1_acc"], 0.75, **_OURS),
        _RATE,
    ),
    "demo-scene": (_demo_scene, _metadata("new_split_kfold", ["top1_acc"], 0.5, **_OURS), _RATE),
    "demo-notes": (_demo_notes, _metadata("new_split_kfold", ["top1_acc"], 0.4, **_OURS), _RATE),
    "demo-tags": (
        _demo_tags,
        _metadata(
            "trainvaltest",
            ["mAP", "aucroc", "d_prime"],
            0.5,
            **{**_OURS, "prediction_type": "multilabel"},
        ),
        _RATE,
    ),
    "demo-events": (
        _demo_events,
        _metadata(
            "trainvaltest",
            ["event_onset_200ms_fms", "event_onset_50ms_fms"],
            3.0,
            **{**_OURS, "prediction_type": "multilabel", "embedding_type": "event"},
        ),
        _RATE,
    ),
})  # fmt: skip
