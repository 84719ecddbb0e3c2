"""From a model and sounds to features: streamed, pooled over time, cached by content, resumable."""

import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zarr
from tqdm.auto import tqdm

from . import data, models
from .device import available_memory, memory_of, peak_memory, require_memory
from .errors import MemoryBudgetError, ParameterError, UnknownNameError
from .features import Features
from .paths import atomic_path, cache_dir, content_key, storage_errors
from .processes import Processes, processes

__all__ = ["Features", "extract", "extract_many", "features"]

log = logging.getLogger("brainbook")

POOLINGS = ("mean", "max")
CHUNK = 32  # sounds per stored chunk, and so the most that a killed run loses
PORTION = 300  # seconds of audio in memory at once, or one sound if that is longer
LONG = 30  # seconds; the memory of a longer sound is estimated from excerpts before it is run
_VERSION = 2  # raised when pooling or storage compute something else


def features(source: str, sounds: data.Sounds, **options) -> Features:
    """Features by the name of their source.

    Parameters
    ----------
    source : str
        A model (anything :func:`analysis_lib.models.load` takes); ``"planted"``, the true
        features that drive the simulated cortex; ``"activations:<model>"`` or
        ``"activations:<model>:permuted"``, the stored activations of Tuckute et al. (2023)
        (:func:`analysis_lib.data.stored_activations`).
    sounds : Sounds
        What to represent.
    **options
        Of :func:`extract`.

    Examples
    --------
    >>> from analysis_lib import data, extraction
    >>> sounds = data.simulated_sounds(1)
    >>> extraction.features("planted", sounds)
    Features(6 sounds, layers spectrum, modulation, conjunction)
    >>> extraction.features("log-mel", sounds, device="cpu")
    Features(6 sounds, layers log_mel)
    """
    if source == "planted":
        layers = data.planted_features(sounds)
        hashes = [sounds.content_hash(name) for name in sounds]
        key = content_key("planted", _VERSION, hashes)
    elif source.startswith("activations:"):
        if options.get("pooling", "mean") != "mean":
            raise ParameterError(f"{source}: stored activations are means over time")
        _, model, *permuted = source.split(":")
        if permuted not in ([], ["permuted"]):
            raise ParameterError(f"{source}: write it as activations:<model>[:permuted]")
        layers = data.stored_activations(model, sounds.names, bool(permuted), options.get("layers"))
        key = content_key("activations", _VERSION, sounds.names, list(layers), layers)
    else:
        return extract(source, sounds, **options)
    return Features(layers, sounds.names, sounds.categories, key, {"model": source})


def extract(
    model: str | models.AudioModel,
    sounds: data.Sounds,
    layers: Collection[str] | None = None,
    pooling: str = "mean",
    device: str = "auto",
    batch_size: int | str = "auto",
    cache: bool = True,
    autocast: bool = False,
) -> Features:
    """Run a model over sounds and pool every layer over time.

    Sounds are streamed in batches and written as they come, so memory does not grow with their
    number. A run that was killed goes on where it stopped; a finished one is not run again. Under
    ``torchrun`` the processes share the sounds, each with a GPU of its own where there are several.

    Parameters
    ----------
    model : str or AudioModel
        A name for :func:`analysis_lib.models.load`, or a loaded model.
    sounds : Sounds
        What to represent; resampled to the model's rate.
    layers : collection of str, optional
        By default all of the model's; its ``extra_layers`` have to be asked for.
    pooling : {"mean", "max"}
        How frames become one vector per sound.
    device : str
        See :func:`analysis_lib.device.resolve_device`; a loaded model stays where it is.
    batch_size : int or "auto"
        Sounds per forward pass; "auto" measures the memory that the longest sound takes and
        fits the batch to what is free.
    cache : bool
        Keep the features on disk, by content, and use them when they are there.
    autocast : bool
        Let torch compute in half precision where it sees fit: faster on recent devices, and
        with two to three digits instead of seven.

    Returns
    -------
    Features

    Raises
    ------
    AudioError
        Naming the sound that cannot be represented.
    MemoryBudgetError
        When a sound would not fit in memory; estimated before it is run.
    StorageError
        When the cache cannot be written or the disk is full.

    Examples
    --------
    >>> from analysis_lib import data, extraction
    >>> sounds = data.simulated_sounds(1)
    >>> features = extraction.extract("small-cnn", sounds, layers=["conv1", "conv5"], device="cpu")
    >>> {layer: values.shape for layer, values in features.items()}
    {'conv1': (6, 512), 'conv5': (6, 512)}
    >>> again = extraction.extract("small-cnn", sounds, layers=["conv1", "conv5"], device="cpu")
    >>> again.key == features.key
    True
    """
    options = (layers, pooling, device, batch_size, cache, autocast)
    return next(iter(extract_many([model], sounds, *options).values()))


def extract_many(
    many: Sequence[str | models.AudioModel],
    sounds: data.Sounds,
    layers: Collection[str] | None = None,
    pooling: str = "mean",
    device: str = "auto",
    batch_size: int | str = "auto",
    cache: bool = True,
    autocast: bool = False,
) -> dict[str, Features]:
    """Run several models over sounds in one pass: each sound is read once per sampling rate.

    The models are in memory together. Parameters and errors are those of :func:`extract`.

    Returns
    -------
    dict of str to Features
        By the name that was given, or that of the loaded model's card.

    Examples
    --------
    >>> from analysis_lib import data, extraction
    >>> sounds = data.simulated_sounds(1)
    >>> extracted = extraction.extract_many(["log-mel", "mfcc"], sounds, device="cpu")
    >>> {name: features.layers for name, features in extracted.items()}
    {'log-mel': ('log_mel',), 'mfcc': ('mfcc',)}
    """
    if pooling not in POOLINGS:
        raise UnknownNameError("pooling", pooling, POOLINGS)
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise ParameterError(f"batch_size must be 'auto' or a positive integer, not {batch_size!r}")
    if len(sounds) == 0:
        raise ParameterError("there are no sounds to extract features from")
    runs: dict[str, _Run] = {}
    with processes(device) as group:
        for model in many:
            name = model if isinstance(model, str) else model.card.name
            if name in runs:
                raise ParameterError(f"{name} is there twice; extract its features in two calls")
            if isinstance(model, str):
                model = models.load(model, device=str(group.device))
            elif device != "auto" or group.n > 1:
                model.to(group.device)
            wanted = _checked_layers(model, layers)
            runs[name] = _Run(model, sounds, wanted, pooling, batch_size, autocast, cache)
        _one_pass(sounds, [run for run in runs.values() if not run.is_finished()], group)
        return {name: run.features() for name, run in runs.items()}


def _checked_layers(model: models.AudioModel, layers: Collection[str] | None) -> tuple[str, ...]:
    wanted = model.layers if layers is None else tuple(layers)
    if not wanted:
        raise ParameterError("layers must name at least one layer")
    known = model.layers + model.extra_layers
    for layer in wanted:
        if layer not in known:
            raise UnknownNameError(f"layer of {model.card.name}", layer, known)
    return wanted


def _one_pass(sounds: data.Sounds, runs: Sequence["_Run"], group: Processes) -> None:
    """Go through the sounds once for all runs, a chunk at a time.

    Several processes share what goes to the disk: each takes every n-th chunk.
    """
    for run in runs:
        if run.folder is not None:
            run.missing = {s for s in run.missing if s // CHUNK % group.n == group.rank}
    starts = sorted({start for run in runs for start in run.missing})
    title = runs[0].model.card.name if len(runs) == 1 else f"{len(runs)} models"
    for start in tqdm(starts, desc=title, disable=len(starts) < 3, leave=False):
        at_work = [run for run in runs if start in run.missing]
        names = sounds.names[start : start + CHUNK]
        rates = {run.model.sample_rate for run in at_work}
        for portion, waveforms in _ahead(_portions(sounds, names, rates)):
            for run in at_work:
                run.compute(portion, waveforms[run.model.sample_rate])
        for run in at_work:
            run.finish_chunk(start)
    group.wait()  # every chunk is there
    for run in runs:
        run.finish(write=group.is_first)
    group.wait()


def _portions(
    sounds: data.Sounds, names: Sequence[str], rates: Collection[int]
) -> Iterator[tuple[list[str], dict[int, list[np.ndarray]]]]:
    """Names and waveforms by rate of as many sounds at a time as :data:`PORTION` allows."""
    portion, waveforms, seconds = [], {rate: [] for rate in rates}, 0.0
    for name in names:
        portion.append(name)
        for rate in rates:
            waveforms[rate].append(sounds.waveform(name, rate))
        seconds += len(waveforms[rate][-1]) / rate
        if seconds > PORTION or name == names[-1]:
            yield portion, waveforms
            portion, waveforms, seconds = [], {rate: [] for rate in rates}, 0.0


def _ahead(items: Iterator) -> Iterator:
    """Prepare the next item in a thread while the last one is worked on."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


class _Run:
    """One run of a model over sounds: what is computed, what is there, what is stored."""

    def __init__(self, model, sounds, layers, pooling, batch_size, autocast, cache):
        self.model, self.sounds, self.layers, self.pooling = model, sounds, layers, pooling
        self.batch_size, self.autocast = batch_size, autocast
        hashes = [sounds.content_hash(name) for name in sounds]
        self.key = content_key(
            "features", _VERSION, model.identity, layers, pooling, autocast, sounds.names, hashes
        )
        self.folder = cache_dir("features", self.key) if cache else None
        self.missing = set(range(0, len(sounds), CHUNK))
        self._pooled: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        self._measured = 0, 0  # samples of the longest sound so far, bytes that it took
        self._seconds = self._audio_seconds = 0.0

    def is_finished(self) -> bool:
        """Whether there is nothing to do; says what is reused or resumed."""
        name, n_chunks = self.model.card.name, len(self.missing)
        if self.folder is None:
            return False
        if (self.folder / "finished.json").is_file():
            log.info("reused features of %s (%s)", name, self.key)
            return True
        log.info("computed features of %s: none stored under %s", name, self.key)
        self.missing = {start for start in self.missing if not self._marker(start).is_file()}
        if len(self.missing) < n_chunks:
            log.info("resuming: %d of %d chunks are there", n_chunks - len(self.missing), n_chunks)
        return False

    def compute(self, names: Sequence[str], waveforms: Sequence[np.ndarray]) -> None:
        """Pooled activations of some sounds, longest first: what fits once fits from then on."""
        started = time.perf_counter()
        left = sorted(range(len(names)), key=lambda row: len(waveforms[row]), reverse=True)
        done: dict[int, dict[str, np.ndarray]] = {}
        while left:
            size = self._size_of_batch(waveforms[left[0]], names[left[0]])
            rows, left = left[:size], left[size:]
            outputs = self._embed([waveforms[row] for row in rows], [names[row] for row in rows])
            for i, row in enumerate(rows):
                done[row] = {layer: outputs[layer][i] for layer in self.layers}
        for layer, vectors in self._pooled.items():
            vectors.extend(done[row][layer] for row in range(len(names)))
        self._seconds += time.perf_counter() - started
        self._audio_seconds += sum(map(len, waveforms)) / self.model.sample_rate

    def finish_chunk(self, start: int) -> None:
        """Write the chunk that was computed; it counts once its marker is written."""
        if self.folder is None:
            return
        started = time.perf_counter()
        with storage_errors(self.folder):
            for layer, vectors in self._pooled.items():
                values = np.stack(vectors)
                self._stored(layer, values)[start : start + len(values)] = values
                vectors.clear()
        with atomic_path(self._marker(start)) as temporary:
            temporary.write_text("done")
        self._seconds += time.perf_counter() - started

    def finish(self, write: bool) -> None:
        """Say how the features came about, and let one process write it."""
        self._provenance = {
            **self.model.identity,
            "layers": list(self.layers),
            "pooling": self.pooling,
            "autocast": self.autocast,
            "device": str(self.model.device),
            "n_sounds": len(self.sounds),
            "wall_seconds": round(self._seconds, 3),
            "audio_seconds": round(self._audio_seconds, 3),
            "audio_seconds_per_second": round(self._audio_seconds / max(self._seconds, 1e-9), 2),
            "peak_memory_gb": round(peak_memory(self.model.device) / 1e9, 3),
        }
        if self.folder is not None and write:
            with atomic_path(self.folder / "finished.json") as temporary:
                temporary.write_text(json.dumps(self._provenance))

    def features(self) -> Features:
        """Features of a finished run."""
        if self.folder is None:
            arrays = {layer: np.stack(vectors) for layer, vectors in self._pooled.items()}
            provenance = self._provenance
        else:
            arrays = {layer: zarr.open_array(self._path(layer), mode="r") for layer in self.layers}
            provenance = json.loads((self.folder / "finished.json").read_text())
        return Features(arrays, self.sounds.names, self.sounds.categories, self.key, provenance)

    def _size_of_batch(self, waveform: np.ndarray, name: str) -> int:
        """Sounds no longer than this one that fit in one forward pass."""
        if self.batch_size != "auto":
            return self.batch_size
        n_samples, rate = len(waveform), self.model.sample_rate
        longest, n_bytes = self._measured
        if n_samples > longest:
            if n_samples > LONG * rate:
                self._estimate(waveform, name)
            return 1  # and measured on the way
        # Half of what is free: operations need room for themselves, and other processes live too.
        room = available_memory(self.model.device) / 2 / max(n_bytes * n_samples / longest, 1)
        seconds = 16 if self.model.device.type == "cpu" else 128
        return int(np.clip(min(room, seconds * rate / n_samples), 1, CHUNK))

    def _estimate(self, waveform: np.ndarray, name: str) -> None:
        """Refuse a long sound that would not fit, going by how the memory of excerpts grows."""
        rate, device = self.model.sample_rate, self.model.device
        half, whole = (
            memory_of(partial(self._embed, [waveform[: seconds * rate]], [name]), device)[1]
            for seconds in (LONG // 2, LONG)
        )
        growth = np.clip(math.log2(max(whole, 1) / max(half, 1)), 1, 2)
        seconds = len(waveform) / rate
        require_memory(
            whole * (seconds / LONG) ** growth,
            device,
            f"{self.model.card.name}: sound {name!r} ({seconds:.0f} s)",
            "Cut the sound into shorter ones, ask for fewer layers, or use a device with more "
            "memory.",
        )

    def _embed(self, waveforms: list[np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """Pooled activations of one batch, {layer: (n_sounds, n_units)}."""
        lengths, device = [len(waveform) for waveform in waveforms], self.model.device
        padded = torch.zeros(len(waveforms), max(lengths))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)

        def forward() -> dict[str, np.ndarray]:
            with torch.autocast(device.type, enabled=self.autocast):
                outputs = self.model.embed(padded, lengths, self.layers, names)
            return {layer: _pool(outputs.pop(layer), self.pooling) for layer in self.layers}

        try:
            if max(lengths) <= self._measured[0] or self.batch_size != "auto":
                return forward()
            pooled, n_bytes = memory_of(forward, device)
        except torch.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"{self.model.card.name}: {len(names)} sounds of up to "
                f"{max(lengths) / self.model.sample_rate:.1f} s do not fit in the memory of "
                f"{device}. Choose a smaller batch_size, fewer layers, or device='cpu'."
            ) from error
        self._measured = max(lengths), n_bytes
        return pooled

    def _stored(self, layer: str, values: np.ndarray) -> zarr.Array:
        shape, chunks = (len(self.sounds), values.shape[1]), (CHUNK, values.shape[1])
        try:
            return zarr.create_array(self._path(layer), shape=shape, chunks=chunks, dtype="float32")
        except zarr.errors.ContainsArrayError:  # made for an earlier chunk, or by another process
            return zarr.open_array(self._path(layer), mode="r+")

    def _path(self, layer: str) -> Path:
        return self.folder / "arrays" / f"layer-{self.layers.index(layer):03d}"

    def _marker(self, start: int) -> Path:
        return self.folder / f"chunk-{start:06d}.done"


def _pool(activations: torch.Tensor, pooling: str) -> np.ndarray:
    """Frames to one vector: (batch, frame, *units) to (batch, n_units); NaN is padding."""
    if pooling == "mean":
        pooled = activations.float().nanmean(dim=1)
    else:
        pooled = activations.float().nan_to_num(nan=-torch.inf).amax(dim=1)
    return pooled.flatten(1).cpu().numpy()
