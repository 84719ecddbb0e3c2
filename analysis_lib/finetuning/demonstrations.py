"""Two flaws of the published fine-tuning, made to show: a frozen network that moves, wrong times.

Neither needs brain data.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
import xarray as xr

from ..errors import DataError, ParameterError
from ..models.soundnet import BLOCKS, SoundNet8
from .settings import LAYERS

__all__ = ["batch_norm_drift", "timestamp_error"]

# The published HEAR wrapper: sound at 22,000 Hz, conv4 without its first five frames and its last.
WRAPPER_RATE = 22_000
WRAPPER_SKIPPED = 5
WRAPPER_FIRST, WRAPPER_STEP = 0.033455, 0.040727  # s, as it claims them
CONV4_STEP, CONV4_FIRST = 1024, -273.5  # samples


def batch_norm_drift(
    network: SoundNet8,
    segments: Sequence[np.ndarray],
    probes: Sequence[np.ndarray],
    input_scale: float = 256.0,
    trained_scale: float = 256.0,
    n_passes: int = 1,
) -> xr.Dataset:
    """Pass segments through a "frozen" network in training mode, and watch it change.

    No weight is touched and no gradient computed: only the running statistics of batch
    normalisation follow what they see, as in a baseline whose layers were meant to be frozen.

    Parameters
    ----------
    network : SoundNet8
        Left as it is; a copy moves.
    segments : sequence of array of shape (n_samples,)
        Sound at 22,050 Hz in [-1, 1], one for each step.
    probes : sequence of array of shape (n_samples,)
        Sounds whose embedding (the time average of conv7, in evaluation mode) is followed.
    input_scale : float
        Factor on ``segments``, and on ``probes`` in the copy. The published training used 1.
    trained_scale : float
        Factor that the weights were learned with; embeddings at this scale, before any step, are
        what later ones are compared with.
    n_passes : int
        How often the segments are gone through.

    Returns
    -------
    Dataset
        ``mean_shift`` (step, layer): change of the running means in units of the first running
        standard deviation, root mean square over channels; ``variance_ratio`` (step, layer):
        geometric mean over channels of new to first running variance; ``embedding_change`` (step,
        probe): distance of the embedding from the original, relative to its length. Step 0 is
        before anything was passed.

    Raises
    ------
    ParameterError
        When there is nothing to pass, or nothing to probe.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> seed = torch.manual_seed(0)
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 2))
    >>> noise = np.random.default_rng(0).standard_normal((3, 40_000))
    >>> drift = finetuning.batch_norm_drift(network, noise[:2], noise[2:])
    >>> (drift["embedding_change"] > 0).values.ravel()
    array([False,  True,  True])
    """
    if not len(segments) or not len(probes):
        raise ParameterError("batch_norm_drift takes at least one segment and one probe")
    moving, still = deepcopy(network), deepcopy(network)
    norms = {layer: moving.get_submodule(layer)[1] for layer in LAYERS}
    first = {
        layer: (norm.running_mean.clone(), norm.running_var.clone())
        for layer, norm in norms.items()
    }
    original = [_embedding(still, probe, trained_scale) for probe in probes]
    shifts, ratios, changes = [], [], []

    def look() -> None:
        shifts.append([])
        ratios.append([])
        for layer, norm in norms.items():
            mean, variance = first[layer]
            moved = (norm.running_mean - mean) / (variance + norm.eps).sqrt()
            ratio = (norm.running_var + norm.eps) / (variance + norm.eps)
            shifts[-1].append(float(moved.square().mean().sqrt()))
            ratios[-1].append(float(ratio.log().mean().exp()))
        now = [_embedding(moving, probe, input_scale) for probe in probes]
        changes.append(
            [float((a - b).norm() / b.norm()) for a, b in zip(now, original, strict=True)]
        )

    look()
    for _ in range(n_passes):
        for segment in segments:
            moving.train()
            _conv7(moving, segment, input_scale)
            look()
    return xr.Dataset(
        {
            "mean_shift": (("step", "layer"), shifts),
            "variance_ratio": (("step", "layer"), ratios),
            "embedding_change": (("step", "probe"), changes),
        },
        {"step": np.arange(len(shifts)), "layer": list(LAYERS)},
    )


def timestamp_error(seconds: float) -> xr.Dataset:
    """Compare the times that the published HEAR wrapper gives its frames with the true ones.

    The wrapper claims frames of conv4 every 40.7 ms; they come every 46.5 ms. Tasks that ask
    when something happens (DCASE 2016, Maestro) read the answer at these times.

    Parameters
    ----------
    seconds : float
        Length of the sound.

    Returns
    -------
    Dataset
        ``claimed``, ``true`` and ``error`` (true minus claimed), in seconds, by ``frame``.

    Raises
    ------
    DataError
        When the sound is too short for a single frame.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> error = finetuning.timestamp_error(10.0)["error"]
    >>> error.values[[0, -1]].round(2)
    array([0.19, 1.4 ])
    """
    n_frames = _conv4_frames(int(seconds * WRAPPER_RATE)) - WRAPPER_SKIPPED - 1
    if n_frames < 1:
        raise DataError(f"a sound of {seconds} s gives the published wrapper no frame at all")
    i = np.arange(n_frames)
    claimed = WRAPPER_FIRST + WRAPPER_STEP * i
    true = (CONV4_STEP * (i + WRAPPER_SKIPPED) + CONV4_FIRST) / WRAPPER_RATE
    return xr.Dataset(
        {
            "claimed": ("frame", claimed),
            "true": ("frame", true),
            "error": ("frame", true - claimed),
        },
        {"frame": i},
    )


def _conv4_frames(n_samples: int) -> int:
    """Frames of conv4 for a sound."""
    for _, kernel, padding, pool in BLOCKS[:4]:
        n_samples = ((n_samples + 2 * padding - kernel) // 2 + 1) // pool
    return n_samples


@torch.no_grad()
def _conv7(network: SoundNet8, waveform: np.ndarray, scale: float) -> torch.Tensor:
    device = next(network.parameters()).device
    wave = torch.from_numpy(np.asarray(waveform, dtype=np.float32)).to(device)
    stages = network.stages(scale * wave[None])
    return next(output for name, output in stages if name == LAYERS[-1])[0]


def _embedding(network: SoundNet8, waveform: np.ndarray, scale: float) -> torch.Tensor:
    return _conv7(network.eval(), waveform, scale).mean(dim=1)
