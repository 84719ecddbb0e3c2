"""Ridge regression with FIR delays, streamed: how near the matrix-product peak, how much memory.

    python benchmarks/fir_ridge.py [--features 1024] [--targets 210] [--lags 5] [--device auto]

Side by side in one run, best of several repetitions:

* ours: ``FirAccumulator`` over runs of 480 volumes, the length of half an episode;
* the peak: the same number of floating-point operations as one large matrix product after another;
* the explicit design: delayed copies of the features, and their full cross product;
* memory: bytes that the sums hold, and the process's peak, as the number of runs grows.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from timing import in_turns

from analysis_lib.device import peak_memory, resolve_device
from analysis_lib.encoding import fir

N_TRS = 480  # of a run: about 12 minutes
RUNS = (8, 16, 64)  # for the memory


def accumulated(x, y, n_runs, n_lags, device):
    sums = fir.FirAccumulator(x.shape[1], y.shape[1], n_lags, device=str(device))
    for _ in range(n_runs):
        sums.add(x, y)
    sums.folds["train"].flush()
    return sums


def explicit(x, y, n_lags, device):
    """One run's delayed copies and their cross products, as one would write them down."""
    design = torch.as_tensor(fir.delayed(x, n_lags), device=device)
    return design.T @ design, design.T @ torch.as_tensor(y[n_lags - 1 :], device=device)


def memory(n_runs, options):
    """Peak memory of a fresh process that accumulates so many runs, in bytes."""
    command = [sys.executable, __file__, "--only-memory", str(n_runs)]
    for name in ("features", "targets", "lags", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--targets", type=int, default=210)
    parser.add_argument("--lags", type=int, default=5)
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only-memory", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers to this file")
    options = parser.parse_args()
    device = resolve_device(options.device, float64=True)
    # First of all: a process begins with the peak memory of the one that started it.
    held = {} if options.only_memory else {str(n): memory(n, options) for n in RUNS}
    rng = np.random.default_rng(0)
    d, v, k = options.features, options.targets, options.lags
    x = rng.standard_normal((N_TRS, d)).astype(np.float32)
    y = rng.standard_normal((N_TRS, v)).astype(np.float32)
    if options.only_memory:
        accumulated(x, y, options.only_memory, k, device)
        print(peak_memory(device))
        return
    n_rows = N_TRS * options.runs
    work = 2 * n_rows * d * (d + v) * k
    block, n_products = torch.randn(4096, d, device=device), 16
    ours, product, slow = in_turns(
        lambda: accumulated(x, y, options.runs, k, device),
        lambda: [block.T @ block for _ in range(n_products)],
        lambda: explicit(x, y, k, device),
        device=device,
        repeats=5,
    )
    # The best of each: what a machine can do when others leave it alone for a moment.
    rate = n_products * 2 * 4096 * d**2 / min(product.seconds)
    seconds, explicitly = min(ours.seconds), options.runs * min(slow.seconds)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {device}",
        "shape": {"rows": n_rows, "features": d, "targets": v, "lags": k},
        "peak_gflops": rate / 1e9,
        "accumulation_seconds": seconds,
        "floor_seconds": work / rate,
        "ratio_to_peak": seconds * rate / work,
        "explicit_seconds": explicitly,
        "times_faster_than_explicit": explicitly / seconds,
        "peak_memory_bytes": held,
    }
    print(json.dumps(result, indent=1))
    print(f"accumulation / matrix-product peak: {result['ratio_to_peak']:.2f} (wanted: 1.5)")
    most, least = held[str(RUNS[-1])], held[str(RUNS[0])]
    print(f"memory with {RUNS[-1]} runs / with {RUNS[0]}: {most / least:.3f}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
