"""Pretraining against a bare loop of the same network.

``python benchmarks/pretraining.py`` prints steps and seconds of audio per second of a whole run
(recordings read, cropped and resampled; masks, frames and codes computed; the record written) and
of a loop over one batch that is ready in memory, measured in turns on this machine; for recordings
that are kept in memory once read, as a small corpus is, and for ones that are read anew for each
crop (FLAC at 44.1 kHz). On a GPU whose
peak is known it prints the model FLOP utilisation too: the multiplications and additions of three
forward passes (one forward, two backward) per second, as a share of that peak.
"""

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis_lib import pretraining
from analysis_lib.device import resolve_device
from analysis_lib.models.residual_transformer import mel_front_end
from analysis_lib.pretraining.masking import split_frames
from analysis_lib.pretraining.network import size_of

# Dense bfloat16 operations per second, from the data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def recordings(folder, n=64, seconds=10.0, rate=44_100):
    """Write noise, as long and at the rate that recordings usually have."""
    rng = np.random.default_rng(0)
    for i in range(n):
        wave = 0.1 * rng.standard_normal(int(seconds * rate))
        soundfile.write(folder / f"{i:03d}.flac", wave, rate)


def ready_batch(recipe, device):
    """One batch of random frames, codes and masks."""
    n_frames = mel_front_end().n_frames(recipe.n_samples)
    rng = np.random.default_rng(0)
    hidden = np.stack([pretraining.gap_mask(n_frames, rng) for _ in range(recipe.batch_size)])
    visible, hidden = (torch.from_numpy(part).to(device) for part in split_frames(hidden))
    frames = torch.randn(recipe.batch_size, n_frames, 256, device=device)
    shape = (recipe.batch_size, n_frames, recipe.n_codebooks)
    return frames, torch.randint(recipe.n_codes, shape, device=device), visible, hidden


def bare_loop(recipe, batch, n_steps, device):
    """Seconds of each step of the plainest loop."""
    on_cuda = device.type == "cuda"
    size = size_of(recipe.size)
    network = pretraining.MaskedAutoencoder(size, recipe.n_codebooks, recipe.n_codes).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, fused=on_cuda)
    forward = torch.compile(network) if on_cuda else network
    seconds = []
    for _ in range(n_steps):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=on_cuda):
            loss, weight, _ = forward(*batch)
        optimiser.zero_grad()
        (loss / weight).backward()
        optimiser.step()
        loss.item()  # waits for the device, as a run that records its loss does
        seconds.append(time.perf_counter() - started)
    return seconds[len(seconds) // 3 :]


def whole_run(recipe, audio, folder, device):
    """Seconds of each step of a run, those that were evaluated left out."""
    run = pretraining.pretrain(recipe, audio, folder, device=str(device), progress=False)
    steps = run.history[run.history["step"] > recipe.n_steps // 3]
    return steps.loc[steps["validation_loss"].isna(), "seconds"].tolist()


def utilisation(recipe, batch, seconds, device):
    """Share of the peak, as text; a dash where there is no peak to compare with."""
    if device.type != "cuda":
        return "-"
    name = torch.cuda.get_device_name(device)
    peak = next((peak for key, peak in PEAKS.items() if key in name), None)
    size = size_of(recipe.size)
    network = pretraining.MaskedAutoencoder(size, recipe.n_codebooks, recipe.n_codes).to(device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*batch)
    operations = 3 * counter.get_total_flops()
    share = f"{operations / seconds / peak:.0%}" if peak else "-"
    return f"{share} ({operations / seconds / 1e12:.0f} TFLOP/s, {name})"


def main(n_turns=3):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the ratios here")
    arguments = parser.parse_args()
    device = resolve_device("auto")
    report = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}"}
    recipes = [pretraining.recipe_of("natsound", n_steps=30, n_checkpoints=1)]
    if device.type == "cuda":
        recipes.append(
            pretraining.recipe_of("paper", targets="kmeans", n_steps=60, n_checkpoints=1)
        )
    print(f"{device}, torch threads: {torch.get_num_threads()}")
    print("size    batch  audio           bare loop               whole run   ratio   utilisation")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "audio").mkdir()
        recordings(folder / "audio")
        for recipe, kept in itertools.product(recipes, (True, False)):
            batch = ready_batch(recipe, device)
            bare, whole = [], []
            for turn in range(n_turns):
                options = {} if kept else {"memory_mb": 0}
                audio = pretraining.AudioFolder(folder / "audio", **options)
                bare += bare_loop(recipe, batch, recipe.n_steps, device)
                run = folder / f"{recipe.size}-{kept}-{turn}"
                whole += whole_run(recipe, audio, run, device)
            bare, whole = statistics.median(bare), statistics.median(whole)
            heard = recipe.batch_size * recipe.seconds
            print(
                f"{recipe.size:6s}{recipe.batch_size:5d} x {recipe.seconds:g} s "
                f"{'kept' if kept else 'read':5s}"
                f"{1 / bare:6.2f}/s {heard / bare:7,.0f} s/s "
                f"{1 / whole:6.2f}/s {heard / whole:7,.0f} s/s {bare / whole:7.0%}   "
                f"{utilisation(recipe, batch, whole, device)}"
            )
            report[f"{recipe.size}, recordings {'kept' if kept else 'read'}"] = {
                "steps_per_second": round(1 / whole, 2),
                "audio_seconds_per_second": round(heard / whole),
                "speed_of_bare_loop": round(bare / whole, 2),
            }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
