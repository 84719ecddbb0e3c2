"""Nested ridge regression with a layer and a penalty per voxel: how fast, against what.

    python benchmarks/encoding.py [--voxels 7694] [--device auto] [--plot costs.png]

Side by side in one run, medians of several repetitions:

* ours: ``encoding.nested_cv_ridge``, 12 layers (768 to 4,096 units), 8 penalties, 5 x 4 folds;
* the per-voxel loop: the same protocol with scikit-learn, a fit per voxel, fold, layer and
  penalty, timed on a stated sample of voxels and extrapolated;
* himalaya's KernelRidgeCV on the same grid of penalties and inner folds, one layer at a time
  (it cannot choose the layer and the penalty together, so it does less);
* the floor: the matrix products that the base grid cannot do without, and nothing else.
"""

import argparse
import json
import platform
import statistics
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import torch
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit
from timing import alone

from analysis_lib import encoding, figures
from analysis_lib.device import peak_memory, resolve_device

matplotlib.use("Agg")
N_SOUNDS, N_FOLDS = 165, 5
ALPHAS = encoding.PAPER_ALPHAS


def make_data(n_layers, n_voxels, seed=0):
    """Layers with a power-law spectrum, voxels that follow one layer each, with noise."""
    rng = np.random.default_rng(seed)
    layers = {}
    for i, n_units in enumerate(np.linspace(768, 4096, n_layers).astype(int)):
        scores = rng.standard_normal((N_SOUNDS, N_SOUNDS)) * np.arange(1, N_SOUNDS + 1) ** -0.7
        loadings = rng.standard_normal((N_SOUNDS, n_units))
        layers[f"layer-{i:02d}"] = (scores @ loadings).astype(np.float32)
    each = -(-n_voxels // n_layers)
    signal = [x @ rng.standard_normal((x.shape[1], each)) for x in layers.values()]
    signal = np.concatenate([part / part.std(axis=0) for part in signal], axis=1)[:, :n_voxels]
    noise = rng.uniform(0.5, 4, n_voxels) * rng.standard_normal(signal.shape)
    return layers, signal + noise, np.arange(N_SOUNDS) % N_FOLDS


def per_voxel(layers, y, folds):
    """Run the protocol for one voxel with scikit-learn, as the published code is structured.

    A fit for every fold, layer and penalty, each of which takes its rows out of every layer; then
    the search beyond the grid, one penalty at a time.
    """

    def score(train, name, alpha):
        predicted = np.empty(N_SOUNDS)
        for inner in np.unique(folds[train]):
            fit, held = train & (folds != inner), folds == inner
            rows = {layer: (x[fit], x[held]) for layer, x in layers.items()}
            predicted[held] = Ridge(alpha=alpha).fit(rows[name][0], y[fit]).predict(rows[name][1])
        return max(np.corrcoef(y[train], predicted[train])[0, 1], 0) ** 2

    for outer in range(N_FOLDS):
        train = folds != outer
        best, alpha, name = max((score(train, n, a), a, n) for a in ALPHAS for n in layers)
        step = {ALPHAS[0]: 0.5, ALPHAS[-1]: 2.0}.get(alpha)
        while step and (reached := score(train, name, alpha * step)) > best:
            best, alpha = reached, alpha * step
        Ridge(alpha=alpha).fit(layers[name][train], y[train]).predict(layers[name][~train])


def himalaya_grid(layers, y, folds, backend_name):
    """Fit the same penalties and folds with himalaya, a layer and an outer fold at a time.

    In himalaya's own precision: float64 with its NumPy backend, float32 with torch.
    """
    backend = set_backend(backend_name)
    dtype = "float64" if backend_name == "numpy" else "float32"
    targets = backend.asarray(y, dtype=dtype)
    for x in layers.values():
        kernel = backend.asarray(encoding.gram(x).numpy(), dtype=dtype)
        for outer in range(N_FOLDS):
            train, test = np.flatnonzero(folds != outer), np.flatnonzero(folds == outer)
            inner = PredefinedSplit(np.unique(folds[train], return_inverse=True)[1])
            model = KernelRidgeCV(alphas=np.array(ALPHAS), kernel="precomputed", cv=inner)
            model.fit(kernel[train][:, train], targets[train])
            model.predict(kernel[test][:, train])


def floor(n_layers, n_voxels, device, block=1024):
    """Multiply what has to be multiplied: hat matrices of 20 inner systems by the responses."""
    held = N_SOUNDS // N_FOLDS
    hats = torch.randn(len(ALPHAS) * held, N_SOUNDS - 2 * held, device=device)
    responses = torch.randn(N_SOUNDS - 2 * held, block, device=device)
    out = torch.empty(len(hats), block, device=device)
    for _ in range(N_FOLDS * (N_FOLDS - 1) * n_layers * -(-n_voxels // block)):
        torch.mm(hats, responses, out=out)


def growth(device):
    """Measure cost against the number of voxels, layers and penalties."""
    layers, y, folds = make_data(12, 4096)

    def cost(n_voxels=2048, n_layers=12, alphas=ALPHAS, extend="greedy"):
        some = dict(list(layers.items())[:n_layers])
        return alone(
            lambda: encoding.nested_cv_ridge(some, y[:, :n_voxels], folds, alphas, extend, device),
            device=device,
        ).median

    return {
        "voxels": [(n, cost(n_voxels=n)) for n in (512, 1024, 2048, 4096)],
        "layers": [(n, cost(n_layers=n)) for n in (1, 3, 6, 12)],
        "penalties": [
            (n, cost(alphas=np.geomspace(0.01, 50, n), extend="none")) for n in (2, 4, 8, 16)
        ],
    }


def plot(series, path):
    """Draw the cost against each quantity."""
    import matplotlib.pyplot as plt

    figures.use_style()
    _, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    for ax, (name, points) in zip(axes, series.items(), strict=True):
        ax.plot(*zip(*points, strict=True), marker="o")
        ax.set(xlabel=f"Number of {name}", ylabel="Seconds", ylim=(0, None), xlim=(0, None))
    plt.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=7694)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--sample", type=int, default=3, help="voxels of the per-voxel loop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plot", default="benchmarks/results/encoding.png")
    parser.add_argument("--json", default="benchmarks/results/encoding.json")
    options = parser.parse_args()
    device = resolve_device(options.device, float64=True)
    layers, y, folds = make_data(options.layers, options.voxels)

    def run():
        encoding.nested_cv_ridge(layers, y, folds, device=device)

    def seconds(function, repeats=1):
        return alone(function, repeats, device).median

    run()
    ours = seconds(run, options.repeats)
    peak = peak_memory(device) / 1e9
    bare = seconds(lambda: floor(len(layers), options.voxels, device), options.repeats)
    ours_again = seconds(run, options.repeats)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")  # ill-conditioned fits, as published
    sampled = np.linspace(0, options.voxels - 1, options.sample).astype(int)
    loop = seconds(lambda: [per_voxel(layers, y[:, v], folds) for v in sampled])
    loop *= options.voxels / options.sample
    torch.set_num_threads(threads)
    numpy_backend = seconds(lambda: himalaya_grid(layers, y, folds, "numpy"))
    torch_backend = "torch_cuda" if device.type == "cuda" else "torch"
    other = seconds(lambda: himalaya_grid(layers, y, folds, torch_backend))
    best = min(ours, ours_again)
    report = {
        "machine": f"{platform.machine()}, {threads} threads, {device}",
        "layers": len(layers),
        "voxels": options.voxels,
        "seconds_ours": round(ours, 3),
        "seconds_ours_after_floor": round(ours_again, 3),
        "per_voxel_loop_over_ours": round(loop / best),
        "per_voxel_loop_sample": options.sample,
        "himalaya_numpy_over_ours": round(numpy_backend / best, 1),
        "himalaya_torch_over_ours": round(other / best, 1),
        "ours_over_floor": round(statistics.median([ours, ours_again]) / bare, 1),
        "seconds_floor": round(bare, 3),
        "peak_memory_gb": round(peak, 2),
    }
    for name, value in report.items():
        print(f"{name:28s}{value}")
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    plot(growth(device), options.plot)
    print(f"cost against voxels, layers and penalties: {options.plot}")


if __name__ == "__main__":
    main()
