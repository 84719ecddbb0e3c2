"""Golden vectors: the deterministic weights and inputs they were measured with.

The files under ``tests/contracts`` hold, per model family, the names and shapes of the published
tensors (``manifest_*.csv``) and values of the original implementations with synthetic weights
(``golden_*.json``). The rules that make weights and inputs are restated here.
"""

import csv
import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

CONTRACTS = Path(__file__).with_name("contracts")


def chirp(sample_rate, seconds, seed):
    """Input of the golden files: a chirp, a tone and seeded noise, float32."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).standard_normal(t.size)
    wave = 0.1 * np.sin(2 * np.pi * (200 * t + 300 * t**2))
    wave += 0.03 * np.sin(2 * np.pi * 1333 * t) + 0.02 * noise
    return torch.from_numpy(wave.astype(np.float32))


def phase(name):
    return sum(name.encode()) % 997


def _splitmix_uniform(n, p):
    with np.errstate(over="ignore"):
        z = np.arange(n, dtype=np.uint64) + np.uint64(p) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def strong_tensor(name, shape, p=None):
    """One tensor by the strong rule ("rule B")."""
    p = phase(name) if p is None else p
    n = int(np.prod(shape))
    i = np.arange(n)
    if name.endswith("running_var"):
        values = 1 + 0.2 * np.sin(0.3 * i + p) ** 2
    elif name.endswith("running_mean"):
        values = 0.05 * np.sin(0.3 * i + p)
    elif len(shape) >= 2:
        values = np.sqrt(3 / np.prod(shape[1:])) * (2 * _splitmix_uniform(n, p) - 1)
    elif len(shape) == 1 and name.endswith("weight"):
        values = 1 + 0.05 * np.sin(0.3 * i + p)
    elif len(shape) == 0:
        values = np.array([1 + 0.05 * np.sin(p)])
    else:
        values = 0.05 * np.sin(0.3 * i + p)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def manifest(family, member):
    """Rows of a manifest, with ``shape`` as a tuple."""
    with open(CONTRACTS / family / f"manifest_{member}.csv") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["shape"] = tuple(int(n) for n in row["shape"].split("x") if n.isdigit())
    return rows


def _is_table(row):
    """Whether the original computes a tensor instead of learning it."""
    return "computed" in row["role"] and row.get("kind", "buffer") == "buffer"


def strong_checkpoint(family, member, keep=lambda row: True, phase_name=lambda name: name):
    """Published tensors of a member by the strong rule, by published name.

    Tensors that the original computes (front-end tables) and integers are left out. A group of
    tied tensors takes the value of its last name, as the original's does.
    ``phase_name`` turns a name of the manifest into the one that the weight rule was given.
    """
    rows = [
        row
        for row in manifest(family, member)
        if row["dtype"] == "float32" and not _is_table(row) and keep(row)
    ]
    last = {}
    for row in rows:
        last[row.get("tied_to") or row["name"]] = row["name"]
    tensors = {}
    for row in rows:
        source = last[row.get("tied_to") or row["name"]]
        p = phase(phase_name(source))
        tensors[row["name"]] = strong_tensor(row["name"], row["shape"], p)
    return tensors


def golden(family, file):
    return json.loads((CONTRACTS / family / file).read_text())


def worst_deviation(output, tap):
    """Largest deviation of a layer's time-averaged vector, in units of its std.

    ``output`` has shape (1, frame, *units); ``tap`` is one entry of a golden file.
    """
    vector = output[0].double().mean(dim=0).reshape(-1).numpy()
    prefix = "tmean_" if "tmean_first8" in tap else ""
    index = tap.get("strided_index") or [int((k + 0.5) * vector.size / 8) for k in range(8)]
    scale = tap.get("vector_std") or tap["std"]
    first = np.abs(vector[:8] - tap[prefix + "first8"]).max()
    strided = np.abs(vector[index] - tap[prefix + "strided8"]).max()
    return max(first, strided) / scale


def frame_deviation(output, tap):
    """Largest deviation of the first and last frame, in units of the layer's std.

    ``output`` has shape (1, frame, unit). Unlike an average, it notices a wrong order in time.
    """
    first, last = output[0, 0, :8].numpy(), output[0, -1, :8].numpy()
    difference = [first - tap["frame0_first8"], last - tap["frameLast_first8"]]
    return np.abs(difference).max() / tap["std"]


def save_checkpoint(tensors, path):
    """Write tensors as a safetensors file, copies of tied ones included."""
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    return path


def placeholders(family, member):
    """Published tensors without storage of their own: names and shapes only."""
    return {row["name"]: torch.zeros(()).expand(row["shape"]) for row in manifest(family, member)}


def disagreements(model, family, member):
    """Names and shapes in which a network and the published tensors it needs differ."""
    published = model.from_published(placeholders(family, member))
    network = {(name, tuple(t.shape)) for name, t in model.network.state_dict().items()}
    needed = {
        (name, tuple(t.shape))
        for name, t in published.items()
        if not any(re.fullmatch(pattern, name) for pattern in model.unused_tensors)
    }
    return network ^ needed


def shapes_on_meta(model):
    """Shapes that a network without storage gives for two sounds of 2 s.

    Fails where the model makes a tensor on another device than its network's.
    """
    waveforms = torch.empty(2, 2 * model.sample_rate, device="meta")
    outputs = model._forward(waveforms, model.layers + model.extra_layers)
    assert outputs.keys() == set(model.layers + model.extra_layers)
    return {tuple(output.shape) for output in outputs.values()}


def padded_batch(waves):
    """Waveforms (batch, time) with NaN past each sound's end, and their lengths."""
    lengths = [wave.numel() for wave in waves]
    batch = torch.full((len(waves), max(lengths)), float("nan"))
    for row, wave in zip(batch, waves, strict=True):
        row[: wave.numel()] = wave
    return batch, lengths


def batch_error(model, waves, layers=None):
    """Largest deviation of a sound in a ragged batch from the same sound alone."""
    together = model.embed(*padded_batch(waves), layers=layers)
    worst = 0.0
    for row, wave in enumerate(waves):
        for layer, alone in model.embed(wave[None], layers=layers).items():
            n_frames = alone.shape[1]
            difference = together[layer][row, :n_frames] - alone[0]
            worst = max(worst, float(difference.abs().max() / alone.std()))
            assert together[layer][row, n_frames:].isnan().all()
    return worst


def assert_front_end(values, block, tolerance):
    """Compare a spectrogram (frame, value) with a front-end block of a golden file."""
    values = values.double().numpy()
    middle = block["midframe_index"]
    assert list(values.shape) == block["shape"]
    np.testing.assert_allclose(values.mean(), block["mean"], atol=tolerance / 10)
    np.testing.assert_allclose(values.std(), block["std"], atol=tolerance / 10)
    for key, part in {
        "frame0_first8": values[0, :8],
        "frame0_last8": values[0, -8:],
        "midframe_first8": values[middle, :8],
        "lastframe_last8": values[-1, -8:],
    }.items():
        np.testing.assert_allclose(part, block[key], atol=tolerance, err_msg=key)
