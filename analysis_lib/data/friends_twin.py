"""A twin of the Friends data whose brain is known: real layout, real loader, planted truth.

Every parcel listens to the last layer of one of two networks in the shape of SoundNet, which share
all weights but some of conv4. Up to conv3 both keep low and high frequencies apart. From there on
the network to start from reads the low ones alone; the brain's network reads both. So

* parcels planted on the **start** are explained by the network as it is;
* parcels planted on the **brain** need conv4 to change, and something below it to be heard anew;
* **null** parcels hear nothing.

The response of a parcel is a causal FIR filter over a known combination of units, plus slow drift
and autocorrelated noise. Subjects share a part of the combinations.
"""

import gzip
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy
import soundfile
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from ..errors import AudioNotice
from ..paths import atomic_path, cache_dir, content_key
from . import friends_files, friends_networks
from .friends_networks import HOP, N_UNITS, SAMPLE_RATE
from .light_tasks import esc10_clips
from .natural_sounds import read_audio

__all__ = ["TWINS", "Truth", "Twin", "read_truth", "write", "write_twin"]

TR = 1.49  # s
N_LAGS = 5
_VERSION = 1  # raised whenever the twin's files become others

_N_COMPONENTS = 6  # principal components of conv7 that parcels read


@dataclass(frozen=True)
class Twin:
    """What a twin is made of.

    Attributes
    ----------
    runs : tuple of str
        In order.
    n_trs : int
        Volumes of each.
    n_subjects : int
    parcels : mapping of {"start", "brain", "null"} to int
        How many of each kind.
    real_audio : bool
        ESC-10 clips rather than generated bands of noise and tones. A fold of ESC-10, and so a
        recording, never spans two seasons or two episodes.
    share : float
        Share of a combination's variance that subjects have in common.
    noise, drift : float
        Standard deviations in units of the signal's.
    seed : int
    """

    runs: tuple[str, ...]
    n_trs: int
    n_subjects: int
    parcels: Mapping[str, int]
    real_audio: bool = False
    share: float = 0.6
    noise: float = 0.7
    drift: float = 0.4
    seed: int = 0


def _runs(episodes: Mapping[int, int]) -> tuple[str, ...]:
    return tuple(
        f"s{season:02d}e{episode:02d}{half}"
        for season, count in episodes.items()
        for episode in range(1, count + 1)
        for half in "ab"
    )


TWINS: Mapping[str, Twin] = MappingProxyType({
    "friends-twin": Twin(
        _runs({1: 2, 2: 1, 3: 1, 4: 3}), 48, 2, {"start": 8, "brain": 10, "null": 6}
    ),
    "friends-real-audio-twin": Twin(
        _runs({1: 2, 2: 2, 3: 2, 4: 4}), 66, 3, {"start": 12, "brain": 16, "null": 8},
        real_audio=True,
    ),
})  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What was planted in one subject.

    Attributes
    ----------
    kind : Series of str, by target
        ``"start"``, ``"brain"`` or ``"null"``: the network whose conv7 drives the parcel.
    weights : array of shape (n_targets, 1024)
        The combination of conv7's units; 0 for null parcels.
    fir : array of shape (n_targets, n_lags)
        Causal filter over volumes, lag 0 first. Before a run, units are at their average.
    signal : dict of str to array of shape (n_trs, n_targets)
        By run, the response without drift and noise.
    ceiling : Series by target
        Squared correlation of signal and response over all runs: what no model can exceed but by
        chance; 0 for null parcels.
    start, brain : dict of str to tensor
        The two networks, ``conv1`` to ``conv7``, with the tensor names of ``sound8.pth``. They
        take waveforms of 22,050 Hz times 256.
    """

    kind: pd.Series
    weights: np.ndarray = field(repr=False)
    fir: np.ndarray = field(repr=False)
    signal: dict[str, np.ndarray] = field(repr=False)
    ceiling: pd.Series = field(repr=False)
    start: dict[str, torch.Tensor] = field(repr=False)
    brain: dict[str, torch.Tensor] = field(repr=False)


def write(name: str) -> Path:
    """Write a twin into the cache, unless it is there; its folder, as :func:`write_twin`."""
    twin = TWINS[name]
    settings = {key: value for key, value in vars(twin).items() if key != "parcels"}
    folder = cache_dir("twins", content_key("friends", _VERSION, settings, dict(twin.parcels)))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "written").is_file():
            write_twin(folder, twin)
            (folder / "written").touch()
    return folder


def write_twin(folder: Path, twin: Twin) -> Path:
    """Write a twin: ``fmri``, ``stimuli`` as in Algonauts 2025, and ``truth`` beside them."""
    folder = Path(folder)
    waves = dict(
        zip(twin.runs, _real_audio(twin) if twin.real_audio else _audio(twin), strict=True)
    )
    for run, wave in waves.items():
        path = (
            folder / "stimuli" / "movies" / "friends" / f"s{int(run[1:3])}" / f"friends_{run}.wav"
        )
        with atomic_path(path) as temporary:
            soundfile.write(temporary, wave, SAMPLE_RATE, "PCM_16")
        waves[run] = soundfile.read(path, dtype="float32")[0]
    networks = friends_networks.draw(list(waves.values())[:2], twin.seed)
    for kind, tensors in networks.items():
        with atomic_path(folder / "truth" / f"{kind}.safetensors") as temporary:
            save_file(tensors, temporary)
    heard = [friends_networks.hear_both(networks, wave) for wave in waves.values()]
    features = {
        kind: np.stack([_at_volumes(frames[kind], twin.n_trs) for frames in heard])
        for kind in networks
    }
    for number in range(1, twin.n_subjects + 1):
        _write_subject(folder, twin, features, number)
    return folder


def read_truth(folder: Path, subject: str) -> Truth:
    """Read what was planted in a subject of a twin in ``folder``."""
    place = Path(folder) / "truth"
    with np.load(place / f"{subject}.npz") as stored:
        values = dict(stored)
    image = next(Path(folder).rglob(f"{subject}_*_parcellation.nii.gz"))
    target = friends_files.parcels(image).index
    return Truth(
        pd.Series(values["kind"].astype(object), target, name="kind"),
        values["weights"],
        values["fir"],
        {str(run): signal for run, signal in zip(values["runs"], values["signal"], strict=True)},
        pd.Series(values["ceiling"], target, name="ceiling"),
        load_file(place / "start.safetensors"),
        load_file(place / "brain.safetensors"),
    )


def _at_volumes(frames: np.ndarray, n_trs: int) -> np.ndarray:
    """conv7 at each volume, (n_trs, 1024): frame i of a clock that ticks with the scanner.

    conv7 ticks every 1.486 s, the scanner every 1.49 s; frames in between are interpolated.
    """
    place = np.arange(n_trs) * TR * SAMPLE_RATE / HOP
    before = np.minimum(place.astype(int), len(frames) - 2)
    part = (place - before)[:, None]
    return (1 - part) * frames[before] + part * frames[before + 1]


def _plant(
    features: Mapping[str, np.ndarray], twin: Twin, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kind, weights and filter of each parcel of a subject, and its signal (run, time, parcel).

    ``features`` are conv7 of each network at the volumes, (run, time, unit).
    """
    kinds = np.repeat(list(twin.parcels), list(twin.parcels.values()))
    weights = np.zeros((len(kinds), N_UNITS))
    signal = np.zeros((len(twin.runs), twin.n_trs, len(kinds)))
    peak = 4.5 + 1.2 * np.random.default_rng([twin.seed, 3, number]).random()
    lag = TR * np.arange(N_LAGS)
    fir = (lag / peak) ** 4 * np.exp(4 * (1 - lag / peak))
    fir /= fir.sum()
    for stream, (kind, values) in enumerate(features.items()):
        mine = kinds == kind
        flat = values.reshape(-1, N_UNITS)
        mixed = _mixtures(twin, stream, number, mine.sum()) @ _components(flat)
        driven = (values - flat.mean(axis=0)) @ mixed.T
        driven = scipy.signal.lfilter(fir, 1, driven, axis=1)
        scale = driven.std(axis=(0, 1))
        weights[mine], signal[..., mine] = mixed / scale[:, None], driven / scale
    return kinds, weights, np.tile(fir, (len(kinds), 1)), signal


def _mixtures(twin: Twin, stream: int, number: int, n_parcels: int) -> np.ndarray:
    """How parcels mix components, (n_parcels, n_components), partly shared by subjects."""
    common = np.random.default_rng([twin.seed, 1, stream])
    own = np.random.default_rng([twin.seed, 2, stream, number])
    shape = (n_parcels, _N_COMPONENTS)
    shared = np.sqrt(twin.share) * common.standard_normal(shape)
    return shared + np.sqrt(1 - twin.share) * own.standard_normal(shape)


def _components(flat: np.ndarray) -> np.ndarray:
    """Combine units so that they are uncorrelated and vary alike, (n_components, unit)."""
    centred = flat - flat.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    leading = np.argsort(values)[::-1][:_N_COMPONENTS]
    return (vectors[:, leading] / values[leading]).T @ centred


def _write_subject(
    folder: Path, twin: Twin, features: Mapping[str, np.ndarray], number: int
) -> None:
    """Responses of one subject, the atlas of its parcels, and the truth."""
    subject = f"sub-{number:02d}"
    kinds, weights, fir, signal = _plant(features, twin, number)
    rng = np.random.default_rng([twin.seed, 4, number])
    bold = np.stack([run + _noise(rng, twin, len(kinds)) for run in signal])
    bold -= bold.mean(axis=1, keepdims=True)
    bold /= bold.std(axis=1, keepdims=True)
    place = folder / "fmri" / subject
    space = "space-MNI152NLin2009cAsym_atlas-Twin_parcel"
    path = place / "func" / f"{subject}_task-friends_{space}-{len(kinds)}_desc-s1234_bold.h5"
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for i, run in enumerate(twin.runs):
            file[f"ses-{1 + i // 4:03d}_task-{run}"] = bold[i].astype(np.float32)
    atlas = f"{subject}_{space}-{len(kinds)}_desc-dseg_parcellation.nii.gz"
    _write_atlas(place / "atlas" / atlas, len(kinds))
    clean = signal - signal.mean(axis=1, keepdims=True)
    both, own = (clean * bold).sum((0, 1)), (clean**2).sum((0, 1))
    ceiling = both**2 / np.where(own > 0, own * (bold**2).sum((0, 1)), 1)
    with atomic_path(folder / "truth" / f"{subject}.npz") as temporary:
        np.savez(
            temporary,
            kind=kinds.astype("U"),
            weights=weights.astype(np.float32),
            fir=fir,
            runs=np.array(twin.runs),
            signal=signal.astype(np.float32),
            ceiling=ceiling,
        )


def _noise(rng: np.random.Generator, twin: Twin, n_parcels: int) -> np.ndarray:
    """Slow cosines and a first-order autoregression of 0.4 a volume, (n_trs, n_parcels)."""
    n_trs = twin.n_trs
    white = rng.standard_normal((n_trs + 20, n_parcels))
    auto = scipy.signal.lfilter([np.sqrt(1 - 0.4**2)], [1, -0.4], white, axis=0)[20:]
    half_periods = np.arange(1, 1 + max(1, int(2 * n_trs * TR / 128)))[:, None]
    cosines = np.cos(np.pi * half_periods * (np.arange(n_trs) + 0.5) / n_trs)
    drift = cosines.T @ rng.standard_normal((len(cosines), n_parcels))
    drift *= np.sqrt(2 / len(cosines))
    return twin.noise * auto + twin.drift * drift


def _write_atlas(path: Path, n_parcels: int) -> None:
    """Parcels as blocks along both temporal lobes, on a 4 mm grid of MNI space."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-96, -132, -78)
    grid = np.indices((49, 59, 49)).reshape(3, -1).T
    xyz = nibabel.affines.apply_affine(affine, grid)
    centres = np.array([
        (side * (46 + 8 * (row % 2)), 8 - 12 * (k // 2 % 6), 14 - 12 * row)
        for k in range(n_parcels)
        for side, row in [((-1, 1)[k % 2], k // 12)]
    ])  # fmt: skip
    distance = np.linalg.norm(xyz[:, None] - centres, axis=2)
    label = np.where(distance.min(axis=1) <= 9, distance.argmin(axis=1) + 1, 0)
    image = nibabel.Nifti1Image(label.reshape(49, 59, 49).astype(np.int16), affine)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _audio(twin: Twin) -> Iterator[np.ndarray]:
    """Six bands, tones and noises in turn, whose levels wander by themselves."""
    rng = np.random.default_rng([twin.seed, 5])
    n = int(np.ceil(twin.n_trs * TR * SAMPLE_RATE))
    seconds = np.arange(n) / SAMPLE_RATE
    carriers = _carriers(rng)
    for _ in twin.runs:
        wave = np.zeros(n)
        for carrier in carriers:
            # Levels of 6 dB standard deviation that change over a few seconds.
            steps = np.arange(0, seconds[-1] + 4, 2.0)
            level = np.interp(seconds, steps, 6 * rng.standard_normal(len(steps)))
            wave += 10 ** (level / 20) * np.resize(carrier, n)
        yield (0.05 * wave / wave.std()).clip(-1, 1).astype(np.float32)


def _carriers(rng: np.random.Generator) -> list[np.ndarray]:
    """Ten seconds of each band, which may be repeated without a click."""
    n = 10 * SAMPLE_RATE
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    carriers = []
    for band, centre in enumerate(np.geomspace(180, 5500, 6)):
        width = 0.02 if band % 2 == 0 else 0.2  # of the centre: a fluttering tone, or noise
        shape = np.exp(-0.5 * ((frequency - centre) / (width * centre)) ** 2)
        spectrum = shape * np.exp(2j * np.pi * rng.random(len(shape)))
        carrier = np.fft.irfft(spectrum, n)
        carriers.append(carrier / carrier.std())
    return carriers


def _real_audio(twin: Twin) -> Iterator[np.ndarray]:
    """Clips of ESC-10 in a row, at one level; each run from a single fold."""
    rng = np.random.default_rng([twin.seed, 6])
    by_fold = [[path for path, _, fold in esc10_clips() if fold == k] for k in range(1, 6)]
    runs_per_fold = -(-len(twin.runs) // len(by_fold))
    n = int(np.ceil(twin.n_trs * TR * SAMPLE_RATE))
    for clips in by_fold:
        order = [clips[i] for i in rng.permutation(len(clips))]
        for part in np.array_split(np.arange(len(order)), runs_per_fold):
            wave = np.concatenate([_clip(order[i]) for i in part])
            yield wave[:n] if len(wave) >= n else np.pad(wave, (0, n - len(wave)), "wrap")


def _clip(path: Path) -> np.ndarray:
    with warnings.catch_warnings():  # the level is set anew below
        warnings.simplefilter("ignore", AudioNotice)
        wave = read_audio(path, SAMPLE_RATE, on_silence="warn")
    wave = wave / max(np.sqrt(np.mean(wave**2)), 1e-3) * 0.05
    return (wave / max(1.0, float(np.abs(wave).max()) / 0.95)).astype(np.float32)
