"""The features of one model for a set of sounds."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import xarray as xr

from .errors import UnknownNameError

__all__ = ["Features"]


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
        How the features came about: model, device, versions of weights and code, and for what
        the last run computed: ``wall_seconds`` of the model's work (reading the sounds not
        included), ``audio_seconds``, their ratio ``audio_seconds_per_second``, and
        ``peak_memory_gb`` of the process, or of the CUDA device.

    Examples
    --------
    >>> from analysis_lib import data, extraction
    >>> features = extraction.extract("mfcc", data.simulated_sounds(1), device="cpu")
    >>> features
    Features(6 sounds, layers mfcc)
    >>> features[features.layers[0]].dims, features.n_units(features.layers[0])
    (('sound', 'unit'), 40)
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
