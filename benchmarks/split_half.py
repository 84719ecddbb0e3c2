"""Time the choice of a penalty per voxel by leaving one sound out.

    python benchmarks/split_half.py [--targets 300] [--units 2048] [--device cpu]

Side by side in one run, medians of several repetitions, on one layer of 165 sounds:

* ours: ``split_half_ridge``, 10 splits, 100 penalties, Gram matrix included, per split;
* scikit-learn's RidgeCV, one fit per voxel, on a stated sample of voxels, extrapolated;
* scikit-learn's RidgeCV for all voxels at once, one penalty each.

How often all voxels get the same penalty is printed too: they differ where scikit-learn's lies
orders of magnitude below the smallest eigenvalue, where its errors are rounding. Threads are
limited to one, with which the per-voxel loop is fastest.
"""

import argparse

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits
from timing import in_turns

from analysis_lib.data.splits import tuckute_splits
from analysis_lib.encoding.split_half import TUCKUTE_ALPHAS, split_half_ridge

N_SOUNDS = 165


def make_data(n_units, n_targets, seed=0):
    """Draw a layer with a power-law spectrum, and voxels that follow it in noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N_SOUNDS, N_SOUNDS)) * np.arange(1, N_SOUNDS + 1) ** -0.7
    x = x @ rng.standard_normal((N_SOUNDS, n_units))
    signal = x @ rng.standard_normal((n_units, n_targets))
    noise = rng.uniform(0.3, 2, n_targets) * rng.standard_normal(signal.shape)
    return x, signal / signal.std(axis=0) + noise


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", type=int, default=300)
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--sample", type=int, default=12, help="voxels of the per-voxel loop")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    x, y = make_data(arguments.units, arguments.targets)
    splits = tuckute_splits([str(k) for k in range(N_SOUNDS)])
    train = splits.values[0]

    def ours():
        return split_half_ridge({"layer": x}, y, splits.values, device=arguments.device)

    def one_by_one():
        columns = y[train][:, : arguments.sample].T
        return [RidgeCV(TUCKUTE_ALPHAS).fit(x[train], column).alpha_ for column in columns]

    def all_at_once():
        return RidgeCV(TUCKUTE_ALPHAS, alpha_per_target=True).fit(x[train], y[train]).alpha_

    ours()  # the first call loads libraries
    with threadpool_limits(1):
        timings = in_turns(
            ours, one_by_one, all_at_once, repeats=arguments.repetitions, warm_up=False
        )
    fast, slow, multi = (timing.median for timing in timings)
    fast /= len(splits)
    slow *= arguments.targets / arguments.sample

    chosen, alphas = timings[0].result.isel(layer=0, split=0), timings[2].result
    finite = ~chosen["mean_only"].values
    same = np.isclose(chosen["alpha"].values, alphas, rtol=1e-6)[finite].mean()
    print(f"{arguments.targets} targets, {arguments.units} units, one split, 100 penalties")
    print(f"  ours                      {1e3 * fast:10.1f} ms")
    print(f"  RidgeCV, voxel by voxel   {1e3 * slow:10.1f} ms   (from {arguments.sample} voxels)")
    print(f"  RidgeCV, all at once      {1e3 * multi:10.1f} ms")
    print(f"  same penalty in {100 * same:.1f} % of {finite.sum()} fits that use the features")
    print(f"ratio to voxel by voxel: {slow / fast:.0f}x (wanted: 300x)")
    print(f"ratio to all at once:    {multi / fast:.0f}x (wanted: 10x)")


if __name__ == "__main__":
    main()
