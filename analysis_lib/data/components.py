"""The six response components of auditory cortex of Norman-Haignere et al. (2015)."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import scipy
import xarray as xr

from ..errors import AlignmentError
from . import fetch
from .natural_sounds import stimulus_number

__all__ = ["COMPONENTS", "components", "reconstructed_voxels"]

# The column order of the published matrix, under the names the book uses.
COMPONENTS: Mapping[str, str] = MappingProxyType(
    {
        "lowfreq": "Low frequency",
        "highfreq": "High frequency",
        "envsounds": "Broadband",
        "pitch": "Pitch",
        "speech": "Speech",
        "music": "Music",
    }
)


def components() -> xr.DataArray:
    """Response of each component to each of the 165 sounds, (sound, target) of 165 × 6."""
    content = scipy.io.loadmat(fetch.path("natsound165", "components.mat"), simplify_cells=True)
    return _named(content["R"], content, list(COMPONENTS.values()), "component")


def reconstructed_voxels() -> xr.DataArray:
    """Voxels rebuilt from components and weights, (sound, target) of 165 × 11,065, rank 6."""
    content = scipy.io.loadmat(fetch.path("natsound165", "components.mat"), simplify_cells=True)
    rebuilt = content["R"] @ content["W"]
    voxels = np.arange(rebuilt.shape[1])
    array = _named(rebuilt, content, voxels, "voxel").assign_attrs(rank=6)
    weights = xr.DataArray(
        content["W"],
        dims=("component", "target"),
        coords={"component": list(COMPONENTS.values()), "target": voxels},
    )
    dominant = np.array(list(COMPONENTS.values()), dtype=object)[weights.argmax("component").data]
    return array.assign_coords(dominant_component=("target", dominant))


def _named(values: np.ndarray, content: Mapping, targets, kind: str) -> xr.DataArray:
    """Label rows by sound and put them in ascending stimulus order (the file's is by category)."""
    labels = [str(label) for label in content["component_names"]]
    if labels != list(COMPONENTS):
        raise AlignmentError(f"components.mat lists components {labels}, expected {[*COMPONENTS]}")
    names = [str(name) for name in content["stim_names"]]
    array = xr.DataArray(
        values,
        dims=("sound", "target"),
        coords={
            "sound": np.array(names, dtype=object),
            "category": ("sound", np.array(content["category_labels"], dtype=object)),
            "target": targets,
            "kind": ("target", np.full(values.shape[1], kind, dtype=object)),
        },
        name="response",
        attrs={"dataset": "nh2015", "source": "natsound165-neuron2015 components.mat"},
    )
    return array.sel(sound=sorted(names, key=stimulus_number))
