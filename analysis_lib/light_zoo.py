"""The light zoo: small networks trained here, in a minute each, on clips that no task probes.

What each network hears in training, and what is left for probing it, is laid down in
:mod:`analysis_lib.data.light_tasks`: other speakers, other folds of ESC-10, other notes. All of
them are :class:`~analysis_lib.models.small_cnn.SmallCNN`; they differ by what they learned.
"""

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from .data.light_tasks import (
    NOTE_PITCHES,
    ZOO_ESC10_FOLDS,
    ZOO_SPEAKERS,
    esc10_clips,
    fsdd_clips,
)
from .data.natural_sounds import read_audio
from .data.synthesis import INSTRUMENTS, synthesise_note
from .device import resolve_device
from .errors import AudioNotice, UnknownNameError
from .models import card as find_card
from .models.checkpoints import trained_here
from .models.small_cnn import SmallConvNet
from .paths import atomic_path, content_key

__all__ = ["DOMAINS", "RECIPES", "Domain", "Recipe", "provenance", "revision", "train", "train_all"]

log = logging.getLogger("brainbook")

SAMPLE_RATE = 16_000
FRAMES = 75  # of a training excerpt: three quarters of a second
_VERSION = 1  # raised whenever training computes something else


@dataclass(frozen=True)
class Domain:
    """Sounds to learn from: one log-mel spectrogram per clip, and one class each.

    Attributes
    ----------
    spectrograms : tuple of tensor of shape (n_frames, n_mels)
    classes : tensor of int, shape (n_clips,)
    vocabulary : tuple of str
    content : str
        Digest of the sounds and their classes.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import light_zoo
    >>> clips = (torch.zeros(98, 64), torch.ones(120, 64))
    >>> domain = light_zoo.Domain(clips, torch.tensor([0, 1]), ("quiet", "loud"), "made up")
    >>> len(domain.spectrograms), domain.vocabulary
    (2, ('quiet', 'loud'))
    """

    spectrograms: tuple[torch.Tensor, ...]
    classes: torch.Tensor
    vocabulary: tuple[str, ...]
    content: str


@dataclass(frozen=True)
class Recipe:
    """What a network learns, and for how long.

    Attributes
    ----------
    domains : tuple of str
        Names in :data:`DOMAINS`; each has a read-out of its own, and its own batch per step.
    n_steps, batch_size : int
    learning_rate, weight_decay, dropout, label_smoothing : float
        AdamW under a one-cycle schedule; dropout before the read-out.

    Examples
    --------
    >>> from analysis_lib import light_zoo
    >>> light_zoo.RECIPES["light-notes"].domains
    ('pitch', 'instrument')
    """

    domains: tuple[str, ...]
    n_steps: int
    batch_size: int = 48
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    dropout: float = 0.3
    label_smoothing: float = 0.1


RECIPES: Mapping[str, Recipe] = MappingProxyType({
    "light-digits": Recipe(("digits",), 400),
    "light-speakers": Recipe(("speakers",), 250),
    "light-environment": Recipe(("environment",), 400),
    "light-notes": Recipe(("pitch", "instrument"), 250),
    "light-all": Recipe(
        ("digits", "speakers", "environment", "pitch", "instrument"), 500, batch_size=125
    ),
})  # fmt: skip


def revision(name: str) -> str:
    """Name of a recipe's content: any change of it gives another, and so other weights.

    Examples
    --------
    >>> from analysis_lib import light_zoo
    >>> light_zoo.revision("light-notes") == light_zoo.revision("light-digits")
    False
    """
    recipe = _recipe(name)
    options = {key: _plain(value) for key, value in find_card(name).options.items()}
    return content_key(asdict(recipe), options, FRAMES, _VERSION)[:12]


def train_all(seed: int = 0, device: str = "cpu") -> list[Path]:
    """Train whatever of the light zoo is not there yet. Parameters as :func:`train`.

    Examples
    --------
    >>> from analysis_lib import light_zoo
    >>> light_zoo.train_all()  # doctest: +SKIP
    >>> list(light_zoo.RECIPES)
    ['light-digits', 'light-speakers', 'light-environment', 'light-notes', 'light-all']
    """
    return [train(name, seed, device) for name in RECIPES]


def train(name: str, seed: int = 0, device: str = "cpu", again: bool = False) -> Path:
    """Train one network of the light zoo, unless its weights are there.

    The same seed, device and number of threads give the same weights.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`.
    seed : int
        Decides initial weights, batches, augmentation. ``models.load`` takes seed 0.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    again : bool
        Train even if the weights are there.

    Returns
    -------
    Path
        The ``.safetensors`` file, in the cache.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    MissingDataError
        When the recordings are not here and cannot be fetched.

    Examples
    --------
    >>> from analysis_lib import light_zoo
    >>> light_zoo.train("light-digits")  # doctest: +SKIP
    >>> light_zoo.train("light-digit")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown model of the light zoo 'light-digit'. ...
    """
    recipe, card = _recipe(name), find_card(name)
    path = trained_here(card, seed, must_exist=False)
    if path.is_file() and not again:
        log.info("reused %s", path)
        return path
    log.info("training %s: no weights at %s", name, path)
    device = resolve_device(device)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallConvNet(**card.options)
        domains = {domain: DOMAINS[domain](network.front_end) for domain in recipe.domains}
        accuracy = _fit(network, domains, recipe, seed, device, name)
    metadata = {
        "name": name,
        "seed": seed,
        "recipe": asdict(recipe),
        "domains": {domain: content.content for domain, content in domains.items()},
        "training_accuracy": accuracy,
        "device": str(device),
        "seconds": round(time.perf_counter() - started, 1),
        "torch": torch.__version__,
    }
    tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {key: json.dumps(value) for key, value in metadata.items()})
    return path


def provenance(path: Path) -> dict:
    """How a file of weights came about: recipe, seed, digest of the sounds, seconds.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import torch
    >>> from safetensors.torch import save_file
    >>> from analysis_lib import light_zoo
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.safetensors"
    >>> save_file({"weight": torch.ones(2)}, path, {"seed": "0"})
    >>> light_zoo.provenance(path)
    {'seed': 0}
    """
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def _fit(network, domains: Mapping[str, Domain], recipe, seed, device, name) -> dict[str, float]:
    """Train in place; returns the accuracy on the last fifth of the steps, per domain."""
    rng = np.random.default_rng([seed, 7])
    n_mels = next(iter(domains.values())).spectrograms[0].shape[1]
    probe = torch.zeros(2, FRAMES, n_mels)
    n_units = network.eval().from_log_mel(probe)[-1].mean(dim=2).flatten(1).shape[1]
    heads = nn.ModuleDict(
        {
            domain: nn.Sequential(
                nn.Dropout(recipe.dropout), nn.Linear(n_units, len(content.vocabulary))
            )
            for domain, content in domains.items()
        }
    )
    network.to(device).train()
    heads.to(device).train()
    parameters = [*network.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.n_steps
    )
    right = {domain: [] for domain in domains}
    per_domain = recipe.batch_size // len(domains)
    for step in tqdm(range(recipe.n_steps), desc=name, leave=False):
        drawn = [_batch(domains[domain], per_domain, rng) for domain in domains]
        # One pass for all, so that batch norm sees the mixture that it will be used on.
        excerpts = torch.cat([excerpts for excerpts, _ in drawn]).to(device)
        hidden = network.from_log_mel(excerpts)[-1].mean(dim=2).flatten(1)
        loss = 0.0
        for domain, (_, classes), part in zip(
            domains, drawn, hidden.split(per_domain), strict=True
        ):
            classes = classes.to(device)
            logits = heads[domain](part)
            loss = loss + F.cross_entropy(logits, classes, label_smoothing=recipe.label_smoothing)
            if step >= 0.8 * recipe.n_steps:
                right[domain].append((logits.argmax(dim=1) == classes).float().mean().item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return {domain: round(float(np.mean(values)), 4) for domain, values in right.items()}


def _batch(domain: Domain, size: int, rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Random excerpts, one band of time and one of frequency masked in each."""
    chosen = rng.integers(len(domain.spectrograms), size=size)
    excerpts = torch.stack([_excerpt(domain.spectrograms[i], rng) for i in chosen])
    n_mels = excerpts.shape[2]
    floor = excerpts.mean(dim=(1, 2))
    for row in range(size):
        t, f = rng.integers(FRAMES - 12), rng.integers(n_mels - 8)
        excerpts[row, t : t + rng.integers(1, 13)] = floor[row]
        excerpts[row, :, f : f + rng.integers(1, 9)] = floor[row]
    return excerpts, domain.classes[chosen]


def _excerpt(spectrogram: torch.Tensor, rng) -> torch.Tensor:
    """Excerpt of a fixed length: the louder of two places, or the whole sound repeated."""
    n_frames = len(spectrogram)
    if n_frames <= FRAMES:
        start = rng.integers(n_frames)
        return spectrogram[(start + torch.arange(FRAMES)) % n_frames].clone()
    places = [
        spectrogram[start : start + FRAMES] for start in rng.integers(n_frames - FRAMES, size=2)
    ]
    return max(places, key=lambda place: float(place.mean())).clone()


def _digits(front_end: nn.Module) -> Domain:
    clips = [clip for clip in fsdd_clips() if clip[2] in ZOO_SPEAKERS]
    return _recorded(front_end, [clip[0] for clip in clips], [clip[1] for clip in clips])


def _speakers(front_end: nn.Module) -> Domain:
    clips = [clip for clip in fsdd_clips() if clip[2] in ZOO_SPEAKERS]
    return _recorded(front_end, [clip[0] for clip in clips], [clip[2] for clip in clips])


def _environment(front_end: nn.Module) -> Domain:
    clips = [clip for clip in esc10_clips() if clip[2] in ZOO_ESC10_FOLDS]
    return _recorded(front_end, [clip[0] for clip in clips], [clip[1] for clip in clips])


def _pitch(front_end: nn.Module) -> Domain:
    notes, _, pitches = _notes()
    return _domain(front_end, notes, [str(pitch) for pitch in pitches])


def _instrument(front_end: nn.Module) -> Domain:
    notes, instruments, _ = _notes()
    return _domain(front_end, notes, instruments)


# Sounds to learn from, by name.
DOMAINS: Mapping[str, Callable[[nn.Module], Domain]] = MappingProxyType({
    "digits": _digits,
    "speakers": _speakers,
    "environment": _environment,
    "pitch": _pitch,
    "instrument": _instrument,
})  # fmt: skip


@lru_cache(maxsize=1)
def _notes() -> tuple[list[np.ndarray], list[str], list[int]]:
    """Draw the notes of the light zoo: all instruments and pitches of the tasks, other timbres."""
    rng = np.random.default_rng([7, 48])
    drawn = [
        (instrument, pitch)
        for instrument in INSTRUMENTS
        for pitch in NOTE_PITCHES
        for _ in range(3)
    ]
    notes = [synthesise_note(instrument, pitch, rng) for instrument, pitch in drawn]
    return notes, [instrument for instrument, _ in drawn], [pitch for _, pitch in drawn]


def _recorded(front_end: nn.Module, files: Sequence[Path], labels: Sequence[str]) -> Domain:
    return _domain(front_end, [_read(file) for file in files], labels)


def _read(file: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioNotice)  # telephone bandwidth is known here
        return read_audio(file, SAMPLE_RATE)


@torch.no_grad()
def _domain(front_end: nn.Module, waveforms: Sequence[np.ndarray], labels: Sequence[str]) -> Domain:
    vocabulary = tuple(sorted(set(labels)))
    spectrograms = tuple(front_end(torch.from_numpy(waveform)[None])[0] for waveform in waveforms)
    return Domain(
        spectrograms,
        torch.tensor([vocabulary.index(label) for label in labels]),
        vocabulary,
        content_key(list(waveforms), list(labels)),
    )


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise UnknownNameError("model of the light zoo", name, RECIPES)
    return RECIPES[name]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
