"""Time representational similarity with resampling.

    python benchmarks/rsa.py [--subjects 8] [--layers 12] [--device cpu]

Side by side in one run, medians of several repetitions, 165 sounds:

* bootstrap over sounds: ours against rsatoolbox's ``eval_bootstrap_pattern`` and against scipy's
  ``spearmanr`` on each resampled pair of matrices;
* permutation of sounds: ours against ``spearmanr`` on each permuted pair of matrices;
* layer selection with the paper's fold masks: ours, matrices included, against the same rule
  written with NumPy and ``spearmanr``.

What is slow is timed on a few draws and given per subject, layer and draw. One thread.
"""

import argparse
import contextlib
import io
import warnings

import numpy as np
import rsatoolbox
import scipy.stats
import torch
import xarray as xr
from threadpoolctl import threadpool_limits
from timing import alone, in_turns

from analysis_lib import rsa

N_SOUNDS, N_FOLDS, N_VOXELS = 165, 5, 960
UPPER = np.triu_indices(N_SOUNDS, k=1)


def make_data(n_subjects, n_layers, seed=0):
    """Layers with a power-law spectrum, and subjects whose voxels mix two of them."""
    rng = np.random.default_rng(seed)
    layers = {}
    for k, n_units in enumerate(np.linspace(768, 4096, n_layers).astype(int)):
        scores = rng.standard_normal((N_SOUNDS, N_SOUNDS)) * np.arange(1, N_SOUNDS + 1) ** -0.7
        layers[f"layer-{k:02d}"] = scores @ rng.standard_normal((N_SOUNDS, n_units))
    driver = layers[f"layer-{n_layers // 2:02d}"]
    voxels = driver @ rng.standard_normal((driver.shape[1], n_subjects * N_VOXELS))
    voxels = voxels / voxels.std(axis=0) + rng.standard_normal(voxels.shape)
    subject = np.repeat([f"sub-{k:02d}" for k in range(n_subjects)], N_VOXELS)
    responses = xr.DataArray(
        voxels, dims=("sound", "target"), coords={"subject": ("target", subject)}
    )
    return layers, responses


def plain_rdm(x):
    return 1 - np.corrcoef((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-10))


def select_plainly(layers, brain, folds):
    """Score one subject by the paper's rule, written as one would write it first."""
    target, matrices = plain_rdm(brain), [plain_rdm(x) for x in layers.values()]
    composite = np.zeros_like(target)
    for i in range(N_FOLDS):
        for j in range(i, N_FOLDS):
            train = (folds != i)[:, None] & (folds != j)[None, :]
            keep = train[UPPER]
            fits = [scipy.stats.spearmanr(target[UPPER][keep], m[UPPER][keep])[0] for m in matrices]
            composite[~train] = matrices[int(np.argmax(fits))][~train]
    return scipy.stats.spearmanr(target[UPPER], composite[UPPER])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--draws", type=int, default=50, help="of ours")
    parser.add_argument("--slow-draws", type=int, default=4, help="of what it is compared with")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        report(arguments)


def report(arguments):
    layers, responses = make_data(arguments.subjects, arguments.layers)
    folds, device = np.arange(N_SOUNDS) % N_FOLDS, arguments.device
    subjects = np.unique(responses["subject"])
    brains = [responses.values[:, responses["subject"].values == s] for s in subjects]
    models, targets = ([plain_rdm(x) for x in arrays] for arrays in (layers.values(), brains))
    comparisons = len(models) * len(targets)
    rng = np.random.default_rng(0)

    setup = alone(lambda: rsa.layerwise(layers, responses, device=device)).median
    print(f"{len(targets)} subjects, {len(models)} layers, {N_SOUNDS} sounds")
    print(f"matrices and their comparison, once: {1e3 * setup:.0f} ms")

    def bootstrap():
        return rsa.bootstrap(layers, responses, n_boot=arguments.draws, device=device)

    def toolbox():
        fixed = [rsatoolbox.model.ModelFixed(str(k), m[UPPER]) for k, m in enumerate(models)]
        data = rsatoolbox.rdm.RDMs(np.stack([m[UPPER] for m in targets]))
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            return rsatoolbox.inference.eval_bootstrap_pattern(
                fixed, data, method="spearman", N=arguments.slow_draws
            )

    def scipy_bootstrap():
        drawn = rng.integers(0, N_SOUNDS, N_SOUNDS)
        pairs = drawn[UPPER[0]], drawn[UPPER[1]]
        differ = pairs[0] != pairs[1]
        pairs = pairs[0][differ], pairs[1][differ]
        return [scipy.stats.spearmanr(models[0][pairs], m[pairs])[0] for m in targets]

    total, theirs, plain = (
        timing.median for timing in in_turns(bootstrap, toolbox, scipy_bootstrap, warm_up=False)
    )
    ours = (total - setup) / arguments.draws / comparisons
    theirs, plain = theirs / arguments.slow_draws / comparisons, plain / len(targets)
    show("bootstrap", ours, {"rsatoolbox": theirs, "scipy": plain}, {"rsatoolbox": 40})

    def permutation():
        return rsa.permutation(layers, responses, 10 * arguments.draws, device=device)

    def scipy_permutation():
        order = rng.permutation(N_SOUNDS)
        shuffled = [m[np.ix_(order, order)][UPPER] for m in targets]
        return [scipy.stats.spearmanr(models[0][UPPER], m)[0] for m in shuffled]

    total, plain = (
        timing.median for timing in in_turns(permutation, scipy_permutation, warm_up=False)
    )
    ours = (total - setup) / (10 * arguments.draws) / comparisons
    plain /= len(targets)
    show("permutation", ours, {"scipy": plain}, {"scipy": 150})

    def selection():
        return rsa.cross_validated(layers, responses, folds, "paper", device=device)

    ours, plain = in_turns(
        selection, lambda: select_plainly(layers, brains[0], folds), warm_up=False
    )
    seconds = ours.median / len(targets)
    show("layer selection, per subject", seconds, {"scipy": plain.median}, {"scipy": 10})
    print(f"  difference in score: {abs(float(ours.result['score'][0]) - plain.result):.1e}")


def show(name, ours, others, wanted):
    print(f"{name}: {1e3 * ours:.3f} ms")
    for other, seconds in others.items():
        goal = f" (wanted: {wanted[other]}x)" if other in wanted else ""
        print(f"  {other} {1e3 * seconds:.3f} ms: {seconds / ours:.0f}x{goal}")


if __name__ == "__main__":
    main()
