"""One table of what a device does: every kernel and training step against measured peaks.

    make bench DEVICE=cuda
    python benchmarks/device.py [--device auto] [--scale 1.0] [--whole]

Each row is timed on the device, and once more counted: floating-point operations of the matrix
products, convolutions and attention, and bytes that operations read and write. Both are set
against peaks measured in the same run, a large matrix product and a large copy. A row near neither
peak waits for something else: the host, small kernels, a sort. ``--whole`` adds the encoding of 36
models of twelve layers on the voxels of both data sets at their true size (generated numbers).
``--scale`` shrinks everything, to try the script.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from timing import alone
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from analysis_lib import encoding, models, pretraining, rsa
from analysis_lib.device import peak_memory, resolve_device
from analysis_lib.models.soundnet import SoundNet8
from analysis_lib.pretraining.masking import split_frames

N_SOUNDS, N_LAYERS = 165, 12
VOXELS = {"NH2015": 7_694, "B2021": 26_792}
FAMILIES = ("mel256-ec-small", "BEATs_iter1", "dasheng_base")
SECONDS, RATE_OF_SOUNDNET = 2.0, 22_050


class Traffic(TorchDispatchMode):
    """Counts the bytes of every tensor that an operation reads or writes."""

    def __init__(self):
        super().__init__()
        self.n_bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves((arguments, options, result)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.n_bytes += leaf.numel() * leaf.element_size()
        return result


def peaks(device, scale):
    """Operations per second of a matrix product by precision, and bytes per second of a copy."""
    n = max(512, int((8192 if device.type == "cuda" else 2048) * scale))
    found = {}
    for precision in (torch.float32, torch.bfloat16, torch.float64):
        if precision == torch.float64 and device.type == "mps":
            continue
        x = torch.randn(n, n, device=device).to(precision)
        took = alone(lambda x=x: x @ x, repeats=5, device=device, warm_up=True).median
        found[str(precision).removeprefix("torch.")] = 2 * n**3 / took
    x = torch.randn(max(1, int(scale * 2**26)), device=device)
    took = alone(x.clone, repeats=5, device=device, warm_up=True).median
    return found, 2 * x.numel() * x.element_size() / took


def layers_of(n_layers, seed):
    """Features of one model: a power-law spectrum in every layer."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, N_SOUNDS + 1) ** -0.7
    return {
        f"layer-{k}": (rng.standard_normal((N_SOUNDS, N_SOUNDS)) * spectrum).astype(np.float32)
        @ rng.standard_normal((N_SOUNDS, 768)).astype(np.float32)
        for k in range(n_layers)
    }


def voxels_of(layers, n_voxels, n_subjects, seed):
    """Voxels that mix the middle layer with noise, three sessions each."""
    rng = np.random.default_rng(seed)
    x = list(layers.values())[len(layers) // 2]
    signal = x @ rng.standard_normal((x.shape[1], n_voxels)).astype(np.float32)
    signal /= signal.std(axis=0)
    noise = rng.standard_normal((N_SOUNDS, n_voxels, 3)).astype(np.float32)
    subject = np.sort(np.arange(n_voxels) % n_subjects)
    return xr.DataArray(
        signal[:, :, None] + noise, dims=("sound", "target", "repetition"),
        coords={"subject": ("target", [f"sub-{k:02d}" for k in subject])},
    )  # fmt: skip


def analyses(device, scale):
    """Rows of the analyses: name, precision that decides, and what to call."""
    layers = layers_of(max(2, int(N_LAYERS * scale)), 0)
    repeated = voxels_of(layers, max(64, int(VOXELS["NH2015"] * scale)), 8, 1)
    voxels = repeated.mean("repetition")
    folds = np.arange(N_SOUNDS) % 5
    rng = np.random.default_rng(2)
    splits = np.array([rng.permutation(N_SOUNDS) < 83 for _ in range(max(2, int(10 * scale)))])
    n_draws, where = max(20, int(1000 * scale)), str(device)
    size = f"{len(layers)} layers x {voxels.sizes['target']} voxels"
    yield (
        f"encoding, {size}", "float64",
        lambda: encoding.nested_cv_ridge(layers, voxels, folds, device=where),
    )  # fmt: skip
    yield (
        f"split-half, {size}, {len(splits)} splits", "float64",
        lambda: encoding.split_half_ridge(layers, repeated, splits, device=where),
    )  # fmt: skip
    yield (
        f"RSA bootstrap, 8 subjects, {n_draws} draws", "float64",
        lambda: rsa.bootstrap(layers, voxels, n_boot=n_draws, device=where),
    )  # fmt: skip


def extractions(device, scale):
    """Rows of three families of models, each in two precisions."""
    batch = max(2, int(32 * scale))
    for name in FAMILIES:
        model = models.load(name, device=str(device), untrained=True)
        waves = 0.1 * torch.randn(batch, int(SECONDS * model.sample_rate))
        for precision in ("float32", "bfloat16"):
            mixed = precision == "bfloat16"

            def embed(model=model, waves=waves, mixed=mixed):
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                    return model.embed(waves)

            yield f"extraction, {name}, {batch} x {SECONDS:g} s", precision, embed


def training_steps(device, scale):
    """Rows of one step of pretraining and of fine-tuning: forward, backward, update."""
    precision = "bfloat16" if device.type == "cuda" else "float32"
    size = pretraining.SIZES["base" if scale >= 1 else "tiny"]
    n_frames, batch = 300, max(2, int(128 * scale))
    rng = np.random.default_rng(0)
    hidden = np.stack([pretraining.gap_mask(n_frames, rng) for _ in range(batch)])
    visible, hidden = (torch.from_numpy(part).to(device) for part in split_frames(hidden))
    network = pretraining.MaskedAutoencoder(size, 8, 1024).to(device)
    frames = torch.randn(batch, n_frames, 256, device=device)
    codes = torch.randint(1024, (batch, n_frames, 8), device=device)
    yield (
        f"pretraining step, {batch} x 4 s", precision,
        stepper(network, (frames, codes, visible, hidden), precision, device),
    )  # fmt: skip
    n_segments = max(1, int(8 * scale))
    yield (
        f"fine-tuning step, conv1 to conv7, {n_segments} x 70 TR", "float32",
        soundnet_step(SoundNet8().to(device), n_segments, device),
    )  # fmt: skip


def stepper(network, batch, precision, device):
    """Make a training step of an objective: what ``training.fit`` repeats."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)

    def step():
        mixed = precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss, weight, _ = network(*batch)
        optimiser.zero_grad()
        (loss / weight).backward()
        optimiser.step()

    return step


def soundnet_step(network, n_segments, device):
    """Make a step through SoundNet's convolutions, all of them learning."""
    waves = 0.1 * torch.randn(n_segments, 70 * 32_854, device=device)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-5)

    def step():
        deepest = dict(network.stages(waves))["conv7"]
        optimiser.zero_grad()
        deepest.square().mean().backward()
        optimiser.step()

    return step


def measured(name, precision, call, device, peak_of, copy):
    """Time a call, count what it does, and set both against the peaks."""
    took = alone(call, repeats=3, device=device, warm_up=True).median
    with FlopCounterMode(display=False) as operations, Traffic() as traffic:
        call()
    rate, flow = operations.get_total_flops() / took, traffic.n_bytes / took
    return {
        "row": name,
        "precision": precision,
        "seconds": round(took, 4),
        "tflop_per_s": round(rate / 1e12, 3),
        "of_peak": round(rate / peak_of[precision], 3),
        "gb_per_s": round(flow / 1e9, 2),
        "of_copy": round(flow / copy, 3),
    }


def whole(device, scale):
    """Encode 36 models on both data sets at true size; seconds, and seconds per model."""
    n_models = max(1, int(36 * scale))
    rows = []
    for dataset, n_voxels in VOXELS.items():
        n_subjects = 8 if dataset == "NH2015" else 20
        responses = voxels_of(layers_of(3, 0), max(64, int(n_voxels * scale)), n_subjects, 1)
        responses, folds = responses.mean("repetition"), np.arange(N_SOUNDS) % 5

        def all_models(responses=responses, folds=folds):
            for seed in range(n_models):
                layers = layers_of(max(2, int(N_LAYERS * scale)), seed)
                encoding.nested_cv_ridge(layers, responses, folds, device=str(device))

        took = alone(all_models, repeats=1, device=device).median
        name = f"encoding of {n_models} models, {dataset}, {responses.sizes['target']} voxels"
        rows.append(
            {"row": name, "seconds": round(took, 1), "per_model": round(took / n_models, 2)}
        )
    return rows


def markdown(report):
    """Lay the report out as a table."""
    columns = ["row", "precision", "seconds", "tflop_per_s", "of_peak", "gb_per_s", "of_copy"]
    lines = [f"# {report['machine']}", "", "| " + " | ".join(columns) + " |"]
    lines += ["| " + " | ".join("---" for _ in columns) + " |"]
    for row in report["rows"]:
        lines.append("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |")
    lines += ["", f"Peaks: {report['peaks']}", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--out", default="benchmarks/results")
    options = parser.parse_args()
    device = resolve_device(options.device)
    name = platform.machine() if device.type == "cpu" else torch.cuda.get_device_name(device)
    peak_of, copy = peaks(device, options.scale)
    report = {
        "machine": f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "scale": options.scale,
        "peaks": {
            **{f"{key}_tflop_per_s": round(value / 1e12, 2) for key, value in peak_of.items()},
            "copy_gb_per_s": round(copy / 1e9, 1),
        },
        "rows": [],
    }
    for source in (analyses, extractions, training_steps):
        for row in source(device, options.scale):
            report["rows"].append(measured(*row, device, peak_of, copy))
            print(report["rows"][-1], flush=True)
    if options.whole:
        report["rows"] += whole(device, options.scale)
    report["peak_memory_gb"] = round(peak_memory(device) / 1e9, 2)
    stem = "device-" + name.lower().replace(" ", "-")
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
