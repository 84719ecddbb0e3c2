"""From a model and sounds to features: streamed, pooled over time, cached by content, resumable."""

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from tqdm.auto import tqdm

from . import data, models
from .device import available_memory, resolve_device
from .errors import AudioError, ParameterError, UnknownNameError
from .paths import atomic_path, cache_dir, content_key, storage_errors

__all__ = ["Features", "extract", "features"]

log = logging.getLogger("brainbook")

POOLINGS = ("mean", "max")
CHUNK = 32  # sounds per stored chunk, and so the most that a killed run loses
_VERSION = 1  # raised when pooling or storage compute something else


class Features(Mapping):
    """Activations of one model for a set of sounds, one array per layer.

    ``features["layer"]`` is a DataArray ``(sound, unit)`` of float32, read when asked for, so
    that a model's layers need not fit in memory together.

    Attributes
    ----------
    key : str
        Names the content: model, weights, layers, pooling and every sound.
    names, categories : tuple of str
        Of the sounds, in order.
    provenance : dict
        How the features came about: model, device, seconds of computing per second of audio.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        names: Collection[str],
        categories: Collection[str],
        key: str,
        provenance: Mapping | None = None,
    ):
        self._arrays = arrays
        self.names, self.categories = tuple(names), tuple(categories)
        self.key = key
        self.provenance = dict(provenance or {})

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, first to last."""
        return tuple(self._arrays)

    def __getitem__(self, layer: str) -> xr.DataArray:
        if layer not in self._arrays:
            raise UnknownNameError("layer", layer, self._arrays)
        return xr.DataArray(
            np.asarray(self._arrays[layer]),
            dims=("sound", "unit"),
            coords={
                "sound": np.array(self.names, dtype=object),
                "category": ("sound", np.array(self.categories, dtype=object)),
            },
            name=layer,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def n_units(self, layer: str) -> int:
        """Count the units of a layer without reading it."""
        return int(self._arrays[layer].shape[1])

    def __repr__(self) -> str:
        return f"Features({len(self.names)} sounds, layers {', '.join(self.layers)})"


def features(source: str, sounds: data.Sounds, **options) -> Features:
    """Features by the name of their source.

    Parameters
    ----------
    source : str
        A model (anything :func:`analysis_lib.models.load` takes), or ``"planted"``: the true
        features that drive the simulated cortex.
    sounds : Sounds
        What to represent.
    **options
        Of :func:`extract`.
    """
    if source == "planted":
        layers = data.planted_features(sounds)
        hashes = [sounds.content_hash(name) for name in sounds]
        key = content_key("planted", _VERSION, hashes)
        return Features(layers, sounds.names, sounds.categories, key, {"model": "planted"})
    return extract(source, sounds, **options)


def extract(
    model: str | models.AudioModel,
    sounds: data.Sounds,
    layers: Collection[str] | None = None,
    pooling: str = "mean",
    device: str = "auto",
    batch_size: int | str = "auto",
    cache: bool = True,
) -> Features:
    """Run a model over sounds and pool every layer over time.

    Sounds are streamed in batches and written as they come, so memory does not grow with their
    number. A run that was killed goes on where it stopped; a finished one is not run again.

    Parameters
    ----------
    model : str or AudioModel
        A name for :func:`analysis_lib.models.load`, or a loaded model.
    sounds : Sounds
        What to represent; resampled to the model's rate.
    layers : collection of str, optional
        By default all of the model's.
    pooling : {"mean", "max"}
        How frames become one vector per sound.
    device : str
        See :func:`analysis_lib.device.resolve_device`; a loaded model stays where it is.
    batch_size : int or "auto"
        Sounds per forward pass; "auto" fits the batch to the memory that is free.
    cache : bool
        Keep the features on disk, by content, and use them when they are there.

    Returns
    -------
    Features

    Raises
    ------
    AudioError
        Naming the sound that cannot be represented.
    StorageError
        When the cache cannot be written or the disk is full.
    """
    if pooling not in POOLINGS:
        raise UnknownNameError("pooling", pooling, POOLINGS)
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise ParameterError(f"batch_size must be 'auto' or a positive integer, not {batch_size!r}")
    if len(sounds) == 0:
        raise ParameterError("there are no sounds to extract features from")
    if isinstance(model, str):
        model = models.load(model, device=device)
    elif device != "auto":
        model.to(resolve_device(device))
    wanted = model.layers if layers is None else tuple(layers)
    if not wanted:
        raise ParameterError("layers must name at least one layer")
    for layer in wanted:
        if layer not in model.layers:
            raise UnknownNameError(f"layer of {model.card.name}", layer, model.layers)
    run = _Extraction(model, sounds, wanted, pooling, batch_size)
    if not cache:
        return run.in_memory()
    folder = cache_dir("features", run.key)
    finished = folder / "finished.json"
    if finished.is_file():
        log.info("reused features of %s (%s)", model.card.name, run.key)
    else:
        log.info("computed features of %s: none stored under %s", model.card.name, run.key)
        run.to_folder(folder)
    arrays = {
        layer: zarr.open_array(_array_path(folder, wanted, layer), mode="r") for layer in wanted
    }
    provenance = json.loads(finished.read_text())
    return Features(arrays, sounds.names, sounds.categories, run.key, provenance)


class _Extraction:
    """One run of a model over sounds."""

    def __init__(self, model, sounds, layers, pooling, batch_size):
        self.model, self.sounds, self.layers, self.pooling = model, sounds, layers, pooling
        self.batch_size = batch_size
        hashes = [sounds.content_hash(name) for name in sounds]
        self.key = content_key(
            "features", _VERSION, model.identity, layers, pooling, sounds.names, hashes
        )

    def in_memory(self) -> Features:
        """Compute everything at once and keep it in memory."""
        started = time.perf_counter()
        chunks = [self._chunk(start) for start in self._starts()]
        arrays = {
            layer: np.concatenate([chunk[layer] for chunk in chunks]) for layer in self.layers
        }
        provenance = self._provenance(time.perf_counter() - started)
        return Features(arrays, self.sounds.names, self.sounds.categories, self.key, provenance)

    def to_folder(self, folder: Path) -> None:
        """Compute the chunks that are not there yet; a chunk counts once its marker is written."""
        markers = {start: folder / f"chunk-{start:06d}.done" for start in self._starts()}
        missing = [start for start, marker in markers.items() if not marker.is_file()]
        if len(missing) < len(markers):
            log.info(
                "resuming: %d of %d chunks are there", len(markers) - len(missing), len(markers)
            )
        started = time.perf_counter()
        quiet = len(missing) < 3
        for start in tqdm(missing, desc=self.model.card.name, disable=quiet, leave=False):
            pooled = self._chunk(start)
            with storage_errors(folder):
                for layer, values in pooled.items():
                    array = self._array(folder, layer, values)
                    array[start : start + len(values)] = values
            with atomic_path(markers[start]) as temporary:
                temporary.write_text("done")
        with atomic_path(folder / "finished.json") as temporary:
            temporary.write_text(json.dumps(self._provenance(time.perf_counter() - started)))

    def _starts(self) -> range:
        return range(0, len(self.sounds), CHUNK)

    def _array(self, folder: Path, layer: str, values: np.ndarray) -> zarr.Array:
        path = _array_path(folder, self.layers, layer)
        try:
            return zarr.create_array(
                path,
                shape=(len(self.sounds), values.shape[1]),
                chunks=(CHUNK, values.shape[1]),
                dtype="float32",
            )
        except zarr.errors.ContainsArrayError:  # made for an earlier chunk, or by another process
            return zarr.open_array(path, mode="r+")

    def _chunk(self, start: int) -> dict[str, np.ndarray]:
        """Pooled activations of one chunk of sounds, {layer: (n_sounds, n_units)}."""
        names = self.sounds.names[start : start + CHUNK]
        rate = self.model.sample_rate
        waveforms = [self.sounds.waveform(name, rate) for name in names]
        size = self._size_of_batch(max(map(len, waveforms)))
        batches = [
            self._batch(names[i : i + size], waveforms[i : i + size])
            for i in range(0, len(names), size)
        ]
        return {layer: np.concatenate([b[layer] for b in batches]) for layer in self.layers}

    def _batch(self, names, waveforms) -> dict[str, np.ndarray]:
        lengths = [len(waveform) for waveform in waveforms]
        padded = torch.zeros(len(waveforms), max(lengths))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(waveform)
        try:
            outputs = self.model.embed(padded, lengths, self.layers)
        except AudioError as error:
            raise AudioError(f"{error} The batch was: {', '.join(names)}.") from error
        return {layer: self._pooled(outputs[layer]) for layer in self.layers}

    def _pooled(self, activations: torch.Tensor) -> np.ndarray:
        """Frames to one vector: (batch, frame, *units) to (batch, n_units); NaN is padding."""
        if self.pooling == "mean":
            pooled = activations.nanmean(dim=1)
        else:
            pooled = activations.nan_to_num(nan=-torch.inf).amax(dim=1)
        return pooled.flatten(1).float().cpu().numpy()

    def _size_of_batch(self, n_samples: int) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        # Activations take some hundred times the waveform's bytes in the deepest networks here;
        # 2,000 times keeps a batch well inside what is free.
        room = available_memory(self.model.device) / (4 * n_samples * 2000)
        seconds = 16 if self.model.device.type == "cpu" else 128
        return int(np.clip(min(room, seconds * self.model.sample_rate / n_samples), 1, CHUNK))

    def _provenance(self, seconds: float) -> dict:
        return {
            **self.model.identity,
            "layers": list(self.layers),
            "pooling": self.pooling,
            "device": str(self.model.device),
            "n_sounds": len(self.sounds),
            "wall_seconds": round(seconds, 3),
        }


def _array_path(folder: Path, layers: Collection[str], layer: str) -> Path:
    return folder / "arrays" / f"layer-{list(layers).index(layer):03d}"
