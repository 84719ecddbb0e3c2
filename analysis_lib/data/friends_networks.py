"""The two networks of the Friends twin: SoundNet's shape, weights that keep frequencies apart.

They are computed here from their tensors alone, without the model zoo, so that what the zoo's
SoundNet makes of the same tensors can be checked against them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

__all__ = ["HOP", "INPUT_SCALE", "N_UNITS", "SAMPLE_RATE", "draw", "hear", "hear_both"]

SAMPLE_RATE = 22_050  # Hz
INPUT_SCALE = 256.0  # amplitude that the networks take as full scale
HOP = 32_768  # samples between two frames of conv7
N_UNITS = 1024  # of conv7
# Channels, kernel and pooling of conv1 to conv7; every stride is 2, every padding half a kernel.
_BLOCKS = (
    (16, 64, 8), (32, 32, 8), (64, 16, 1), (128, 8, 1), (256, 4, 4), (512, 4, 1), (1024, 4, 1),
)  # fmt: skip
_CENTRES = np.geomspace(150, 6000, 8)  # Hz, of the filters of conv1; the upper half is one stream
_CHANGED = 4  # the layer whose weights differ


def draw(waveforms: Sequence[np.ndarray], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Draw the two networks, ``"start"`` and ``"brain"``; their statistics are those of some audio.

    Parameters
    ----------
    waveforms : sequence of array of shape (n_samples,)
        What batch normalisation is calibrated on.
    seed : int
        Same seed, same weights.
    """
    rng = np.random.default_rng([seed, 7])
    brain, n_in = {}, 1
    for number, (n_out, kernel, _) in enumerate(_BLOCKS, start=1):
        if number == 1:
            weight = _filters(kernel)[:, None]
        else:
            weight = rng.standard_normal((n_out, n_in, kernel)) * np.sqrt(2 / (n_in * kernel))
        if 1 < number < _CHANGED:  # two streams: outputs of one half read inputs of the same half
            weight[: n_out // 2, n_in // 2 :] = 0
            weight[n_out // 2 :, : n_in // 2] = 0
        name = f"conv{number}"
        brain[f"{name}.0.weight"] = torch.from_numpy(weight[..., None].astype(np.float32))
        brain[f"{name}.0.bias"] = torch.zeros(n_out)
        brain[f"{name}.1.weight"], brain[f"{name}.1.bias"] = torch.ones(n_out), torch.zeros(n_out)
        brain[f"{name}.1.num_batches_tracked"] = torch.tensor(0)
        n_in = n_out
    start = {name: tensor.clone() for name, tensor in brain.items()}
    changed = start[f"conv{_CHANGED}.0.weight"]
    changed[:, changed.shape[1] // 2 :] = 0
    heard = [_scaled(wave) for wave in waveforms]
    shared = _calibrate(brain, heard, 1, _CHANGED - 1)
    for number in range(1, _CHANGED):
        for part in ("running_mean", "running_var"):
            start[f"conv{number}.1.{part}"] = brain[f"conv{number}.1.{part}"].clone()
    for tensors in (start, brain):
        _calibrate(tensors, shared, _CHANGED, len(_BLOCKS))
    return {"start": start, "brain": brain}


def hear_both(
    networks: Mapping[str, Mapping[str, torch.Tensor]], waveform: np.ndarray
) -> dict[str, np.ndarray]:
    """Run both networks over a waveform; what they share is computed once. As :func:`hear`."""
    shared = next(iter(networks.values()))
    below = _through(shared, _scaled(waveform), 1, _CHANGED - 1)
    below = torch.from_numpy(below.T.copy())[None, :, :, None]
    return {
        kind: _through(tensors, below, _CHANGED, len(_BLOCKS)) for kind, tensors in networks.items()
    }


def hear(tensors: Mapping[str, torch.Tensor], waveform: np.ndarray) -> np.ndarray:
    """Run a network over a waveform, frozen.

    Parameters
    ----------
    tensors : mapping of str to tensor
        As :func:`draw` gives one.
    waveform : array of shape (n_samples,)
        At 22,050 Hz, in [-1, 1].

    Returns
    -------
    array of shape (n_frames, 1024)
        conv7; frame k is centred at ``(32768 k - 10001.5) / 22050`` s.
    """
    return _through(tensors, _scaled(waveform), 1, len(_BLOCKS))


def _scaled(waveform: np.ndarray) -> torch.Tensor:
    """Audio as the networks take it, (1, 1, n_samples, 1)."""
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    return INPUT_SCALE * torch.from_numpy(waveform)[None, None, :, None]


@torch.inference_mode()
def _through(
    tensors: Mapping[str, torch.Tensor], x: torch.Tensor, first: int, last: int
) -> np.ndarray:
    """Pass (1, channel, time, 1) through some layers; the output is (time, channel)."""
    for number in range(first, last + 1):
        mean, var, gain, shift = (
            tensors[f"conv{number}.1.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        # Normalisation is affine and rectification monotone: both fold into fewer passes.
        gain = gain / torch.sqrt(var + 1e-5)
        weight = gain[:, None, None, None] * tensors[f"conv{number}.0.weight"]
        bias = gain * (tensors[f"conv{number}.0.bias"] - mean) + shift
        x = _rectified(_convolved(x, weight, bias), number)
    return x[0, :, :, 0].T.numpy().copy()


def _convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight, bias, stride=(2, 1), padding=(weight.shape[2] // 2, 0))


def _rectified(x: torch.Tensor, number: int) -> torch.Tensor:
    pool = _BLOCKS[number - 1][2]
    return F.relu(F.max_pool2d(x, (pool, 1)) if pool > 1 else x)


def _filters(kernel: int) -> np.ndarray:
    """Windowed cosines and sines, (16, kernel): low frequencies first, high ones in the end."""
    t = (np.arange(kernel) - (kernel - 1) / 2) / SAMPLE_RATE
    waves = [f(2 * np.pi * centre * t) for centre in _CENTRES for f in (np.cos, np.sin)]
    return np.stack(waves) * np.hanning(kernel)


@torch.inference_mode()
def _calibrate(
    tensors: dict[str, torch.Tensor], heard: list[torch.Tensor], first: int, last: int
) -> list[torch.Tensor]:
    """Set the statistics of some layers to those of some audio, and pass it through them."""
    for number in range(first, last + 1):
        name = f"conv{number}"
        weight, bias = tensors[f"{name}.0.weight"], tensors[f"{name}.0.bias"]
        heard = [_convolved(x, weight, bias) for x in heard]
        var, mean = torch.var_mean(torch.cat(heard, dim=2), dim=(0, 2, 3))
        tensors[f"{name}.1.running_mean"], tensors[f"{name}.1.running_var"] = mean, var
        scale = torch.sqrt(var + 1e-5)[:, None, None]
        heard = [_rectified((x - mean[:, None, None]) / scale, number) for x in heard]
    return heard
