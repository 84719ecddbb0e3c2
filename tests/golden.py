"""Golden vectors: the deterministic weights and inputs they were measured with.

The files under ``tests/contracts`` hold, per model family, the names and shapes of the published
tensors (``manifest_*.csv``) and values of the original implementations with synthetic weights
(``golden_*.json``). The rules that make weights and inputs are restated here.
"""

import csv
import json
from pathlib import Path

import numpy as np
import torch

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


def strong_checkpoint(family, member, keep=lambda row: True):
    """Published tensors of a member by the strong rule, by published name.

    Tensors that the original computes (front-end tables) and integers are left out. A group of
    tied tensors takes the value of its last name, as the original's does.
    """
    rows = [
        row
        for row in manifest(family, member)
        if row["dtype"] == "float32" and "computed" not in row["role"] and keep(row)
    ]
    last = {}
    for row in rows:
        last[row.get("tied_to") or row["name"]] = row["name"]
    tensors = {}
    for row in rows:
        source = last[row.get("tied_to") or row["name"]]
        tensors[row["name"]] = strong_tensor(row["name"], row["shape"], phase(source))
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
